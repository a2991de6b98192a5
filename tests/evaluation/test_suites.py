from __future__ import annotations

import json
import subprocess
import sys

import pytest

from compressor.attacks._gradient import step_length
from compressor.core.errors import UnknownNameError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.evaluation.suites import SUITES, Suite, describe_suite, get_suite

everyone = pytest.mark.parametrize("suite", SUITES, ids=str)


def test_the_paper_suite_has_the_columns_of_its_table() -> None:
    assert [name for name, _ in get_suite("paper").attacks] == ["FGSM", "PGD_SAT", "PGD_TRADES", "CW_inf", "AA"]
    assert [attack for _, attack in get_suite("paper").attacks] == [
        ATTACKS.get(name) for name in ("fgsm", "pgd-sat", "pgd-trades", "cw-inf", "autoattack")
    ]


def test_the_other_suites_hold_what_their_names_promise() -> None:
    columns = {suite.name: [name for name, _ in suite.attacks] for suite in SUITES}
    assert columns["quick"] == ["FGSM", "PGD-10"]
    assert columns["default"] == ["FGSM", "PGD-20", "CW_inf"]
    assert columns["standard"] == ["AA"]
    quick = dict(get_suite("quick").attacks)["PGD-10"]
    assert (quick.steps, step_length(quick.step_size, Threat())) == (10, 2 / 255)
    assert columns["parts"] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert get_suite("reference").attacks[0][1].is_reference


def test_the_parts_are_the_standard_version_s_own() -> None:
    ((_, standard),) = get_suite("standard").attacks
    assert [part for _, part in get_suite("parts").attacks] == [part for _, part in standard.stages]


def test_a_name_means_its_newest_version_and_a_version_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Suite("quick", 10, "a later one", ())
    monkeypatch.setattr("compressor.evaluation.suites.SUITES", (newer, *SUITES))
    assert get_suite("quick") is newer
    assert get_suite("quick@10") is newer
    assert get_suite("quick@1").version == 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quik", "quick"),
        ("quick@9", "quick@1"),
        ("zzz", "default, paper, parts, quick, reference, standard, thorough"),
        ("", "paper"),
    ],
)
def test_an_unknown_name_is_told_its_neighbours(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as unknown:
        get_suite(name)
    assert hint in unknown.value.hint


@everyone
def test_names_and_columns_are_unique(suite: Suite) -> None:
    assert sum(str(suite) == str(other) for other in SUITES) == 1
    columns = [name for name, _ in suite.attacks]
    assert len(columns) == len(set(columns))
    assert "clean" not in columns


@everyone
def test_a_description_survives_json_and_spells_every_default_out(suite: Suite) -> None:
    description = describe_suite(suite)
    assert json.loads(json.dumps(description)) == description
    assert f"{description['name']}@{description['version']}" == str(suite)
    for entry, (name, attack) in zip(description["attacks"], suite.attacks, strict=True):
        assert entry["column"] == name
        assert set(entry["settings"]) == set(vars(attack))


def test_another_setting_gives_another_description() -> None:
    assert describe_suite(get_suite("quick"))["attacks"][1]["settings"]["steps"] == 10
    assert describe_suite(get_suite("default"))["attacks"][1]["settings"]["steps"] == 20


def test_it_is_known_which_suites_cost_an_autoattack() -> None:
    with_autoattack = {suite.name for suite in SUITES for column in suite.columns if column.attack == "autoattack"}
    assert with_autoattack == {
        "paper",
        "standard",
    }


def test_listing_imports_no_torch() -> None:
    code = "import sys; from compressor.evaluation.suites import SUITES; assert SUITES; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "pyautoattack"} & set(modules)
