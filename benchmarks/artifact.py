"""Students exported in every precision and re-checked, and forged files that must be caught, by the command line alone.

python benchmarks/artifact.py --data imagefolder:DIR --work DIR mobilenetv2=CHECKPOINT resnet18=CHECKPOINT

Each student is exported in fp32, fp16 and INT8 with a signature; then `compress verify` judges every file as its
recipient would, in a process of its own, with the data and the public key. The first student's files are then forged:

- quantised so that gradients vanish, and a claim that calls every correct image robust;
- fine-tuned after the claim was made: the claim left as it was, and the claim made to fit the new weights;
- a consistent pair made anew by somebody without the key;
- the images that happened to be robust, in the place of those that the dataset's digest draws;
- outputs that are rounded, signs, one-hot, or depend on the batch, each with a claim of full robustness.

Two Markdown tables; the last line is JSON. Exit 1 where a genuine file does not hold or a forged one is not caught.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from forging import Forgery, forge

PRECISIONS = ("fp32", "fp16", "int8")


def main() -> int:
    """Export, verify, forge, verify again; print both tables and the JSON."""
    arguments = _arguments()
    students = dict(word.split("=", 1) for word in arguments.students)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    private, public = _make_keys(work)
    data, key = ["--data", arguments.data], ["--public-key", str(public)]
    threads = ["--threads", str(arguments.threads)]
    exports = {name: _export(name, Path(checkpoint), arguments, private) for name, checkpoint in students.items()}
    genuine: list[dict[str, Any]] = []
    forged: list[dict[str, Any]] = []
    if "verify" in arguments.stages:
        print(
            "| student | precision | size | batch 1 | batch 64 | clean | attacked | lost | fresh attacks broke | exit |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
        times = {name: _milliseconds(rows, arguments.threads) for name, rows in exports.items()}
        for name, rows in exports.items():
            for row in rows:
                verdict = _verify(Path(row["path"]), *data, *key, *threads, "--require-assurance", "signed")
                genuine.append({"student": name, **row, "latency_ms": times[name][row["precision"]], "verify": verdict})
                print(_genuine_row(genuine[-1]), flush=True)
    if "forge" in arguments.stages:
        print("\n| forged file | how it was verified | exit | answer | what caught it |")
        print("|---|---|---:|---|---|", flush=True)
        first = next(iter(students))
        for forgery in forge(work / first, Path(students[first]), arguments.data):
            few = ["--samples", str(arguments.forged_samples)]
            words = [
                *threads,
                *few,
                *(data if forgery.with_data else []),
                *(key if forgery.with_key else []),
                *forgery.words,
            ]
            verdict = _verify(forgery.path, *words)
            forged.append({"name": forgery.name, "words": list(forgery.words), "verify": verdict})
            print(_forged_row(forgery, verdict), flush=True)
    print(json.dumps({"genuine": genuine, "forged": forged}))
    caught = all(one["verify"]["exit_code"] in (1, 3) for one in forged)
    return 0 if caught and all(one["verify"]["exit_code"] == 0 for one in genuine) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("students", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", required=True, help="as for `compress export`")
    parser.add_argument("--work", type=Path, required=True, help="where files go")
    parser.add_argument("--evidence-samples", type=int, default=256)
    parser.add_argument("--forged-samples", type=int, default=48, help="images that are attacked in each forgery")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--stages", nargs="+", choices=("verify", "forge"), default=["verify", "forge"], help="after export"
    )
    return parser.parse_args()


def _make_keys(work: Path) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private, public = work / "key.pem", work / "key.pub"
    if not private.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def _compress(*words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([sys.executable, "-m", "cli", *words, "--json"], capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer


def _export(name: str, checkpoint: Path, arguments: argparse.Namespace, key: Path) -> list[dict[str, Any]]:
    folder = arguments.work / name
    kept = folder / "export.json"
    if not kept.exists():
        code, answer = _compress(
            *("export", str(checkpoint), "--output", str(folder), "--force", "--sign-key", str(key)),
            *(word for precision in PRECISIONS for word in ("--precision", precision)),
            *("--data", arguments.data, "--threads", str(arguments.threads)),
            *("--evidence-samples", str(arguments.evidence_samples)),
        )
        if "exports" not in answer:
            sys.exit(f"the export of {name} ended with {code}: {answer}")
        kept.write_text(json.dumps(answer))
    exports: list[dict[str, Any]] = json.loads(kept.read_text())["exports"]
    return exports


def _milliseconds(rows: list[dict[str, Any]], threads: int) -> dict[str, dict[str, float]]:
    """Medians by precision and batch size, in this process: the exports' own were taken while others may have run."""
    from exporters.artifact.latency import measure_latency

    times = measure_latency({row["precision"]: Path(row["path"]).read_bytes() for row in rows}, threads=threads)
    return {
        precision: {str(size): 1000 * time.seconds for size, time in by_size.items()}
        for precision, by_size in times.items()
    }


def _verify(path: Path, *words: str) -> dict[str, Any]:
    code, answer = _compress("verify", str(path), *words)
    if code != answer["exit_code"]:
        sys.exit(f"{path}: the process ended with {code}, and its answer says {answer['exit_code']}")
    return answer


def _genuine_row(row: dict[str, Any]) -> str:
    verdict, latency = row["verify"], row["latency_ms"]
    claim = verdict["claim"]
    figures = (
        row["student"],
        row["precision"],
        f"{row['bytes'] / 1e6:.2f} MB",
        *(f"{latency[size]:.2f} ms" if size in latency else "-" for size in ("1", "64")),
        f"{100 * row['clean_accuracy']:.1f}",
        f"{100 * row['robust_accuracy']:.1f} ({claim['robust']} of {claim['samples']})",
        "-" if row["precision"] == "fp32" else f"{100 * row['robust_loss']:.1f}",
        f"{verdict['broken']} of {verdict['attacked']}",
        str(verdict["exit_code"]),
    )
    return f"| {' | '.join(figures)} |"


def _forged_row(forgery: Forgery, verdict: dict[str, Any]) -> str:
    asked = [*(["`--data`"] if forgery.with_data else []), *(["`--public-key`"] if forgery.with_key else [])]
    asked += [f"`{' '.join(forgery.words)}`"] if forgery.words else []
    problem = verdict["failure"] or {"check": "-", "detail": "-"}
    found = f"{problem['check']}: {problem['detail']}".replace("|", "\\|")
    return f"| {forgery.name} | {' '.join(asked) or '-'} | {verdict['exit_code']} | {verdict['verdict']} | {found} |"


if __name__ == "__main__":
    sys.exit(main())
