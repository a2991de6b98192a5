"""Files that want their images otherwise: the same network, whatever its layout, batch, normalisation and ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from compressor.core.errors import UnreadableModelError, UsageError
from compressor.core.types import Normalization
from exporters.claim.claim import model_bytes
from exporters.differentiable.file_graph import open_graph
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.model_file.input_layout import DeclaredLayout, InputLayout, read_declared_layout
from exporters.model_file.preprocessing import Preprocessing, parse_normalization
from exporters.model_file.runtime import Session, open_session

SIDE, CLASSES = 4, 5
KERNEL = np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(6, CLASSES)).astype(np.float32)
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def network(
    *,
    batch: int | str = "batch",
    rows: int | str | None = None,
    sides: tuple[int | str, int | str] = (SIDE, SIDE),
    channels_last: bool = False,
    ranks: int = 2,
) -> onnx.ModelProto:
    """A small convolutional classifier in one of its many forms."""
    image = [batch, *sides, 3] if channels_last else [batch, 3, *sides]
    nodes = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        helper.make_node("Conv", ["x" if channels_last else "image", "kernel"], ["features"]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        helper.make_node("Reshape", ["scores", "shape"], ["probabilities"]),
    ]
    shape = np.array([-1, CLASSES, *[1] * (ranks - 2)])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [
            helper.make_tensor_value_info(
                "probabilities", TensorProto.FLOAT, [batch if rows is None else rows, CLASSES, *[1] * (ranks - 2)]
            )
        ],
        [
            numpy_helper.from_array(KERNEL, "kernel"),
            numpy_helper.from_array(WEIGHT, "weight"),
            numpy_helper.from_array(shape, "shape"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def expected(x: Tensor) -> Tensor:
    """Float64 logits of ``x`` ``[B, 3, H, W]``, by torch alone."""
    features = torch.nn.functional.conv2d(x.double(), torch.from_numpy(KERNEL).double()).relu()
    return features.mean(dim=(2, 3)) @ torch.from_numpy(WEIGHT).double()


def images(count: int, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def opened(model: onnx.ModelProto, **given: Any) -> Session:
    return open_session(model_bytes(model), threads=1, preprocessing=Preprocessing(**given))


FORMS: list[dict[str, Any]] = [
    {},
    {"channels_last": True},
    {"batch": 1},
    {"batch": 4},
    {"batch": 4, "rows": "unknown", "channels_last": True},
    {"ranks": 4},
    {"batch": 3, "ranks": 3},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("normalization", [None, IMAGENET], ids=["raw", "normalised"])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_every_form_gives_the_logits_of_the_network(
    form: dict[str, Any], normalization: Normalization | None, count: int
) -> None:
    session = opened(network(**form), normalization=normalization)
    x = images(count)
    wanted = x
    if normalization is not None:
        rows = (torch.tensor(row).reshape(3, 1, 1) for row in (normalization.mean, normalization.std))
        mean, std = rows
        wanted = (x.double() - mean) / std
    assert session.image_shape == (3, SIDE, SIDE)
    logits = session(x.numpy())
    assert logits.shape == (count, CLASSES)
    np.testing.assert_allclose(logits, expected(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_can_be_climbed(form: dict[str, Any]) -> None:
    model = network(**form)
    session = opened(model, normalization=IMAGENET)
    graph = open_graph(model, session.input_layout)
    assert compare_with_onnxruntime(session, graph, images(7).numpy()).passed
    leaf, plain = images(7).requires_grad_(), images(7).double().requires_grad_()
    y = torch.arange(7) % CLASSES
    (found,) = torch.autograd.grad(FileModel(session, graph)(leaf)[range(7), y].sum(), leaf)
    mean, std = (torch.tensor(row).reshape(3, 1, 1) for row in (IMAGENET.mean, IMAGENET.std))
    (wanted,) = torch.autograd.grad(expected((plain - mean) / std)[range(7), y].sum(), plain)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4)


def test_a_file_of_a_fixed_batch_is_never_given_a_stranger() -> None:
    session = opened(network(batch=4))
    seen: list[np.ndarray[Any, Any]] = []
    run = session._inner.run

    class Watched:
        def run(self, names: Any, feed: dict[str, Any]) -> Any:
            seen.append(feed["image"])
            return run(names, feed)

    session._inner = Watched()  # type: ignore[assignment]
    x = images(6).numpy()
    session(x, batch_size=3)
    assert [len(batch) for batch in seen] == [4, 4]
    for batch, part in zip(seen, (x[:3], x[3:]), strict=True):
        np.testing.assert_array_equal(batch, [*part, part[-1]])


def test_open_sides_are_the_callers_to_say() -> None:
    model = network(sides=("height", "width"))
    with pytest.raises(UsageError, match="any size"):
        opened(model)
    session = opened(model, image_size=6)
    assert session.image_shape == (3, 6, 6)
    np.testing.assert_allclose(session(images(2, 6).numpy()), expected(images(2, 6)), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="not of 6x6"):
        opened(network(), image_size=6)
    assert opened(network(), image_size=SIDE).image_shape == (3, SIDE, SIDE)


def test_channels_are_where_there_are_one_or_three() -> None:
    assert read_declared_layout([None, 3, 32, 32], [None, 10]) == DeclaredLayout(
        3, 32, 32, 10, channels_last=False, batch=None
    )
    assert read_declared_layout([8, 32, 32, 1], [8, 10]) == DeclaredLayout(1, 32, 32, 10, channels_last=True, batch=8)
    # Three pixels and three channels: the layout that torch writes.
    assert not read_declared_layout([None, 3, 3, 3], [None, 10]).channels_last
    assert str(read_declared_layout([1, None, None, 3], [1, 10])) == "images of ?x?x3, 1 at once"


@pytest.mark.parametrize(
    ("image", "logits"),
    [
        ([None, 3, 32], [None, 10]),
        ([None, 4, 32, 32], [None, 10]),
        ([None, None, 32, 32], [None, 10]),
        ([None, 3, 0, 32], [None, 10]),
        ([0, 3, 32, 32], [0, 10]),
        ([None, 3, 32, 32], [10]),
        ([None, 3, 32, 32], [None, 10, 2]),
        ([None, 3, 32, 32], [None, 10, None]),
        ([None, 3, 32, 32], [None, None]),
        ([None, 3, 32, 32], [None, 1]),
        ([None, 3, 32, 32], [1, 10]),
        ([4, 3, 32, 32], [1, 10]),
    ],
    ids=str,
)
def test_what_is_no_image_classifier_is_refused(image: list[int | None], logits: list[int | None]) -> None:
    with pytest.raises(UnreadableModelError):
        read_declared_layout(image, logits)


def test_numbers_of_the_command_line() -> None:
    assert parse_normalization(None, None) is None
    assert parse_normalization("0.485,0.456,0.406", "0.229,0.224,0.225") == IMAGENET
    assert parse_normalization("0.5", None) == Normalization((0.5,), (1.0,))
    assert parse_normalization(None, "0.5,0.25,1") == Normalization((0.0, 0.0, 0.0), (0.5, 0.25, 1.0))


@pytest.mark.parametrize(
    ("mean", "std"), [("a", None), ("", None), ("0.5", "1,1"), (None, "0"), (None, "-1"), ("nan", "1"), ("inf", "1")]
)
def test_numbers_that_make_no_sense(mean: str | None, std: str | None) -> None:
    with pytest.raises(UsageError):
        parse_normalization(mean, std)


def test_one_number_stands_for_all_channels_and_two_for_none() -> None:
    one, three = (opened(network(), normalization=Normalization((0.5,) * count, (0.25,) * count)) for count in (1, 3))
    x = images(3).numpy()
    assert one(x).tobytes() == three(x).tobytes()
    with pytest.raises(UsageError, match="channels"):
        opened(network(), normalization=Normalization((0.5,) * 2, (0.25,) * 2))


@pytest.mark.parametrize("channels_last", [False, True])
def test_arrays_and_tensors_are_presented_alike_to_the_bit(channels_last: bool) -> None:
    input_layout = InputLayout((3, SIDE, SIDE), CLASSES, channels_last, None, IMAGENET)
    x = images(3)
    assert input_layout.of_array(x.numpy()).tobytes() == input_layout.of_tensor(x).contiguous().numpy().tobytes()
