"""Files that this project did not export: other exporters, opsets and layouts, quantised and converted by others."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torchvision import models

from exporters.differentiable.file_graph import open_graph
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.graph import import_graph
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.model_file.runtime import open_session
from exporters.precision._checking import finished

CLASSES = 10


def vit() -> nn.Module:
    sizes: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    network = models.VisionTransformer(image_size=32, patch_size=8, num_classes=CLASSES, **sizes)
    nn.init.normal_(network.heads[0].weight)  # zero, as the library leaves it
    return network


def swin(**options: Any) -> nn.Module:
    sizes: dict[str, Any] = {"embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": [4, 4]}
    return models.SwinTransformer(patch_size=[2, 2], num_classes=CLASSES, **sizes, **options)


def swin_v2() -> nn.Module:
    parts = models.swin_transformer
    return swin(block=parts.SwinTransformerBlockV2, downsample_layer=parts.PatchMergingV2)


def convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=CLASSES)


def maxvit() -> nn.Module:
    sizes: dict[str, Any] = {"partition_size": 4, "head_dim": 8, "block_channels": [8], "block_layers": [1]}
    return models.MaxVit((32, 32), 8, stochastic_depth_prob=0.0, num_classes=CLASSES, **sizes)


def library(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, num_classes=CLASSES, **options)


class Mobile(nn.Module):
    """The blocks of mobile networks: HardSwish, squeeze and excitation, ReLU6, depthwise, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.head = nn.Linear(8 * 16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        y = x + y * F.hardsigmoid(self.squeeze(y))
        return self.head(F.max_pool2d(y, 4).flatten(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "vit": (vit, 32),
    "swin": (swin, 32),
    "swin v2": (swin_v2, 32),
    "convnext": (convnext, 32),
    "maxvit": (maxvit, 32),
    "mobile": (Mobile, 32),
    "shufflenet": (library("shufflenet_v2_x0_5"), 32),
    "squeezenet": (library("squeezenet1_1"), 64),
    "googlenet": (library("googlenet", init_weights=False), 32),
}
LARGER: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **NETWORKS,
    "alexnet": (library("alexnet"), 64),
    "vgg11_bn": (library("vgg11_bn"), 32),
    "wide_resnet50_2": (
        library("wide_resnet50_2"),
        64,
    ),
    "inception_v3": (library("inception_v3", init_weights=False, aux_logits=False), 128),
    **{
        name: (library(name), 32)
        for name in ("resnet18", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mnasnet0_5")
    },
    **{
        name: (library(name), 32)
        for name in ("mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny")
    },
}


def pictures(count: int, size: int = 32) -> torch.Tensor:
    """Noise around another colour each, so that their logits differ."""
    generator = torch.Generator().manual_seed(5)
    colours = torch.rand(count, 3, 1, 1, generator=generator)
    return (colours + 0.3 * torch.rand(count, 3, size, size, generator=generator)).clamp(0, 1)


def network(name: str) -> tuple[nn.Module, int]:
    """Fresh weights, and BatchNorm statistics between those of the start and those of the test's own pictures.

    With the first alone the gradients of deep networks vanish, with the second alone rounding grows to the gate's edge.
    """
    build, size = LARGER[name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.9
        with torch.no_grad():
            model.train()(pictures(8, size))
    return model.eval(), size


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The tools of others warn, print and log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def by_the_older_exporter(model: nn.Module, size: int, opset: int) -> onnx.ModelProto:
    file = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    with quiet():
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(
            model, (pictures(2, size),), file, dynamo=False, opset_version=opset, dynamic_axes=axes, **names
        )
    return onnx.load_from_string(file.getvalue())


def by_the_newer_exporter(model: nn.Module, size: int, opset: int) -> onnx.ModelProto:
    batch = ({0: torch.export.Dim("batch")},)
    with quiet():
        program = torch.onnx.export(
            model, (pictures(2, size),), dynamo=True, opset_version=opset, dynamic_shapes=batch, verbose=False
        )
    assert program is not None
    return program.model_proto


def assert_attackable(proto: onnx.ModelProto, model: nn.Module, size: int) -> None:
    """The gate passes, in batches of any size, and the gradients are torch's."""
    session = open_session(proto.SerializeToString(), threads=1)
    graph = open_graph(proto, session.input_layout)
    x = pictures(7, size)
    assert compare_with_onnxruntime(session, graph, x.numpy()).passed
    for part in (x[:1], x[:3]):
        assert compare_with_onnxruntime(session, graph, part.numpy()).passed
    through = import_graph(proto, straight_through=True)
    gradients = []
    for one in (model, FileModel(session, graph), through):
        leaf = x[:3].clone().requires_grad_()
        gradients.append(torch.autograd.grad(one(leaf)[range(3), [0, 1, 2]].sum(), leaf)[0].flatten(1))
    theirs, ours, passed_on = (gradient.double() for gradient in gradients)
    assert theirs.abs().max() > 0
    assert F.cosine_similarity(ours / ours.abs().max(), theirs / theirs.abs().max()).min() > 0.99
    assert bool(passed_on.isfinite().all())
    with torch.no_grad():
        torch.testing.assert_close(through(x[:3]), graph(x[:3]), rtol=1e-4, atol=1e-4)


OLDER = [("vit", 17), ("vit", 20), ("swin", 13), ("swin", 20), ("swin v2", 17), ("convnext", 13), ("convnext", 20)]
OLDER += [("maxvit", 17), ("mobile", 14), ("shufflenet", 13), ("squeezenet", 18), ("googlenet", 15)]


@pytest.mark.parametrize(("name", "opset"), OLDER)
def test_a_file_of_the_older_exporter_is_attacked_by_its_gradients(name, opset):
    model, size = network(name)
    assert_attackable(by_the_older_exporter(model, size, opset), model, size)


@pytest.mark.parametrize(("name", "opset"), [("convnext", 21)])
def test_a_file_of_the_newer_exporter_is_attacked_by_its_gradients(name, opset):
    model, size = network(name)
    assert_attackable(by_the_newer_exporter(model, size, opset), model, size)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 14, 15, 16, 17, 18, 19, 20])
@pytest.mark.parametrize("name", LARGER)
def test_every_network_by_the_older_exporter(name, opset):
    model, size = network(name)
    try:
        proto = by_the_older_exporter(model, size, opset)
    except (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError):
        pytest.skip("the exporter itself refuses this network at this opset")
    assert_attackable(proto, model, size)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 20, 21, 23])
@pytest.mark.parametrize("name", LARGER)
def test_every_network_by_the_newer_exporter(name, opset):
    model, size = network(name)
    assert_attackable(by_the_newer_exporter(model, size, opset), model, size)


# Channels last, as converters from Keras write it


def keras_like(weights: dict[str, np.ndarray], opset: int) -> onnx.ModelProto:
    """Transposed in and out, padded SAME, BatchNorm as a product and a sum, ReLU6 as Min and Max, axes by attribute."""

    def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), [output], **attributes)

    nodes = [
        node("Transpose", "input", "nchw", perm=[0, 3, 1, 2]),
        node("Conv", "nchw stem", "a", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        node("Mul", "a scale", "b"),
        node("Add", "b shift", "c"),
        node("Max", "c zero", "d"),
        node("Min", "d six", "e"),
        node("Conv", "e depthwise", "f", group=8, pads=[0, 0, 1, 1], strides=[2, 2]),
        node("PRelu", "f slope", "g"),
        node("Transpose", "g", "nhwc", perm=[0, 2, 3, 1]),
        node("ReduceMean", "nhwc", "h", axes=[1, 2], keepdims=0),
        node("Shape", "h", "n"),
        node("Slice", "n at0 at1", "batch"),
        node("Concat", "batch rest", "shape", axis=0),
        node("Reshape", "h shape", "i"),
        node("MatMul", "i dense", "j"),
        node("Add", "j bias", "k"),
        node("Softmax", "k", "logits", axis=-1),
    ]
    ends = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 32, 32, 3])]
    outs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "keras", ends, outs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [13, 17])
def test_a_channels_last_file_is_attacked_by_its_gradients(opset):
    random = np.random.default_rng(0)
    shapes = {"stem": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "dense": (8, CLASSES), "bias": (CLASSES,)}
    shapes |= {"scale": (1, 8, 1, 1), "shift": (1, 8, 1, 1), "slope": (8, 1, 1)}
    floats = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    floats |= {"zero": np.float32(0), "six": np.float32(6)}
    whole = {"at0": np.array([0]), "at1": np.array([1]), "rest": np.array([8])}
    proto = keras_like(floats | whole, opset)
    w = {name: torch.from_numpy(np.asarray(value)) for name, value in floats.items()}

    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), w["stem"], stride=2)
            x = F.relu6(x * w["scale"] + w["shift"])
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), w["depthwise"], stride=2, groups=8)
            x = F.prelu(x, w["slope"].flatten()).mean((2, 3))
            return torch.softmax(x @ w["dense"] + w["bias"], 1)

    session = open_session(proto.SerializeToString(), threads=1)
    graph = open_graph(proto, session.input_layout)
    assert graph.saturates
    x = pictures(5)
    assert compare_with_onnxruntime(session, graph, x.numpy()).passed
    gradients = []
    for one in (graph, Same()):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(one(leaf)[:, 1].sum(), leaf)[0].flatten(1))
    assert F.cosine_similarity(*gradients).min() > 0.999


# Fewer bits


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ["mobile", "convnext", "squeezenet"])
def test_the_gate_passes_on_a_file_that_onnxruntime_s_quantiser_made(name, per_channel):
    """With its own settings, and so with rounded logits."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    model, size = network(name)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(torch.split(pictures(32, size), 8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    with quiet(), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(by_the_older_exporter(model, size, 17), source)
        quantize_static(source, target, Reader(), per_channel=per_channel)
        proto = onnx.load(target)
    assert proto.graph.node[-1].op_type == "DequantizeLinear"
    session, graph = open_session(proto.SerializeToString(), threads=1), import_graph(proto)
    assert (graph.arithmetic, graph.saturates) == ("int8", True)
    x = pictures(64, size)
    result = compare_with_onnxruntime(session, graph, x.numpy())
    assert result.passed
    assert result.scale > 0
    leaf = x[:8].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(FileModel(session, graph)(leaf)[:, 1].sum(), leaf)
    before = session(x[:8].numpy())[:, 1]
    after = session((x[:8] - 8 / 255 * gradient.sign()).clamp(0, 1).numpy())[:, 1]
    assert (after < before).all()


@pytest.mark.parametrize("name", ["mobile", "swin"])
def test_the_gate_passes_on_a_foreign_file_in_float16(name):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model, size = network(name)
    source = by_the_older_exporter(model, size, 17)
    with quiet():
        proto = finished(convert_float_to_float16(source, keep_io_types=True), source, "float16")
    session, graph = open_session(proto.SerializeToString(), threads=1), import_graph(proto)
    assert graph.arithmetic == "fp16"
    assert compare_with_onnxruntime(session, graph, pictures(16, size).numpy()).passed
