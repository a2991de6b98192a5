"""How much of a file the accelerators of phones could take, by onnxruntime's own check; it looks at operators alone."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

_NAMES = {"nnapi": "NNAPI", "coreml_neural_network": "CoreML NeuralNetwork", "coreml_ml_program": "CoreML MLProgram"}
_COREML = {
    "coreml_neural_network": "coreml_supported_neuralnetwork_ops.md",
    "coreml_ml_program": "coreml_supported_mlprogram_ops.md",
}


@dataclass(frozen=True)
class PartitionFit:
    """How a graph would be cut up.

    Attributes:
        operators: in the graph, as onnxruntime loads it.
        taken: how many of them the accelerator knows.
        parts: into how many pieces they are cut; between two of them, values travel to the processor and back.
        suits: ``yes``, ``maybe`` or ``no``: whether it is likely to be worth it.
    """

    operators: int
    taken: int
    parts: int
    suits: str

    def __str__(self) -> str:
        parts = "" if self.taken == 0 else f" in {self.parts} part{'s' if self.parts > 1 else ''}"
        return f"{self.suits}: {self.taken} of {self.operators}{parts}"


@dataclass(frozen=True)
class Accelerator:
    """One way to run a file on a phone.

    Attributes:
        name: of it.
        as_it_is: what it would take of the file.
        with_fixed_batch: what it would take if the batch were fixed; None where all shapes are fixed already.
        lacks: operators of the file that it does not know, sorted.
    """

    name: str
    as_it_is: PartitionFit
    with_fixed_batch: PartitionFit | None
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class MobileUsability:
    """What the check found, or why there is none.

    Attributes:
        accelerators: key to what it would take; empty where the check could not be made.
        reason: why not; None where it was made.
    """

    accelerators: dict[str, Accelerator]
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """``mobile``, None where the check could not be made, and ``mobile_reason``, None where it was."""
        found = {key: asdict(accelerator) for key, accelerator in self.accelerators.items()}
        return {"mobile": found or None, "mobile_reason": self.reason}


def mobile_usability(model: bytes) -> MobileUsability:
    """Ask onnxruntime's tools what NNAPI and CoreML would take of a file; whatever goes wrong is a reason, no error.

    The graph is optimised first, as onnxruntime does when it loads it, in a temporary folder. Nothing is printed.

    Args:
        model: the bytes of an ONNX file.
    """
    quiet = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet):
            warnings.simplefilter("ignore")
            return MobileUsability(_check(model))
    except ImportError:
        return MobileUsability({}, "the installed onnxruntime has no tools for phones")
    except Exception as error:  # a by-product must not cost the export
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return MobileUsability({}, "".join(character if character.isprintable() else "?" for character in line))


def _check(model: bytes) -> dict[str, Accelerator]:
    from onnxruntime.tools.mobile_helpers import usability_checker as tool

    graph = _as_loaded(model)
    dynamic = not all(size.HasField("dim_value") for size in graph.graph.input[0].type.tensor_type.shape.dim)

    def nnapi(static: bool) -> Any:
        return tool.check_nnapi_partitions(graph, static)

    def coreml(operators: str) -> Callable[[bool], Any]:
        return lambda static: tool.check_coreml_partitions(graph, static, operators)

    checks = {"nnapi": nnapi} | {key: coreml(operators) for key, operators in _COREML.items()}
    found = {}
    for key, check in checks.items():
        # Only where it does not ask for static shapes does the tool speak of operators alone.
        fixed = check(False)
        lacks = tuple(sorted(name.removeprefix("ai.onnx:") for name in fixed.unsupported_ops))
        found[key] = Accelerator(_NAMES[key], _fit(check(True)), _fit(fixed) if dynamic else None, lacks)
    return found


def _as_loaded(model: bytes) -> onnx.ModelProto:
    from onnxruntime.tools.onnx_model_utils import optimize_model

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "loaded.onnx"
        source.write_bytes(model)
        optimize_model(source, target)
        return onnx.shape_inference.infer_shapes(onnx.load(target), strict_mode=True)


def _fit(partitions: Any) -> PartitionFit:
    return PartitionFit(
        partitions.num_nodes,
        partitions.num_supported_nodes,
        partitions.num_partitions,
        partitions.suitability().name.lower(),
    )
