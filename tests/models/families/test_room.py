"""What every family promises, whoever wrote it."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
import pytest
import torch

from compressor.core.errors import UsageError
from compressor.core.registry import MODELS
from compressor.core.types import ModelSpec, Normalization
from compressor.models import user_code as own_code
from compressor.models.classifier import build_classifier, family_of
from compressor.models.families._foreign import recognise_nothing

FAMILIES = sorted(MODELS.members())
RECOGNISED = [name for name in FAMILIES if family_of(name).recognise is not recognise_nothing]


def example(name: str, **changes: object) -> ModelSpec:
    if name == "timm":
        pytest.importorskip("timm")
    own_code.allow_user_code(family_of(name).example)
    return ModelSpec(family_of(name).example, 6, **changes)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [8, 24, 32])
def test_it_maps_images_of_any_multiple_of_8_to_logits(name, size):
    model = build_classifier(example(name, image_size=size), seed=0).eval()
    with torch.no_grad():
        logits = model(torch.rand(3, 3, size, size))
    assert logits.shape == (3, 6)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_each_image_is_judged_by_itself(name):
    model = build_classifier(example(name), seed=0).eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RECOGNISED)
def test_it_recognises_itself_and_nobody_else_does(name):
    spec = example(name)
    state = build_classifier(spec, seed=0).network.state_dict()
    recognitions = {other: family_of(other).recognise(state) for other in FAMILIES}
    assert [other for other in FAMILIES if recognitions[other]] == [name]
    assert recognitions[name].name == spec.name
    assert recognitions[name].classes == 6
    assert set(recognitions[name].state) == set(state)


@pytest.mark.parametrize("name", sorted({*FAMILIES} - {*RECOGNISED}))
def test_a_network_written_elsewhere_is_recognised_by_nobody(name):
    state = build_classifier(example(name), seed=0).network.state_dict()
    assert not [other for other in FAMILIES if family_of(other).recognise(state)]


@pytest.mark.parametrize("name", FAMILIES)
def test_it_survives_any_state_dict_without_claiming_it(name):
    recognise = family_of(name).recognise
    own = build_classifier(example(name), seed=0).network.state_dict()
    flat = {key: torch.zeros(()) for key in own}
    for stranger in ({}, {"weight": torch.zeros(2)}, flat):
        assert recognise(stranger) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_a_number_too_many_is_refused(name):
    with pytest.raises(UsageError):
        build_classifier(ModelSpec(f"{family_of(name).example}-7", 10))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_it_exports_with_a_dynamic_batch(name):
    model = build_classifier(example(name, normalization=Normalization((0.5,) * 3, (0.25,) * 3)), seed=0).eval()
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exported = torch.onnx.export(model, (x[:2],), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False)
    buffer = io.BytesIO()
    exported.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for batch in (x, x[:1]):
        (logits,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(batch).numpy(), rtol=1e-4, atol=1e-5)
