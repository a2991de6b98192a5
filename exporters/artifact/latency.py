"""How long models take, one beside the other: medians of interleaved runs under one fixed setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from exporters.model_file.runtime import open_session

BATCH_SIZES = (1, 64)

_LEAST_RUNS, _MOST_RUNS = 11, 101
_SECONDS = 4.0  # for all models at one batch size, once each has had its least runs
_WARM_UP = 2


@dataclass(frozen=True)
class Latency:
    """The median time of one run of a model.

    Attributes:
        seconds: of a batch.
        runs: how many the median is of.
        threads: of onnxruntime.
    """

    seconds: float
    runs: int
    threads: int


def measure_latency(models: Mapping[str, bytes], *, threads: int | None = None) -> dict[str, dict[int, Latency]]:
    """Time models at batch 1 and 64, in turns, so that other load on the machine affects all of them alike.

    Sessions are those of the verifier: threads fixed, deterministic kernels, threads that do not spin between runs.

    Args:
        models: name to the bytes of an ONNX file; all take images of one size.
        threads: of onnxruntime; all that this process may use, where it is ``None``.

    Returns:
        Name to batch size to time; a file of a fixed batch is timed at that batch alone.
    """
    sessions = {name: open_session(data, threads=threads) for name, data in models.items()}
    found: dict[str, dict[int, Latency]] = {name: {} for name in models}
    random = np.random.default_rng(0)
    batches = {name: session.input_layout.batch for name, session in sessions.items()}
    wanted = {name: BATCH_SIZES if batch is None else (batch,) for name, batch in batches.items()}
    for size in sorted({size for sizes in wanted.values() for size in sizes}):
        timed = {name: sessions[name] for name, sizes in wanted.items() if size in sizes}
        times: dict[str, list[float]] = {name: [] for name in timed}
        images = {name: random.random((size, *session.image_shape), np.float32) for name, session in timed.items()}
        for name, session in timed.items():
            for _ in range(_WARM_UP):
                session(images[name], batch_size=size)
        begun = perf_counter()
        for run in range(_MOST_RUNS):
            if run >= _LEAST_RUNS and perf_counter() - begun > _SECONDS:
                break
            for name, session in timed.items():
                start = perf_counter()
                session(images[name], batch_size=size)
                times[name].append(perf_counter() - start)
        for name, session in timed.items():
            found[name][size] = Latency(median(times[name]), len(times[name]), session.threads)
    return found
