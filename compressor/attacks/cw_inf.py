"""CW_inf: the Carlini-Wagner margin, maximised by 30 PGD steps of 2/255 from a uniform start.

Source: Carlini and Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", by PGD as RSLAD evaluates it.
"""

from __future__ import annotations

from compressor.attacks._gradient import GradientAttack

ATTACK = GradientAttack(steps=30, step_size="2/255", start="uniform", loss="cw_margin")
