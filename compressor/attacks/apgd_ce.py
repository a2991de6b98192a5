"""APGD-CE: Auto-PGD on the cross-entropy, 100 steps.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks".
"""

from __future__ import annotations

from compressor.attacks._apgd_members import Apgd

ATTACK = Apgd("cross_entropy")
