"""Examples are drawn from broken images, and are made by the attack that broke them."""

from __future__ import annotations

import numpy as np

from compressor.attack_report.gallery import choose_examples, largest_change, make_examples
from compressor.core.types import Threat
from compressor.evaluation.report import Report
from compressor.evaluation.suites import get_suite

from .conftest import Linear, N, make_report

ATTACKS = dict(get_suite("default").attacks)


def report_of(linear: Linear, threat: Threat) -> Report:
    """As if FGSM had broken the first half of what can be broken, and PGD the rest."""
    clean = linear.distances("Linf") > 0
    fell = np.flatnonzero(clean & (linear.distances("Linf") < 0.9 * threat.radius))
    bits = {name: clean.copy() for name in ("FGSM", "PGD-20")}
    bits["FGSM"][fell[: len(fell) // 2]] = False
    bits["PGD-20"][fell[len(fell) // 2 :]] = False
    return make_report(threat=threat, clean=clean, attacks=bits, labels=linear.labels, predictions={})


def test_only_images_that_fell_are_chosen_with_the_first_attack_that_broke_them(two_classes: Linear) -> None:
    assert choose_examples(make_report()) == [(1, "A"), (2, "A"), (3, "B")]
    report = report_of(two_classes, Threat("Linf", "6/255"))
    chosen = choose_examples(report, most=6)
    assert len(chosen) == 6
    assert all(not report.attacks[column][position] for position, column in chosen)
    assert np.bincount(two_classes.labels[[position for position, _ in chosen]]).tolist() == [3, 3]


def test_examples_are_errors_inside_the_ball_with_what_the_model_says(two_classes: Linear) -> None:
    threat = Threat("Linf", "6/255")
    report = report_of(two_classes, threat)
    chosen = choose_examples(report)
    examples = make_examples(two_classes.subject(), two_classes.images, report, ATTACKS, chosen)
    assert [(example.position, example.column) for example in examples] == chosen
    for example in examples:
        assert np.array_equal(example.natural, two_classes.images[example.position] / np.float32(255))
        assert np.abs(example.adversarial - example.natural).max() <= threat.radius * (1 + 1e-5)
        assert example.before.label == example.label != example.after.label
        assert 0.5 <= example.before.confidence <= 1
    assert 0 < largest_change(examples) <= threat.radius * (1 + 1e-5)


def test_an_attack_that_fails_the_second_time_shows_nothing(two_classes: Linear) -> None:
    threat = Threat("Linf", "1/2550")
    distances = two_classes.distances("Linf")
    far = int(distances.argmax())
    clean = distances > 0
    bits = clean.copy()
    bits[far] = False
    report = make_report(threat=threat, clean=clean, attacks={"FGSM": bits}, labels=two_classes.labels)
    assert len(clean) == N
    assert make_examples(two_classes.subject(), two_classes.images, report, ATTACKS, [(far, "FGSM")]) == ()
