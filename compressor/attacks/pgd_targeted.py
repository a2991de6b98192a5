"""Targeted PGD: 20 steps of a quarter radius towards the likeliest wrong class.

Source: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", on the margin of one wrong
class over the right one.
"""

from __future__ import annotations

from compressor.attacks._targeted import TargetedAttack

ATTACK = TargetedAttack(targets=1)
