"""Reads an ONNX graph and runs it in torch, so that its input has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

# Each import registers one family of operators.
import exporters.differentiable.operators.activations
import exporters.differentiable.operators.attention
import exporters.differentiable.operators.convolution
import exporters.differentiable.operators.elementwise
import exporters.differentiable.operators.filling
import exporters.differentiable.operators.indexing
import exporters.differentiable.operators.logic
import exporters.differentiable.operators.matrices
import exporters.differentiable.operators.normalization
import exporters.differentiable.operators.pooling
import exporters.differentiable.operators.quantizing
import exporters.differentiable.operators.reductions
import exporters.differentiable.operators.resizing
import exporters.differentiable.operators.rounding
import exporters.differentiable.operators.shapes
import exporters.differentiable.operators.unary  # noqa: F401
from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError
from compressor.system.memory import is_out_of_memory
from exporters.differentiable.arithmetic import Arithmetic, arithmetic_of
from exporters.differentiable.constants import to_tensor
from exporters.differentiable.registry import ENTRIES, Node, Operation, blocks_gradient, build, describe_node, saturates
from exporters.model_file.opset import opset_of

MAX_CONSTANT_BYTES = 1 << 31
"""All weights and constants together: what one protobuf file can hold."""

ValueObserver = Callable[[str, Tensor], None]
"""Receives the name of a value and the value."""


@dataclass(frozen=True)
class _Step:
    operation: Operation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    label: str
    released: tuple[str, ...]  # values that nothing reads after this step


class GraphModule(nn.Module):
    """An ONNX graph as a torch module: its weights are buffers, and nothing in it is trained.

    Built by :func:`import_graph`. Modes do not matter to it: BatchNormalization uses its stored statistics.

    Attributes:
        arithmetic: how the file computes, by its own operators and weights.
        saturates: whether ``import_graph(..., straight_through=True)`` gives other gradients.
    """

    def __init__(
        self,
        steps: tuple[_Step, ...],
        constants: dict[str, Tensor],
        input_name: str,
        output: str,
        arithmetic: Arithmetic = "fp32",
        *,
        saturates: bool = False,
    ) -> None:
        super().__init__()
        self.arithmetic, self.saturates = arithmetic, saturates
        self._steps = steps
        self._input, self._output = input_name, output
        self._buffer_names = {name: f"constant_{position}" for position, name in enumerate(constants)}
        for name, value in constants.items():
            self.register_buffer(self._buffer_names[name], value)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``x`` ``[B, C, H, W]`` in [0, 1], for any ``B``.

        Raises:
            UnreadableModelError: a node cannot be computed: its values do not fit together.
        """
        return self.watched(x, None)

    def watched(self, x: Tensor, observe: ValueObserver | None) -> Tensor:
        """The same, and tell ``observe`` the name and the value of the input and of whatever an operator computes."""
        values: dict[str, Tensor | None] = {"": None, self._input: x}
        if observe is not None:
            observe(self._input, x)
        values |= {name: self.get_buffer(buffer) for name, buffer in self._buffer_names.items()}
        for step in self._steps:
            try:
                result = step.operation(*(values[name] for name in step.inputs))
            except (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
                if is_out_of_memory(error):
                    raise
                raise UnreadableModelError(f"the values do not fit together at {step.label}.") from error
            computed = dict(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=True))
            values.update(computed)
            if observe is not None:
                for name, value in computed.items():
                    observe(name, value)
            for name in step.released:
                del values[name]
        logits = values[self._output]
        if logits is None:
            raise UnreadableModelError("the model's output is empty.")
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            return logits + 0 * x.sum()  # no gradient reaches the image, and an attack is told so by zeros
        return logits


def import_graph(model: onnx.ModelProto, *, straight_through: bool = False, quantises: bool = True) -> GraphModule:
    """Turn a model into a torch module whose logits have a gradient with respect to the images.

    Args:
        model: a checked model with one input and one output.
        straight_through: let gradients through Clip, QuantizeLinear and their like where they saturate, as if they
            were the identity there. What rounds (QuantizeLinear, Round, Floor, Ceil, Sign, casts to integers) is always
            straight-through.
        quantises: False leaves the rounding of QuantizeLinear out: the float model that an eight-bit one stands for.

    Raises:
        UnsupportedOperatorError: an operator, domain, version, attribute or constant type that is not implemented.
        UnreadableModelError: the graph is not well formed, or larger than the limits.
    """
    opset = _opset(model)
    constants = _constants(model.graph)
    (image,) = _exactly_one([value.name for value in model.graph.input if value.name not in constants], "input")
    (output,) = _exactly_one([value.name for value in model.graph.output], "output")
    nodes = [proto for proto in model.graph.node if not _is_constant(proto)]
    last_read = {name: position for position, proto in enumerate(nodes) for name in proto.input}
    computed_with = {name for proto in nodes if proto.op_type != "Cast" for name in proto.input}
    known = {"", image, *constants}
    moving = {image}  # what may have a gradient
    steps = []
    for position, proto in enumerate(nodes):
        rounds = proto.op_type == "Cast" and computed_with.isdisjoint(proto.output)
        depends_on_input = not moving.isdisjoint(proto.input)
        operation = build(
            proto,
            opset,
            straight_through=straight_through,
            rounds=rounds,
            quantises=quantises,
            depends_on_input=depends_on_input,
        )
        label = describe_node(proto, opset)
        outputs = tuple(name for name in proto.output if name)
        if not known.issuperset(proto.input) or not known.isdisjoint(outputs) or len(set(outputs)) != len(outputs):
            raise UnreadableModelError(f"the graph is not in order at {label}.")
        known.update(outputs)
        if depends_on_input and not blocks_gradient(proto.op_type):
            moving.update(outputs)
        # The buffers live on in the module; dropping them here only forgets the name.
        done = {name for name in proto.input if name and last_read[name] == position and name != output}
        steps.append(_Step(operation, tuple(proto.input), outputs, label, tuple(sorted(done))))
    if output not in known:
        raise UnreadableModelError(f"nothing computes the model's output {output[:60]!r}.")
    saturating = any(saturates(proto.op_type) for proto in nodes)
    return GraphModule(tuple(steps), constants, image, output, arithmetic_of(model), saturates=saturating)


def known_operators() -> list[str]:
    """The names of the operators that can be imported, sorted."""
    return sorted(ENTRIES)


@dataclass(frozen=True)
class KnownOperator:
    """What documentation says of an operator that can be imported.

    Attributes:
        name: of the operator.
        versions: the opsets in which the meanings of it began that can be imported, sorted.
        summary: one line.
    """

    name: str
    versions: tuple[int, ...]
    summary: str


def operators_with_gradients() -> list[KnownOperator]:
    """All operators that can be imported, sorted by name."""
    return [
        KnownOperator(name, tuple(sorted(entry.versions)), entry.summary) for name, entry in sorted(ENTRIES.items())
    ]


def _opset(model: onnx.ModelProto) -> int:
    # Tools declare domains that no node uses; a node that does use one is refused when it is built.
    opset = opset_of(model)
    if opset is None:
        raise UnreadableModelError("the model does not say which opset it uses.")
    if not 1 <= opset <= onnx.defs.onnx_opset_version():
        raise UnsupportedOperatorError(f"the importer does not know opset {opset}.")
    if model.functions:
        raise UnsupportedOperatorError("the importer has no nested functions.")
    return opset


def _constants(graph: onnx.GraphProto) -> dict[str, Tensor]:
    if graph.sparse_initializer:
        raise UnsupportedOperatorError("the importer has no sparse weights.")
    named = [(proto.name, proto) for proto in graph.initializer]
    named += [(node.output[0], _constant_value(node)) for node in graph.node if _is_constant(node)]
    constants: dict[str, Tensor] = {}
    size = 0
    for name, proto in named:
        if not name or name in constants:
            raise UnreadableModelError(f"the constant {name[:60]!r} is given twice or has no name.")
        value = to_tensor(name, proto)
        size += value.numel() * value.element_size()
        if size > MAX_CONSTANT_BYTES:
            raise UnreadableModelError(f"the model's weights are larger than {MAX_CONSTANT_BYTES} bytes.")
        constants[name] = value
    return constants


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1


def _constant_value(proto: onnx.NodeProto) -> TensorProto:
    node = Node(proto, opset=13, version=13, straight_through=False)
    attribute = proto.attribute[0] if len(proto.attribute) == 1 else onnx.AttributeProto()
    node.require(not attribute.ref_attr_name, "a reference for its value")
    match attribute.name:
        case "value":
            return attribute.t
        case "value_int" | "value_ints":
            value = onnx.helper.get_attribute_value(attribute)
            return numpy_helper.from_array(np.asarray(value, dtype=np.int64))
        case "value_float" | "value_floats":
            value = onnx.helper.get_attribute_value(attribute)
            return numpy_helper.from_array(np.asarray(value, dtype=np.float32))
        case _:
            raise UnsupportedOperatorError(f"the importer has no {node} with this kind of value.")


def _exactly_one(names: list[str], kind: str) -> list[str]:
    if len(names) != 1:
        raise UnreadableModelError(f"the model has {len(names)} {kind}s, and a classifier has one.")
    return names
