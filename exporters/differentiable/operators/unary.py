"""Functions of one value, cell by cell, that are smooth almost everywhere."""

from __future__ import annotations

import torch

from exporters.differentiable.registry import function_operator

function_operator("Abs", "``|x|``.", torch.abs, 6, 13)
function_operator("Neg", "``-x``.", torch.neg, 6, 13)
function_operator("Reciprocal", "``1 / x``.", torch.reciprocal, 6, 13)
function_operator("Sqrt", "The square root; not a number below zero.", torch.sqrt, 6, 13)
function_operator("Exp", "``e ** x``.", torch.exp, 6, 13)
function_operator("Log", "The natural logarithm.", torch.log, 6, 13)
function_operator("Sin", "The sine of x radians.", torch.sin, 7, 22)
function_operator("Cos", "The cosine of x radians.", torch.cos, 7, 22)
function_operator("Tanh", "The hyperbolic tangent.", torch.tanh, 6, 13)
function_operator("Erf", "The error function.", torch.erf, 9, 13)
