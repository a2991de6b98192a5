from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR100

from compressor.core.errors import MissingDataError
from compressor.data.sources.cifar100 import DATASET


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    for attribute, name, labels in (("train_list", "train", [2, 0, 1, 2]), ("test_list", "test", [1, 2])):
        images = np.arange(len(labels) * 3072).astype(np.uint8).reshape(-1, 3072)
        content = {"data": images, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        monkeypatch.setattr(CIFAR100, attribute, [[name, write(name, content)]])
    names = {"fine_label_names": ["apple", "bear", "clock"], "coarse_label_names": ["thing"]}
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": write("meta", names)})
    return tmp_path


def test_labels_are_the_fine_ones(data_dir: Path) -> None:
    dataset = DATASET("", data_dir=data_dir, download=False, image_size=32)
    assert dataset.name == "cifar100"
    assert dataset.class_names == ("apple", "bear", "clock")
    assert dataset.load("train").labels.tolist() == [2, 0, 1, 2]
    assert dataset.load("test").labels.tolist() == [1, 2]
    assert dataset.load("test").images[1, 2, 31, 31] == (2 * 3072 - 1) % 256


def test_absent_names_itself(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cifar100 is not in"):
        DATASET("", data_dir=tmp_path, download=False, image_size=32)
