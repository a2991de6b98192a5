"""A device is what was asked for, or an error; never something else."""

from __future__ import annotations

import pytest
import torch

from compressor.core.errors import MissingDeviceError, UsageError
from compressor.system.devices import resolve_device, set_threads


def test_names() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu", "cpu:0", "cuda:x", ""):
        with pytest.raises(UsageError, match="not known"):
            resolve_device(name)


def test_an_absent_device_is_exit_2() -> None:
    with pytest.raises(MissingDeviceError, match="cuda:99") as caught:
        resolve_device("cuda:99")
    assert caught.value.exit_code == 2
    assert "--device cpu" in caught.value.hint


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        with pytest.raises(UsageError):
            set_threads(0)
    finally:
        torch.set_num_threads(before)
