"""Mobile networks of torchvision go the whole way: trained, attacked, exported, and attacked again as a file."""

from __future__ import annotations

import pytest
import torch

from compressor.attacks.fgsm import ATTACK as FGSM
from compressor.core.types import ModelSpec, Normalization, Threat
from compressor.frozen import FrozenTwin, surrogate_of
from compressor.models.classifier import build_classifier
from compressor.numerics.losses import cross_entropy
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.graph import import_graph
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.model_file.runtime import open_session
from exporters.model_file.structure import Limits, check_structure
from exporters.writing.onnx import check_parity, export_onnx, serialise

MOBILE = ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "mnasnet0_5"]
NORMALIZATION = Normalization((0.5,) * 3, (0.25,) * 3)
THREAT = Threat("Linf", "8/255")


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=MOBILE)
def trained(request):
    """A network after a few steps on eight pictures, in eval mode; its losses."""
    spec = ModelSpec(f"torchvision:{request.param}+small", 4, normalization=NORMALIZATION)
    model = build_classifier(spec, seed=0).train()
    x, y = pictures(8), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    losses = []
    for _ in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same dropout: the loss is one function of the weights
            loss = cross_entropy(model(x), y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():  # statistics of these very pictures: three steps leave those of the start
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        model(x)
    return model.eval(), losses


@pytest.fixture(scope="module")
def exported(trained):
    return export_onnx(trained[0], 32)


def test_a_step_lowers_its_loss(trained):
    _, losses = trained
    assert losses[2] < losses[0]


def test_all_its_batch_norm_folds(trained):
    twin = FrozenTwin(trained[0], pictures(2))
    assert twin.folded
    assert not [module for module in twin.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_fgsm_raises_its_loss_and_leaves_it_as_it_was(trained):
    model, _ = trained
    x = pictures(8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        y = model(x).argmax(1)
    attacked = FGSM(model, x, y, THREAT, torch.Generator().manual_seed(0))
    x_adv = attacked.x_adv
    assert float((x_adv - x).abs().max()) <= THREAT.radius + 1e-6
    with torch.no_grad():
        assert cross_entropy(model(x_adv), y).mean() > cross_entropy(model(x), y).mean()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_its_file_computes_the_same_and_is_what_a_verifier_takes(trained, exported):
    model, _ = trained
    parity = check_parity(model, exported, pictures(5))
    assert parity.argmax_agreement == 1.0
    check_structure(exported, Limits(), file_bytes=len(serialise(exported)))


def test_the_file_can_be_attacked_with_its_own_gradients(trained, exported):
    model, _ = trained
    session, graph = open_session(serialise(exported), threads=1), import_graph(exported)
    assert compare_with_onnxruntime(session, graph, pictures(5).numpy()).passed
    x, y = pictures(3), torch.tensor([0, 1, 2])
    gradients = []
    for one in (FileModel(session, graph), surrogate_of(model, x)):
        leaf = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(one(leaf)[range(3), y].sum(), leaf)[0])
    ours, theirs = (gradient.flatten(1) for gradient in gradients)
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.99
    through = import_graph(exported, straight_through=True)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(through(leaf).sum(), leaf)
    assert bool(gradient.isfinite().all())
    with torch.no_grad():
        torch.testing.assert_close(through(x), graph(x))
