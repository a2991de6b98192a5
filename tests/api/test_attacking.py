"""``attack`` from Python: the command's report, on files, runs and modules; and the attacks as plain functions."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor.attacks
from cli.main import main
from compressor import Event, ascend, attack, load_model, open_dataset
from compressor.attacks import apgd_ce, fgsm, pgd_sat
from compressor.core.errors import ClassMismatchError, UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat, eps_text
from compressor.evaluation.report import Alarm, Report
from compressor.models.in_memory import digest_of_module
from tests.api.conftest import SIDE, Net
from tests.cli.conftest import digits_student

__all__ = ["digits_student"]


@pytest.fixture
def checkpoint(digits_student: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(digits_student, tmp_path / "student.safetensors"))


def test_the_report_is_the_commands(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = attack(str(checkpoint), data="digits", eps=0.02, eval_samples=30, seed=1, threads=1)
    assert capfd.readouterr() == ("", ""), "nothing is printed"
    words = ["attack", "student.safetensors", "--data", "digits", "--eps", "0.02", "--eval-samples", "30", "--seed"]
    assert main([*words, "1", "--threads", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == report.to_json() | {"proposals": "fp32"}
    assert report.clean_accuracy > 0.5
    low, high = report.intervals["robust"]
    assert low <= report.robust_accuracy <= high
    assert set(report.intervals) == {"clean", *report.attacks, "robust"}


def test_a_module_is_attacked_as_the_file_that_holds_it(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    model.train()
    before = digest_of_module(model)
    of_file = attack(checkpoint, data="digits", eps=0.02, eval_samples=30)
    of_module = attack(model, data="digits", eps=0.02, eval_samples=30)
    assert of_module.to_json() == of_file.to_json()
    assert digest_of_module(model) == before
    assert model.training


def test_test_images_may_be_arrays(checkpoint: Path) -> None:
    test = open_dataset("digits", image_size=SIDE).load("test")
    arrays = attack(checkpoint, data=(test.images, test.labels), eps=0.02, eval_samples=30)
    assert arrays.to_json() == attack(checkpoint, data="digits", eps="0.02", eval_samples=30).to_json()


def test_a_state_is_gone_on_with_and_progress_is_told(net: Net) -> None:
    events: list[Event] = []

    def once() -> Report:
        return attack(
            net, data="digits", image_size=SIDE, eps=0.1, eval_samples=20, state="state", on_progress=events.append
        )

    first = once()
    assert any(event.kind == "progress" for event in events)
    assert any(Path("state").iterdir())
    assert once().to_json() == first.to_json()


def test_what_cannot_be_attacked_is_refused(net: Net) -> None:
    with pytest.raises(UsageError, match="ONNX"):
        attack("model.onnx", data="digits")
    with pytest.raises(UsageError, match="there is no suite"):
        attack(net, suite="strongest", data="digits")
    with pytest.raises(UsageError, match="cannot take images"):
        attack(net, data="digits", image_size=16)
    with pytest.raises(ClassMismatchError):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), data="digits", image_size=8)
    with pytest.raises(UsageError, match="gives"):
        attack(nn.Sequential(nn.Conv2d(3, 10, 1)), data="digits", image_size=8)
    with pytest.raises(UsageError, match="no default data for 4 classes"):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), image_size=8)


def test_a_report_shows_itself_with_every_text_escaped() -> None:
    bits = np.array([True, False])
    alarm = Alarm("zero-gradients", "<script>", "a & b")
    report = Report(Threat(), "quick@1", 0, "alone", bits, {"<i>PGD</i>": bits}, (alarm,))
    shown = report._repr_html_()
    assert "<script>" not in shown
    assert "<i>" not in shown
    assert "&lt;script&gt;. a &amp; b" in shown
    assert "NOT TRUSTWORTHY" in shown


def test_every_attack_is_a_plain_function_whatever_was_imported_before() -> None:
    names = {member.path.stem for member in ATTACKS.members().values()}
    assert set(compressor.attacks.__all__) == names
    for member in ATTACKS.members().values():
        ATTACKS.get(member.name)
        function = getattr(compressor.attacks, member.path.stem)
        assert inspect.isfunction(function)
        assert function.__doc__.startswith(member.summary)
        assert member.path.stem in dir(compressor.attacks)


def test_a_plain_attack_stays_in_the_ball_and_says_what_it_broke(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    test = open_dataset("digits", image_size=SIDE).load("test")
    x, y = torch.tensor(test.images[:32]) / 255, torch.tensor(test.labels[:32])
    for plain in (apgd_ce, pgd_sat, fgsm):
        before = x.clone()
        x_adv, broken = plain(model, x, y, eps=8 / 255, seed=2)
        assert torch.equal(x, before)
        assert float((x_adv - x).abs().max()) <= 8 / 255 + 1e-6
        assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
        assert torch.equal(broken, model(x_adv).argmax(1) != y)
        again = plain(model, x, y, eps="8/255", seed=2)
        assert torch.equal(again.x_adv, x_adv)
    weak = apgd_ce(model, x, y, eps=0.3, steps=1).broken
    strong = apgd_ce(model, x, y, eps=0.3, steps=30).broken
    assert int(strong.sum()) >= int(weak.sum())


def test_a_plain_attack_refuses_what_makes_no_sense(net: Net) -> None:
    x, y = torch.rand(4, 3, SIDE, SIDE), torch.arange(4)
    with pytest.raises(UsageError, match="no setting 'step'"):
        apgd_ce(net, x, y, step=3)
    with pytest.raises(UsageError, match="values from"):
        apgd_ce(net, x * 255, y)
    with pytest.raises(UsageError, match="shape"):
        apgd_ce(net, x, y[:3])
    with pytest.raises(UsageError, match="not above 0"):
        apgd_ce(net, x, y, eps=0)


@pytest.mark.parametrize(("norm", "length"), [("Linf", 0.1), ("L2", 0.1)])
def test_ascend_climbs_to_the_rim_of_the_ball(norm: str, length: float) -> None:
    x = torch.full((2, 3, 4, 4), 0.5)

    def brightness(x_adv: Tensor, index: Tensor) -> Tensor:
        return x_adv.sum((1, 2, 3))

    found = ascend(brightness, x, eps=length, norm=norm, steps=20) - x  # type: ignore[arg-type]
    distance = found.abs().amax((1, 2, 3)) if norm == "Linf" else found.flatten(1).norm(dim=1)
    assert torch.allclose(distance, torch.full((2,), length), atol=1e-5)
    with pytest.raises(UsageError, match="0 steps"):
        ascend(brightness, x, steps=0)


@pytest.mark.parametrize(
    ("number", "text"), [(8 / 255, "8/255"), (0.1, "0.1"), (4.5 / 255, "4.5/255"), (1, "1"), (0.031, "0.031")]
)
def test_a_number_is_written_as_people_write_it(number: float, text: str) -> None:
    assert eps_text(number) == text
    assert Threat(eps=text).radius == number


def test_a_number_that_has_no_short_form_keeps_its_value() -> None:
    assert Threat(eps=eps_text(1 / 3)).radius == pytest.approx(1 / 3, abs=1e-15)
    for number in (float("nan"), float("inf")):
        with pytest.raises(UsageError):
            eps_text(number)
