"""APGD-T: Auto-PGD on the targeted DLR loss, 100 steps towards each of the 9 likeliest wrong classes.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks".
"""

from __future__ import annotations

from compressor.attacks._apgd_members import TargetedApgd

ATTACK = TargetedApgd()
