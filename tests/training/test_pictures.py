"""Where the training images' pixels come from: both places give the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.core.contracts import Split
from compressor.training import pictures
from compressor.training.pictures import HostPictures, ResidentPictures, pictures_for

CPU = torch.device("cpu")


def split() -> Split:
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), dtype=np.uint8)
    return Split(images, np.zeros(23, dtype=np.int64))


@pytest.mark.parametrize("kind", [HostPictures, ResidentPictures])
def test_pixels_are_those_of_the_positions(kind: type[HostPictures] | type[ResidentPictures]) -> None:
    source = kind(split().images, CPU)
    index = np.array([22, 0, 7, 7])
    found = source.bring(source.fetch(index))
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(split().images[index]))


def test_a_mapped_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, split().images)
    for kind in (HostPictures, ResidentPictures):
        source = kind(np.load(path, mmap_mode="r"), CPU)
        assert torch.equal(source.bring(source.fetch(np.array([3]))), torch.from_numpy(split().images[[3]]))


@pytest.mark.parametrize(("free", "kind"), [(4, ResidentPictures), (3.99, HostPictures)])
def test_a_gpu_holds_images_that_take_a_quarter_of_its_free_memory(
    free: float, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnCpu(ResidentPictures):
        def __init__(self, images: np.ndarray, device: torch.device) -> None:  # type: ignore[type-arg]
            super().__init__(images, CPU)

    monkeypatch.setattr(pictures, "ResidentPictures", OnCpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * split().images.nbytes), 10**12))
    assert isinstance(pictures_for(split(), torch.device("cuda", 0)), kind)


def test_a_cpu_has_them_in_its_memory_already() -> None:
    assert isinstance(pictures_for(split(), CPU), HostPictures)
