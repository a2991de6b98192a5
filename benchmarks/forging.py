"""Forged files: pairs of model and evidence that are consistent in themselves and claim what is not so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from exporters.claim.claim import Claim
    from exporters.claim.evidence import Evidence

FINE_TUNING_STEPS, FINE_TUNING_RATE = 60, 0.02


@dataclass(frozen=True)
class Forgery:
    """A file that must not hold.

    Attributes:
        name: what was done to it.
        path: the model; its evidence lies beside it.
        words: what its recipient asks for besides.
        with_data: whether the recipient holds the dataset.
        with_key: whether the recipient has the exporter's public key.
    """

    name: str
    path: Path
    words: tuple[str, ...] = ()
    with_data: bool = False
    with_key: bool = False


def forge(folder: Path, checkpoint: Path, data: str) -> Sequence[Forgery]:
    """Forge the files of one student.

    Args:
        folder: where its fp32 and INT8 exports lie.
        checkpoint: what they were made of.
        data: its dataset, as for ``--data``.
    """
    import numpy as np
    import onnx

    from exporters.claim.claim import read_claim
    from exporters.claim.evidence import Evidence, evidence_path, parse_evidence

    made = Forger(folder.parent / "forged")
    opened = {name: folder / ("model.onnx" if name == "fp32" else f"model-{name}.onnx") for name in ("fp32", "int8")}
    models = {name: onnx.load(str(path)) for name, path in opened.items()}
    claims = {name: read_claim(model) for name, model in models.items()}
    found = {name: parse_evidence(evidence_path(path).read_bytes()) for name, path in opened.items()}
    fp32, int8 = (claims[name] for name in ("fp32", "int8"))
    evidence, of_int8 = (found[name] for name in ("fp32", "int8"))
    assert fp32 is not None
    assert int8 is not None
    assert isinstance(evidence, Evidence)
    assert isinstance(of_int8, Evidence)
    tuned = _fine_tuned(checkpoint, data, int(evidence.images.shape[-1]))
    tuned.metadata_props.extend(models["fp32"].metadata_props)

    shorter = _chosen(evidence, range(len(evidence) - 1))
    easy = _chosen(evidence, np.flatnonzero(evidence.robust).tolist())
    forgeries = [
        Forgery(
            "INT8, input quantised to 11 levels", made.boast("int8-coarse", _coarse(models["int8"]), int8, of_int8)
        ),
        Forgery("INT8, logits times 10,000", made.boast("int8-loud", _loud(models["int8"]), int8, of_int8)),
        Forgery("fine-tuned, claim left as it was", made.write("stale", tuned, fp32, evidence, reseal=False)),
        Forgery("fine-tuned, claim made to fit", made.write("stale-fitted", tuned, fp32, evidence)),
        Forgery(
            "consistent pair made anew, old signature beside it",
            made.write("signed-before", models["fp32"], fp32, shorter, signed_as=opened["fp32"]),
            ("--require-assurance", "signed"),
            with_key=True,
        ),
        Forgery(
            "the same, and nobody's key given",
            made.write("regenerated", models["fp32"], fp32, shorter),
            ("--require-assurance", "signed"),
        ),
        Forgery(
            "only images that are robust",
            made.write("easy", models["fp32"], fp32, easy),
            ("--require-assurance", "dataset-bound"),
            with_data=True,
        ),
    ]
    for name, build in OUTPUTS.items():
        forgeries.append(Forgery(name, made.boast(name.replace(" ", "-"), build(models["fp32"]), fp32, evidence)))
    return forgeries


@dataclass(frozen=True)
class Forger:
    """Writes pairs that are consistent in themselves, whatever they say.

    Attributes:
        folder: where they go, one folder each.
    """

    folder: Path

    def write(
        self,
        name: str,
        model: onnx.ModelProto,
        claim: Claim,
        evidence: Evidence,
        *,
        reseal: bool = True,
        signed_as: Path | None = None,
    ) -> Path:
        """A pair whose counts and digests fit; or keep an old claim; or put another file's signature beside."""
        from compressor.system.files import sha256_bytes
        from exporters.claim.claim import model_bytes, model_digest, with_claim
        from exporters.claim.evidence import evidence_path
        from exporters.claim.signing import signature_path

        path = self.folder / name / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = evidence.to_bytes()
        if reseal:
            claim = replace(
                claim,
                samples=len(evidence),
                clean_correct=int(evidence.clean.sum()),
                robust=int(evidence.robust.sum()),
                evidence=sha256_bytes(data),
                model=model_digest(model),
            ).sealed()
        evidence_path(path).write_bytes(data)
        path.write_bytes(model_bytes(with_claim(model, claim)))
        signature_path(path).unlink(missing_ok=True)
        if signed_as is not None:
            signature_path(path).write_bytes(signature_path(signed_as).read_bytes())
        return path

    def boast(self, name: str, model: onnx.ModelProto, claim: Claim, evidence: Evidence) -> Path:
        """A pair that calls every image robust that the file gets right, as an exporter whose attacks fail would."""
        import numpy as np

        from exporters.claim.claim import model_bytes
        from exporters.claim.evidence import Evidence as Pair
        from exporters.file_attacks.target import lead
        from exporters.model_file.runtime import open_session

        right = lead(open_session(model_bytes(model))(evidence.natural()), evidence.labels) > 0
        nothing = np.zeros(0, dtype=np.int64)
        proven = Pair(
            images=evidence.images,
            labels=evidence.labels,
            clean=right,
            robust=right,
            adversarial_u8=evidence.images[:0],
            adversarial_u8_index=nothing,
            adversarial_f32=evidence.natural()[:0],
            adversarial_f32_index=nothing,
        )
        return self.write(name, model, claim, proven)


def _chosen(evidence: Evidence, positions: Sequence[int]) -> Evidence:
    import numpy as np

    from exporters.claim.evidence import Evidence as Pair

    order = np.asarray(positions, dtype=np.int64)
    moved = {int(old): new for new, old in enumerate(order)}
    kept = {}
    for name in ("adversarial_u8", "adversarial_f32"):
        index = getattr(evidence, f"{name}_index")
        here = np.isin(index, order)
        kept[name] = getattr(evidence, name)[here]
        kept[f"{name}_index"] = np.array([moved[int(old)] for old in index[here]], dtype=np.int64)
    return Pair(
        images=evidence.images[order],
        labels=evidence.labels[order],
        clean=evidence.clean[order],
        robust=evidence.robust[order],
        **kept,
    )


def _fine_tuned(checkpoint: Path, data: str, image_size: int) -> onnx.ModelProto:
    """The student after some steps of natural training, exported."""
    import torch

    from compressor.checkpoint import load_checkpoint
    from compressor.core.types import DatasetSpec
    from compressor.data.datasets import open_dataset
    from compressor.numerics.augment import to_float_tensor
    from compressor.numerics.losses import cross_entropy
    from exporters.writing.onnx import export_onnx

    model = load_checkpoint(checkpoint).classifier.train()
    split = open_dataset(DatasetSpec.parse(data), image_size=image_size).load("train")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), FINE_TUNING_RATE, momentum=0.9)
    for step in range(FINE_TUNING_STEPS):
        part = order[64 * step : 64 * step + 64].sort().values.numpy()
        x, y = to_float_tensor(torch.from_numpy(split.images[part])), torch.from_numpy(split.labels[part])
        optimizer.zero_grad()
        cross_entropy(model(x), y).mean().backward()
        optimizer.step()
    return export_onnx(model.eval(), image_size)


def _rewired(model: onnx.ModelProto, before: Sequence[Any], after: Sequence[Any], **constants: Any) -> onnx.ModelProto:
    """The graph between more nodes: ``before`` make ``fed`` of ``input``, ``after`` make ``logits`` of ``inner``."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in copy.graph.node]
    for node in nodes:
        if before:
            node.input[:] = ["fed" if name == "input" else name for name in node.input]
        if after:
            node.output[:] = ["inner" if name == "logits" else name for name in node.output]
            node.input[:] = ["inner" if name == "logits" else name for name in node.input]
    del copy.graph.node[:]
    copy.graph.node.extend([*before, *nodes, *after])
    copy.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return copy


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs.split(), [output], name=f"forged_{output}", **attributes)


def _reduced(model: onnx.ModelProto, kind: str, output: str, axis: int) -> tuple[Any, dict[str, Any]]:
    """A Reduce operator over one axis of ``inner``, and its constants: the axis is an input only since opset 18."""
    import numpy as np

    from exporters.model_file.opset import opset_of

    if (opset_of(model) or 0) < 18:
        return _node(kind, "inner", output, axes=[axis], keepdims=1), {}
    return _node(kind, "inner forged_axis", output, keepdims=1), {"forged_axis": np.array([axis], dtype=np.int64)}


def _coarse(model: onnx.ModelProto) -> onnx.ModelProto:
    import numpy as np

    before = [
        _node("QuantizeLinear", "input coarse_step coarse_zero", "levels"),
        _node("DequantizeLinear", "levels coarse_step coarse_zero", "fed"),
    ]
    return _rewired(model, before, [], coarse_step=np.float32(0.1), coarse_zero=np.uint8(0))


def _loud(model: onnx.ModelProto) -> onnx.ModelProto:
    import numpy as np

    return _rewired(model, [], [_node("Mul", "inner loudness", "logits")], loudness=np.float32(1e4))


def _rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    return _rewired(model, [], [_node("Round", "inner", "logits")])


def _signs(model: onnx.ModelProto) -> onnx.ModelProto:
    top, constants = _reduced(model, "ReduceMax", "top", axis=1)
    after = [top, _node("Sub", "inner top", "behind"), _node("Sign", "behind", "logits")]
    return _rewired(model, [], after, **constants)


def _one_hot(model: onnx.ModelProto) -> onnx.ModelProto:
    import numpy as np

    after = [
        _node("ArgMax", "inner", "winner", axis=1, keepdims=0),
        _node("OneHot", "winner class_count off_on", "logits"),
    ]
    classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    off_on = np.array([0, 1], dtype=np.float32)
    return _rewired(model, [], after, class_count=np.array([classes], dtype=np.int64), off_on=off_on)


def _of_the_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    mean, constants = _reduced(model, "ReduceMean", "batch_mean", axis=0)
    return _rewired(model, [], [mean, _node("Sub", "inner batch_mean", "logits")], **constants)


OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "rounded logits": _rounded,
    "signs for logits": _signs,
    "one-hot": _one_hot,
    "batch-dependent": _of_the_batch,
}
