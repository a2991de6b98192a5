"""PGD_TRADES: 20 steps of 0.003 on the cross-entropy from the image plus 0.001 N(0, 1).

Source: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy", as RSLAD evaluates it.
"""

from __future__ import annotations

from compressor.attacks._gradient import GradientAttack

ATTACK = GradientAttack(steps=20, step_size="0.003", start="gaussian", start_scale=0.001)
