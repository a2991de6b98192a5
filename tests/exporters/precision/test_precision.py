"""An exported network in float16 and in eight bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from compressor.core.contracts import Split
from compressor.core.errors import ExportError, UsageError
from compressor.core.types import Threat
from compressor.numerics.ball import inside_ball
from exporters.differentiable.graph import import_graph
from exporters.differentiable.logit_agreement import compare_logits, compare_with_onnxruntime
from exporters.model_file.runtime import open_session
from exporters.model_file.structure import Limits, check_structure, count_model_parameters
from exporters.precision._checking import library_call
from exporters.precision.calibration import calibration_images
from exporters.precision.half import HALF_LIMIT, to_half
from exporters.precision.integer import to_int8
from exporters.writing.onnx import export_onnx, serialise, set_metadata

SIZE = 16
THREAT = Threat("Linf", "8/255")


class Net(nn.Module):
    """What the families are made of; ``loud`` makes one value large and the next one small again."""

    def __init__(self, loud: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 16, 3, padding=1)
            self.norm = nn.BatchNorm2d(16)
            self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.wide = nn.Conv2d(16, 32, 3, stride=2, padding=1)
            self.head = nn.Linear(32, 10)
        self.loud = loud

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem((x - 0.5) / 0.25)))
        x = x + nn.functional.relu6(self.depthwise(x))
        x = torch.relu(self.wide(x) * self.loud) / (self.loud / 4)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def pictures(count: int, seed: int = 5) -> np.ndarray:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).numpy()


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return export_onnx(Net().eval(), SIZE)


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    return open_session(serialise(model), threads=1)(images)


def ends(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


@pytest.mark.parametrize("convert", [lambda model, x: to_half(model, x).model, to_int8], ids=["half", "int8"])
def test_a_conversion_is_deterministic_and_leaves_ends_metadata_and_original_as_they_are(fp32, convert):
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    set_metadata(model, "key", "value")
    before = serialise(model)
    first, second = convert(model, pictures(20)), convert(model, pictures(20))
    assert serialise(first) == serialise(second)
    assert serialise(model) == before
    assert ends(first) == ends(model)
    assert [(entry.key, entry.value) for entry in first.metadata_props] == [("key", "value")]
    check_structure(first, Limits(), file_bytes=len(serialise(first)))  # raises where a verifier would refuse it
    with pytest.raises(UsageError, match="image"):
        convert(model, pictures(0))


def test_a_half_file_is_half_the_size_and_computes_nearly_the_same(fp32):
    half = to_half(fp32, pictures(20))
    assert half.kept == ()
    weights = {tensor.data_type for tensor in half.model.graph.initializer}
    assert TensorProto.FLOAT not in weights
    assert sum(len(t.raw_data) for t in half.model.graph.initializer) < 0.55 * sum(
        len(t.raw_data) for t in fp32.graph.initializer
    )
    x = pictures(30, seed=6)
    error = compare_logits(logits(fp32, x), logits(half.model, x)).max_relative_error
    assert 1e-7 < error < 3e-3


def test_operators_whose_values_would_overflow_stay_in_float32():
    loud = export_onnx(Net(loud=1e6).eval(), SIZE)
    half = to_half(loud, pictures(20))
    made = {name for node in half.model.graph.node if node.name in half.kept for name in node.output}
    large: set[str] = set()
    import_graph(half.model).watched(
        torch.from_numpy(pictures(20)), lambda name, value: large.add(name) if value.abs().max() > HALF_LIMIT else None
    )
    assert large
    assert large <= made
    casts = {node.input[0] for node in half.model.graph.node if node.op_type == "Cast"}
    assert large.isdisjoint(casts)  # in float16 they would be infinite
    assert 0 < len(half.kept) < len(loud.graph.node) / 2
    x = pictures(30, seed=6)
    assert compare_logits(logits(loud, x), logits(half.model, x)).max_relative_error < 3e-3


def test_logits_that_would_overflow_stay_in_float32_to_the_end():
    class Loud(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2e5

    loud = export_onnx(Loud().eval(), SIZE)
    half = to_half(loud, pictures(20))
    assert ends(half.model) == ends(loud)
    x = pictures(30, seed=6)
    assert np.abs(logits(half.model, x)).max() > 65504
    assert compare_logits(logits(loud, x), logits(half.model, x)).max_relative_error < 3e-3


def test_without_the_limit_the_same_network_would_be_damaged(monkeypatch):
    monkeypatch.setattr("exporters.precision.half.HALF_LIMIT", np.inf)
    loud = export_onnx(Net(loud=1e6).eval(), SIZE)
    half = to_half(loud, pictures(20))
    assert half.kept == ()
    assert not compare_logits(logits(loud, pictures(30)), logits(half.model, pictures(30))).max_relative_error < 3e-3


def test_an_int8_file_has_eight_bit_weights_with_one_scale_a_channel(fp32):
    model = to_int8(fp32, pictures(64))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for node in convolutions:
        weight, scale, _ = (weights[name] for name in readers[node.input[1]].input)
        assert weight.dtype == np.int8
        assert scale.shape == weight.shape[:1]
        assert len(set(scale.tolist())) > 1
    x = pictures(200, seed=6)
    exact, rounded = logits(fp32, x), logits(model, x)
    assert 1e-4 < compare_logits(exact, rounded).max_relative_error < 0.1


def test_fewer_bits_are_as_many_parameters(fp32):
    count = sum(tensor.numel() for name, tensor in Net().named_parameters() if not name.startswith("norm"))
    assert count_model_parameters(fp32) == count
    assert count_model_parameters(to_half(fp32, pictures(4)).model) == count
    assert count_model_parameters(to_int8(fp32, pictures(16))) == count


def test_scales_follow_the_calibration_images(fp32):
    narrow, wide = to_int8(fp32, 0.5 + 0.01 * pictures(20)), to_int8(fp32, pictures(20))
    x = pictures(100, seed=6)
    errors = [np.abs(logits(fp32, x) - logits(model, x)).mean() for model in (narrow, wide)]
    assert errors[1] < 0.5 * errors[0]


def test_the_importer_agrees_with_onnxruntime_on_both(fp32):
    x = pictures(200, seed=6)
    half, quantised = to_half(fp32, pictures(64)).model, to_int8(fp32, pictures(64))
    assert compare_with_onnxruntime(open_session(serialise(half), threads=1), import_graph(half), x).passed
    found = compare_with_onnxruntime(open_session(serialise(quantised), threads=1), import_graph(quantised), x)
    assert found.argmax_agreement >= 0.99


def test_the_gradient_of_an_int8_file_points_where_the_fp32_file_s_does(fp32):
    x, y = torch.from_numpy(pictures(20, seed=6)), torch.arange(20) % 10
    gradients = []
    for model in (fp32, to_int8(fp32, pictures(64))):
        images = x.clone().requires_grad_()
        loss = nn.functional.cross_entropy(import_graph(model)(images), y)
        gradients.append(torch.autograd.grad(loss, images)[0].flatten(1))
    assert nn.functional.cosine_similarity(*gradients).min() > 0.7


def test_what_a_converter_raises_is_a_plain_error():
    with pytest.raises(ExportError, match="INT8: it broke"), library_call("INT8"):
        raise RuntimeError("it broke")


class Noise:
    """A dataset of 40 training images; it has no other split."""

    name = "noise"
    class_names: tuple[str, ...] = tuple("abcdefghij")
    image_size = SIZE

    def __init__(self, total: int = 40) -> None:
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (total, 3, SIZE, SIZE)).astype(np.uint8)
        self.labels = random.integers(0, 10, total).astype(np.int64)

    def load(self, split: str) -> Split:
        assert split == "train"
        return Split(self.images, self.labels)


def test_calibration_images_are_training_images_and_the_same_ones_attacked():
    net, data = Net().train(), Noise()
    found = calibration_images(net, data, THREAT, count=12)
    natural, attacked = found[:12], found[12:]
    assert found.dtype == np.float32
    assert {image.tobytes() for image in natural} <= {image.tobytes() for image in np.float32(data.images) / 255}
    assert len({image.tobytes() for image in natural}) == 12
    assert inside_ball(attacked, natural, THREAT).all()
    rows = [np.flatnonzero((np.float32(data.images) / 255 == image).all(axis=(1, 2, 3)))[0] for image in natural]
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(net.eval()(torch.from_numpy(part)), torch.from_numpy(data.labels[rows]))
            for part in (natural, attacked)
        ]
    assert losses[1] > losses[0] + 0.01


def test_calibration_images_are_fixed_by_the_seed_and_leave_the_network_in_its_mode():
    net, data = Net().train(), Noise()
    first = calibration_images(net, data, THREAT, count=12, seed=3)
    assert net.training
    assert np.array_equal(first, calibration_images(net, data, THREAT, count=12, seed=3))
    assert not np.array_equal(first, calibration_images(net, data, THREAT, count=12, seed=4))
    assert len(calibration_images(net, data, THREAT, count=1000)) == 80
    with pytest.raises(UsageError, match="training image"):
        calibration_images(net, Noise(0), THREAT)
