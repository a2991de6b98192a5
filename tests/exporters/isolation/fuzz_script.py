"""Damages a sealed file and its evidence in many ways, each fixed by a seed; with ``verify``, examines them at once.

``python fuzz_script.py MODEL FOLDER SEED COUNT [verify]`` writes ``FOLDER/NUMBER/model.onnx`` and its evidence, and
prints one JSON object for each: what was done, and with ``verify`` the exit code and the last check.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import onnx

from compressor.system.files import sha256_bytes
from exporters import verify
from exporters.claim.claim import model_bytes, model_digest, read_claim, with_claim
from exporters.claim.evidence import evidence_path
from exporters.isolation.memory_limit import limit_memory

MEMORY = 2 * 10**9
EXTREMES = (-(2**63), -(2**31), -1, 0, 1, 2, 7, 2**16, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
OPERATORS = ("Relu", "Sigmoid", "Conv", "Gemm", "MatMul", "Flatten", "Reshape", "Add", "Clip", "MaxPool", "Concat")
OPERATORS = (*OPERATORS, "Softmax", "Transpose", "BatchNormalization", "QuantizeLinear", "Tile", "If", "Nonsense", "")


# Of bytes


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def swap(data: bytes, rng: random.Random) -> bytes:
    a, b, c, d = sorted(rng.sample(range(len(data)), 4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.sample(range(len(data)), 2))
    return data[:b] + data[a:b] * rng.choice((1, 1, 2, 50)) + data[b:]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 4, 100))) + data[at:]


BYTES = (flip, truncate, swap, duplicate, insert)


# Of the message


def operator(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(model.graph.node).op_type = rng.choice(OPERATORS)


def attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    if not node.attribute or rng.random() < 0.3:
        name = rng.choice(("pads", "strides", "dilations", "group", "axis", "transB", "kernel_shape", "alpha"))
        node.attribute.append(onnx.helper.make_attribute(name, [rng.choice(EXTREMES)] * rng.choice((1, 2, 4))))
        return
    found = rng.choice(node.attribute)
    found.i = rng.choice(EXTREMES)
    for place in range(len(found.ints)):
        found.ints[place] = rng.choice(EXTREMES)


def shape(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    dim = rng.choice(value.type.tensor_type.shape.dim)
    dim.dim_value = rng.choice(EXTREMES)


def weights(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(4):
        case 0:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(EXTREMES)
        case 1:
            tensor.dims.append(rng.choice(EXTREMES))
        case 2:
            tensor.data_type = rng.randrange(30)
        case 3:
            tensor.raw_data = rng.randbytes(len(tensor.raw_data)) if rng.random() < 0.7 else b"\0"


def edge(model: onnx.ModelProto, rng: random.Random) -> None:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = rng.choice(model.graph.node)
    ends = rng.choice((node.input, node.output))
    ends[rng.randrange(len(ends))] = rng.choice((*names, "", "elsewhere"))


def node(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.graph.node.append(rng.choice(model.graph.node))
    else:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def version(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice(EXTREMES)
    else:
        model.opset_import[0].version = rng.choice((*EXTREMES, 6, 9, 13, 21))


MESSAGE = (operator, attribute, shape, weights, edge, node, version)


# Both files


def damaged(model: bytes, evidence: bytes, rng: random.Random) -> tuple[str, bytes, bytes]:
    """What was done, the model and the evidence."""
    kind = rng.randrange(10)
    if kind < 3:
        change = rng.choice(BYTES)
        return f"{change.__name__} model", change(model, rng), evidence
    if kind < 5:
        change = rng.choice(BYTES)
        return f"{change.__name__} evidence", model, change(evidence, rng)
    message = onnx.ModelProto.FromString(model)
    claim = read_claim(message)
    assert claim is not None
    if kind == 5:  # evidence whose digest is right
        change = rng.choice(BYTES)
        evidence = change(evidence, rng)
        sealed = with_claim(message, replace(claim, evidence=sha256_bytes(evidence)).sealed())
        return f"resealed {change.__name__} evidence", model_bytes(sealed), evidence
    names = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        altered = rng.choice(MESSAGE)
        if message.graph.node:
            altered(message, rng)
        names.append(altered.__name__)
    if kind < 8:
        return " ".join(names), model_bytes(message), evidence
    sealed = with_claim(message, replace(claim, model=model_digest(message)).sealed())
    return f"resealed {' '.join(names)}", model_bytes(sealed), evidence


def main(source: Path, folder: Path, seed: int, count: int, *, at_once: bool) -> None:
    model, evidence = source.read_bytes(), evidence_path(source).read_bytes()
    if at_once:
        limit_memory(MEMORY)
    for number in range(count):
        rng = random.Random(1_000_003 * seed + number)
        what, *contents = damaged(model, evidence, rng)
        path = folder / f"{number}" / "model.onnx"
        path.parent.mkdir()
        for place, content in zip((path, evidence_path(path)), contents, strict=True):
            place.write_bytes(content)
        told = {"number": number, "what": what, "same": contents == [model, evidence]}
        if at_once:
            verdict = verify(path, seed=1, threads=1, isolate=False)
            last = verdict.first_problem
            told |= {"exit_code": verdict.exit_code, "detail": last.detail if last else "", "json": verdict.to_json()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), at_once="verify" in sys.argv[5:])
