"""A member whose package is not installed is the user's matter; one that is broken is ours."""

from __future__ import annotations

import sys

import pytest

from compressor.core.errors import MissingPackageError, UnknownNameError
from compressor.core.registry import DATASETS


def forget(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "compressor.data.sources.cifar10", "compressor.data.sources._cifar")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingPackageError, match="dataset cifar10 needs torchvision") as caught:
        DATASETS.get("cifar10")
    assert caught.value.exit_code == 2
    assert caught.value.hint == "pip install torchvision"


def test_a_file_of_our_own_that_is_absent_is_no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, "compressor.data.sources.cifar10")
    monkeypatch.setitem(sys.modules, "compressor.data.sources._cifar", None)
    with pytest.raises(ModuleNotFoundError):
        DATASETS.get("cifar10")


def test_an_unknown_name_is_another_mistake() -> None:
    with pytest.raises(UnknownNameError, match="cifar11"):
        DATASETS.get("cifar11")
