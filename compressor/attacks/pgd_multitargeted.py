"""Multi-targeted PGD: 20 steps of a quarter radius towards each of the 9 likeliest wrong classes.

Source: Gowal et al. 2019, "An Alternative Surrogate Loss for PGD-based Adversarial Testing".
"""

from __future__ import annotations

from compressor.attacks._targeted import TargetedAttack

ATTACK = TargetedAttack(targets=9)
