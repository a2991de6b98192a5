"""Which images a file still gets right under attack: the short measure by which settings are compared."""

from __future__ import annotations

import numpy as np
import onnx

from compressor.core.types import Threat
from compressor.numerics.randomness import derive_seed
from exporters.claim.evidence import Bits, Floats, Integers
from exporters.file_attacks.attacks import build_attempts, run_attempts
from exporters.file_attacks.gradients import open_gradients
from exporters.file_attacks.random_images import draw_in_ball
from exporters.file_attacks.suite import VERIFY_SUITE
from exporters.file_attacks.target import open_file_target
from exporters.model_file.runtime import open_session
from exporters.writing.onnx import serialise

_ATTEMPTS = frozenset({"PGD-margin", "PGD-CE", "PGD-margin unrounded"})


def robust_under_attack(
    model: onnx.ModelProto, images: Floats, labels: Integers, threat: Threat, *, seed: int, threads: int | None = None
) -> Bits:
    """The images that a file gets right and goes on to get right under the verifier's own gradient attacks.

    If the verifier would not trust the file's gradients, no image counts as robust: nobody could check a claim.

    Args:
        model: the file.
        images: float32 ``[n, C, H, W]``.
        labels: int64 ``[n]``.
        threat: the ball.
        seed: of the attacks: one seed for all files that are compared.
        threads: of onnxruntime.

    Returns:
        bool ``[n]``.

    Raises:
        UnsupportedOperatorError: the graph holds an operator that has no gradient here.
    """
    if len(images) == 0:
        return np.zeros(0, dtype=bool)
    session = open_session(serialise(model), threads=threads)
    target = open_file_target(session, images, model)
    gradients, _ = open_gradients(target, model, images, draw_in_ball(images, threat, derive_seed(seed, "gate")))
    if gradients is None:
        return np.zeros(len(images), dtype=bool)
    attempts = [attempt for attempt in build_attempts(VERIFY_SUITE, session, gradients) if attempt.name in _ATTEMPTS]
    return np.asarray(~run_attempts(attempts, target, images, labels, threat, seed=seed).broken)
