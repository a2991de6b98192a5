"""PGD_SAT: 20 steps of 2/255 on the cross-entropy from a uniform start in the ball.

Source: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", as RSLAD evaluates it.
"""

from __future__ import annotations

from compressor.attacks._gradient import GradientAttack

ATTACK = GradientAttack(steps=20, step_size="2/255", start="uniform")
