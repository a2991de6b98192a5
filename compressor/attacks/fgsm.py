"""FGSM: one step of the whole radius along the sign of the gradient, no random start.

Source: Goodfellow et al. 2015, "Explaining and Harnessing Adversarial Examples". For L2, the normalised gradient.
"""

from __future__ import annotations

from compressor.attacks._gradient import GradientAttack

ATTACK = GradientAttack(steps=1, step_size="1eps", start="none")
