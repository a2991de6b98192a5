"""How long a training can be: the number of epochs that fit a budget, from measured speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Pace:
    """What a few measured steps tell of a run.

    Attributes:
        start: seconds before the first step.
        step: seconds a step.
        epoch_end: seconds after an epoch's last step: validation and saving.
    """

    start: float
    step: float
    epoch_end: float

    def seconds(self, steps: int, epochs: int) -> float:
        """How long ``epochs`` of ``steps`` steps each are expected to take."""
        return self.start + epochs * (steps * self.step + self.epoch_end)


def read_pace(started: float, step_ends: Sequence[float], ended: float, *, warm_up: int) -> Pace:
    """Read the pace off a short run of one epoch.

    Args:
        started: when the run started, in seconds.
        step_ends: when each of its steps ended.
        ended: when the run ended.
        warm_up: first steps that are left out, since they choose algorithms and allocate memory.

    Raises:
        ValueError: not even one step is left after the warm-up.
    """
    gaps = [after - before for before, after in pairwise(step_ends)][warm_up:]
    if not gaps:
        raise ValueError(f"{len(step_ends)} steps are too few to time after a warm-up of {warm_up}.")
    # The mean: now and then a step is slow for good reason, and an epoch has those too. But one hiccup in a short
    # run must not halve the schedule, so what is far off counts as twice the median.
    most = 2 * statistics.median(gaps)
    step = statistics.fmean(min(gap, most) for gap in gaps)
    return Pace(step_ends[0] - started, step, ended - step_ends[-1])


def epochs_within(budget: float, pace: Pace, steps: int, *, most: int) -> int:
    """The largest number of epochs that is expected to fit the budget; at least 1, at most ``most``.

    Args:
        budget: in seconds.
        pace: as measured.
        steps: in an epoch.
        most: epochs of the published schedule: a longer one serves nobody.
    """
    epoch = pace.seconds(steps, 1) - pace.start
    return max(1, min(most, int((budget - pace.start) // epoch))) if epoch > 0 else most
