"""The importer's operators: a duplicate raises, an unknown one is named, and no attribute is ever ignored."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from torch import Tensor

from compressor.core.errors import UnreadableModelError, UnsupportedOperatorError

AttributeType = onnx.AttributeProto.AttributeType


Operation = Callable[..., Tensor | tuple[Tensor, ...]]
"""What an operator becomes: its input values, absent optional ones being ``None``, to its output or outputs."""


@dataclass
class Node:
    """A graph node as its builder sees it; whatever attribute the builder does not ask for is refused afterwards.

    Attributes:
        proto: the node.
        opset: the version of the default domain that the model uses.
        version: the version of this operator that the opset means.
        straight_through: whether operators that saturate let gradients through where they do.
        rounds: of a Cast to float16, whether nothing but other Casts reads its value.
        quantises: of a QuantizeLinear, whether it rounds.
        depends_on_input: whether one of its inputs may have a gradient: it is computed from the image, and is no shape
            or truth value.
    """

    proto: onnx.NodeProto
    opset: int
    version: int
    straight_through: bool
    rounds: bool = False
    quantises: bool = True
    depends_on_input: bool = True
    _asked: set[str] = field(default_factory=set)

    def integer(self, name: str, default: int | None = None) -> int:
        """The value of an integer attribute."""
        return int(self._value(name, AttributeType.INT, default))

    def integers(self, name: str, default: list[int] | None = None) -> list[int]:
        """The values of an attribute that is a list of integers."""
        return [int(value) for value in self._value(name, AttributeType.INTS, default)]

    def real(self, name: str, default: float) -> float:
        """The value of a real attribute."""
        return float(self._value(name, AttributeType.FLOAT, default))

    def text(self, name: str, default: str) -> str:
        """The value of a text attribute."""
        value = self._value(name, AttributeType.STRING, default)
        return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)

    def tensor(self, name: str, default: onnx.TensorProto) -> onnx.TensorProto:
        """The value of an attribute that is a tensor, not yet decoded."""
        value = self._value(name, AttributeType.TENSOR, default)
        assert isinstance(value, onnx.TensorProto)
        return value

    @property
    def outputs(self) -> int:
        """How many outputs it has."""
        return len(self.proto.output)

    def has(self, name: str) -> bool:
        """Whether the node gives this attribute."""
        return any(attribute.name == name for attribute in self.proto.attribute)

    def require(self, holds: bool, reason: str) -> None:
        """Refuse the node unless ``holds``.

        Raises:
            UnsupportedOperatorError: it does not; ``reason`` completes "the importer has no ... with".
        """
        if not holds:
            raise UnsupportedOperatorError(f"the importer has no {self} with {reason}.", _HINT)

    def refuse_the_rest(self) -> None:
        """Refuse attributes that no builder asked for: an ignored attribute would be a wrong answer."""
        names = [attribute.name for attribute in self.proto.attribute]
        for name in names:
            self.require(name in self._asked, f"attribute {name[:60]!r}")
        self.require(len(set(names)) == len(names), "an attribute given twice")

    def __str__(self) -> str:
        return f"operator {describe_node(self.proto, self.opset)}"

    def _value(self, name: str, kind: int, default: Any) -> Any:
        self._asked.add(name)
        for attribute in self.proto.attribute:
            if attribute.name == name:
                self.require(attribute.type == kind and not attribute.ref_attr_name, f"this kind of {name!r}")
                return onnx.helper.get_attribute_value(attribute)
        if default is None:
            raise UnreadableModelError(f"{self} lacks its attribute {name!r}.")
        return default


Builder = Callable[[Node], Operation]

_HINT = "Those that it has are listed in docs/reference.md; verify with --accept-black-box."


@dataclass(frozen=True)
class _Entry:
    versions: frozenset[int]
    builder: Builder
    summary: str
    several_outputs: bool
    saturates: bool
    blocks_gradient: bool


ENTRIES: dict[str, _Entry] = {}
"""The operators by name. They are all here once :mod:`exporters.differentiable.graph` is imported."""


def operator(
    name: str,
    *versions: int,
    several_outputs: bool = False,
    saturates: bool = False,
    blocks_gradient: bool = False,
    summary: str = "",
) -> Callable[[Builder], Builder]:
    """Register the builder of an operator of the default domain, for the versions of it that it implements.

    Args:
        name: of the operator.
        versions: the opsets in which these meanings of it began.
        several_outputs: whether its operation gives a tuple; all other outputs but the first are refused elsewhere.
        saturates: whether ``straight_through`` changes its gradient.
        blocks_gradient: whether its output has no gradient: a shape, a position, a truth value.
        summary: what it computes, for the list of operators; else the first line of the builder's docstring says so.

    Raises:
        ValueError: the operator is registered already.
    """

    def register(builder: Builder) -> Builder:
        if name in ENTRIES:
            raise ValueError(f"the operator {name!r} is registered twice")
        told = summary or (inspect.getdoc(builder) or "").partition("\n")[0]
        ENTRIES[name] = _Entry(frozenset(versions), builder, told, several_outputs, saturates, blocks_gradient)
        return builder

    return register


def built_operator(name: str, summary: str, builder: Builder, *versions: int, **properties: bool) -> None:
    """Register an operator that a builder of several makes, in one line: see :func:`operator`."""
    operator(name, *versions, summary=summary, **properties)(builder)


def function_operator(name: str, summary: str, function: Operation, *versions: int, **properties: bool) -> None:
    """Register an operator without attributes that is one function of its inputs: see :func:`operator`."""
    built_operator(name, summary, lambda node: function, *versions, **properties)


def build(
    proto: onnx.NodeProto,
    opset: int,
    *,
    straight_through: bool,
    rounds: bool = False,
    quantises: bool = True,
    depends_on_input: bool = True,
) -> Operation:
    """The operation that a node stands for; the options are those of :class:`Node`.

    Raises:
        UnsupportedOperatorError: a custom domain, an unknown operator, version, attribute, or a second output.
        UnreadableModelError: the node does not fit its operator's definition.
    """
    unknown = UnsupportedOperatorError(f"the importer has no operator {describe_node(proto, opset)}.", _HINT)
    if proto.domain not in ("", "ai.onnx") or proto.op_type not in ENTRIES:
        raise unknown
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "")
    except onnx.defs.SchemaError:
        raise unknown from None
    entry = ENTRIES[proto.op_type]
    if schema.since_version not in entry.versions:
        raise unknown
    node = Node(proto, opset, schema.since_version, straight_through, rounds, quantises, depends_on_input)
    if not schema.min_input <= len(proto.input) <= schema.max_input:
        raise UnreadableModelError(f"{node} takes another number of inputs than {len(proto.input)}.")
    if entry.several_outputs:
        node.require(len(proto.output) > 0 and all(proto.output), "an output that has no name")
    else:
        node.require(sum(map(bool, proto.output)) == 1 and bool(proto.output[0]), "more than one output")
    operation = entry.builder(node)
    node.refuse_the_rest()
    return operation


def saturates(name: str) -> bool:
    """Whether an operator that can be imported has another gradient where straight-through is asked."""
    return ENTRIES[name].saturates


def blocks_gradient(name: str) -> bool:
    """Whether no gradient passes through an operator that can be imported."""
    return ENTRIES[name].blocks_gradient


def describe_node(proto: onnx.NodeProto, opset: int) -> str:
    """An operator with its domain, opset and node, for messages; names from the file are shortened."""
    node = proto.name or (proto.output[0] if proto.output else "")
    return f"{proto.op_type[:60]!r} (domain {proto.domain[:60] or 'ai.onnx'}, opset {opset}, node {node[:60]!r})"
