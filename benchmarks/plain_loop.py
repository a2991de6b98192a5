"""The yardstick: an RSLAD step as the released code computes it, simple and without any of our shortcuts.

Default memory layout, float32 throughout, the student itself attacked in eval mode, the teacher asked for every batch.
It gets its images augmented and in memory, for nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS, STEP, STEPS, NOISE, WEIGHT = 8 / 255, 2 / 255, 10, 0.001, 5 / 6


def attack(student: nn.Module, soft: Tensor, x: Tensor) -> Tensor:
    """PGD-10 on ``KL(T(x) || S(x'))`` from a Gaussian start."""
    student.eval()
    x_adv = x + NOISE * torch.randn_like(x)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        loss = F.kl_div(F.log_softmax(student(x_adv), 1), soft, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + STEP * gradient.sign()
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    return x_adv


def step(student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    """Ask the teacher, attack, and take one SGD step on both KL terms."""
    with torch.no_grad():
        soft = F.softmax(teacher(x), 1)
    x_adv = attack(student, soft, x)
    student.train()
    optimizer.zero_grad()
    adversarial = F.kl_div(F.log_softmax(student(x_adv), 1), soft, reduction="none").mean()
    natural = F.kl_div(F.log_softmax(student(x), 1), soft, reduction="none").mean()
    (WEIGHT * adversarial + (1 - WEIGHT) * natural).backward()
    optimizer.step()
