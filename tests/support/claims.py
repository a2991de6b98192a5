"""A claim with something in every field."""

from __future__ import annotations

from exporters.claim.claim import Claim


def example_claim() -> Claim:
    """A claim that no file belongs to, sealed."""
    return Claim(
        samples=128,
        clean_correct=90,
        robust=50,
        norm="Linf",
        eps="8/255",
        suite="verify@1+standard@1",
        seeds=(1, 2**63 - 1),
        versions={"onnx": "1.23"},
        runtime={"provider": "cpu", "threads": 2, "cpu_features": ["avx2"]},
        class_names=("plane", "Möwe"),
        preprocessing={"image_size": 32, "channels": 3, "range": "[0, 1]"},
        precision={"name": "int8", "search": {"taken": None}},
        dataset={"name": "cifar10", "split": "test", "digest": "a" * 64, "total": 10_000, "draw": "draw@1"},
        recipe={"learning_rate": 0.1, "milestones": [215, 260]},
        teacher="b" * 64,
        student=None,
        licences=None,
        evidence="c" * 64,
        model="d" * 64,
        alarms=("half-range", "zero-gradients"),
    ).sealed()
