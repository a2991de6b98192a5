from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as TF

from compressor.numerics.augment import (
    apply_variants,
    choose_variants,
    crop_padding,
    cut_variants,
    identity_variant,
    paste_variants,
    permutation,
    to_float_tensor,
    variant_count,
)


def pictures(batch: int, size: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8, generator=generator)


def by_hand(image: torch.Tensor, variant: int) -> torch.Tensor:
    """One image, one variant, by torchvision's own pad, crop and flip."""
    size = image.shape[-1]
    padding = size // 8
    crop, flip = divmod(variant, 2)
    dy, dx = divmod(crop, 2 * padding + 1)
    cut = TF.crop(TF.pad(image, [padding] * 4), dy, dx, size, size)
    return (TF.hflip(cut) if flip else cut).to(torch.float32) / 255


@pytest.mark.parametrize(("size", "count"), [(32, 162), (16, 50), (8, 18), (28, 98), (7, 2), (224, 57 * 57 * 2)])
def test_variant_count(size: int, count: int) -> None:
    assert variant_count(size) == count


@pytest.mark.parametrize("size", [7, 8, 20, 32])
def test_every_variant_equals_torchvision(size: int) -> None:
    variants = torch.arange(variant_count(size))
    images = pictures(len(variants), size)
    before = images.clone()
    got = apply_variants(images, variants)
    expected = torch.stack([by_hand(image, int(v)) for image, v in zip(images, variants, strict=True)])
    assert torch.equal(got, expected)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert torch.equal(images, before)


def test_every_variant_of_a_picture_is_another_picture() -> None:
    image = pictures(1, 32).expand(162, -1, -1, -1)
    results = apply_variants(image, torch.arange(162))
    assert len({result.numpy().tobytes() for result in results}) == 162


def frames_of(batch: int, size: int) -> torch.Tensor:
    """int8 frames as perturbations are kept in: padded, and nowhere zero."""
    side = size + 2 * crop_padding(size)
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 128, (batch, 3, side, side), dtype=torch.int8, generator=generator)


@pytest.mark.parametrize("size", [7, 8, 15, 20, 32])
def test_what_is_cut_out_of_a_frame_is_what_torchvision_cuts(size: int) -> None:
    variants = torch.arange(variant_count(size))
    frames = frames_of(len(variants), size)
    got = cut_variants(frames, variants)
    for part, frame, variant in zip(got, frames, variants.tolist(), strict=True):
        dy, dx = divmod(variant // 2, 2 * crop_padding(size) + 1)
        cut = TF.crop(frame, dy, dx, size, size)
        assert torch.equal(part, TF.hflip(cut) if variant % 2 else cut)
    assert got.dtype == torch.int8


@pytest.mark.parametrize("size", [7, 8, 20, 32])
def test_pasting_undoes_cutting_and_cutting_undoes_pasting(size: int) -> None:
    variants = torch.arange(variant_count(size))
    frames = frames_of(len(variants), size)
    assert torch.equal(paste_variants(frames, cut_variants(frames, variants), variants), frames)
    parts = -frames_of(len(variants), size)[:, :, :size, :size]
    assert torch.equal(cut_variants(paste_variants(frames, parts, variants), variants), parts)


@pytest.mark.parametrize("size", [8, 32])
def test_pasting_changes_the_crop_and_nothing_else(size: int) -> None:
    variants = torch.arange(variant_count(size))
    frames = frames_of(len(variants), size)
    before = frames.clone()
    pasted = paste_variants(frames, torch.zeros(len(variants), 3, size, size, dtype=torch.int8), variants)
    assert torch.equal(frames, before)
    for new, old, variant in zip(pasted, frames, variants.tolist(), strict=True):
        dy, dx = divmod(variant // 2, 2 * crop_padding(size) + 1)
        expected = old.clone()
        expected[:, dy : dy + size, dx : dx + size] = 0
        assert torch.equal(new, expected)


@pytest.mark.parametrize("size", [7, 8, 20, 28, 32, 224])
def test_the_identity_variant_is_the_picture(size: int) -> None:
    images = pictures(2, size)
    assert torch.equal(apply_variants(images, torch.tensor([identity_variant(size)] * 2)), to_float_tensor(images))


def test_grey_pictures_and_empty_batches() -> None:
    images = pictures(4, 16, channels=1)
    assert torch.equal(apply_variants(images, torch.tensor([7] * 4))[2], by_hand(images[2], 7))
    assert apply_variants(images[:0], torch.empty(0, dtype=torch.int64)).shape == (0, 1, 16, 16)


def test_to_float_is_the_nearest_float32_to_the_quotient() -> None:
    # In float64 the quotient is exact to far more digits than float32 has.
    expected = (np.arange(256, dtype=np.float64) / 255).astype(np.float32)
    assert np.array_equal(to_float_tensor(torch.arange(256, dtype=torch.uint8)).numpy(), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_devices_agree_to_the_bit() -> None:
    images, variants = pictures(162, 32), torch.arange(162)
    assert torch.equal(apply_variants(images, variants), apply_variants(images.cuda(), variants).cpu())


def test_a_variant_depends_on_seed_epoch_and_index_alone() -> None:
    whole = choose_variants(3, 5, np.arange(1000))
    assert np.array_equal(choose_variants(3, 5, np.array([7, 999, 7])), whole[[7, 999, 7]])
    assert choose_variants(3, 5, np.arange(6).reshape(2, 3)).shape == (2, 3)
    assert whole.dtype == np.int64
    assert (whole != choose_variants(3, 6, np.arange(1000))).mean() > 0.9
    assert (whole != choose_variants(4, 5, np.arange(1000))).mean() > 0.9


def test_without_flips_the_crops_are_the_same_and_none_is_mirrored() -> None:
    both = choose_variants(0, 0, np.arange(1000))
    upright = choose_variants(0, 0, np.arange(1000), flip=False)
    assert np.array_equal(upright // 2, both // 2)
    assert not np.any(upright % 2)


@pytest.mark.parametrize("size", [8, 32])
def test_variants_are_uniform(size: int) -> None:
    count = variant_count(size)
    drawn = np.concatenate([choose_variants(0, epoch, np.arange(5000), size) for epoch in range(20)])
    observed = np.bincount(drawn, minlength=count)
    assert len(observed) == count
    chi2 = ((observed - 1e5 / count) ** 2 / (1e5 / count)).sum()
    # Mean count - 1, deviation sqrt(2 (count - 1)): four deviations either way.
    assert abs(chi2 - (count - 1)) < 4 * np.sqrt(2 * (count - 1))


def test_a_samples_variants_over_epochs_are_not_tied() -> None:
    first, second = (choose_variants(0, epoch, np.arange(20_000)) for epoch in (0, 1))
    # Independent draws are equal once in 162: 123 of 20,000, with a deviation of 11.
    assert 123 - 45 < (first == second).sum() < 123 + 45


def test_permutation() -> None:
    order = permutation(0, 0, 1000)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, permutation(0, 0, 1000))
    assert not np.array_equal(order, permutation(0, 1, 1000))
    assert not np.array_equal(order, permutation(1, 0, 1000))
    assert len(permutation(0, 0, 0)) == 0


def test_permutations_put_each_sample_anywhere() -> None:
    places = np.array([np.flatnonzero(permutation(0, epoch, 10) == 0)[0] for epoch in range(2000)])
    counts = np.bincount(places, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
