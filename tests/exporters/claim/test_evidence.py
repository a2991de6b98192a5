"""Evidence: equal content gives equal bytes, and hostile files are refused before they cost anything."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.errors import MissingInputError, UnreadableEvidenceError
from exporters.claim.evidence import (
    Evidence,
    evidence_path,
    find_contradiction,
    parse_evidence,
    read_evidence_bytes,
    to_float_array,
)


def make_evidence(n: int = 6) -> Evidence:
    rng = np.random.default_rng(0)
    clean = np.arange(n) % 3 != 2
    robust = np.arange(n) % 3 == 0
    misclassified = np.flatnonzero(clean & ~robust)
    return Evidence(
        images=rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8),
        labels=np.arange(n) % 4,
        clean=clean,
        robust=robust,
        adversarial_u8=rng.integers(0, 256, (len(misclassified[:1]), 3, 4, 4), dtype=np.uint8),
        adversarial_u8_index=misclassified[:1],
        adversarial_f32=rng.random((len(misclassified[1:]), 3, 4, 4), dtype=np.float32),
        adversarial_f32_index=misclassified[1:],
    )


@pytest.mark.parametrize("n", [0, 1, 6])
def test_evidence_comes_back_as_it_went_in(n: int) -> None:
    evidence = make_evidence(n)
    read = parse_evidence(evidence.to_bytes())
    for name, array in vars(evidence).items():
        np.testing.assert_array_equal(getattr(read, name), array)
    assert read.to_bytes() == evidence.to_bytes()


def test_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.evidence.npz"
    path.write_bytes(make_evidence().to_bytes())
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays) == set(vars(make_evidence()))
        np.testing.assert_array_equal(arrays["images"], make_evidence().images)


@settings(max_examples=150, deadline=None)
@given(st.integers(0), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_an_array(position: int, bit: int) -> None:
    original = make_evidence()
    data = bytearray(original.to_bytes())
    data[position % len(data)] ^= 1 << bit
    try:
        read = parse_evidence(bytes(data))
    except UnreadableEvidenceError:
        return
    assert any(not np.array_equal(getattr(read, name), array) for name, array in vars(original).items())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | st.integers(0, 5000).map(lambda end: make_evidence().to_bytes()[:end]))
def test_garbage_and_truncation_are_unreadable(data: bytes) -> None:
    if data == make_evidence().to_bytes():
        return
    with pytest.raises(UnreadableEvidenceError):
        parse_evidence(data)


def repack(change: str) -> bytes:
    """The same arrays in an archive that differs in one respect."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if change == "deflated" else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(make_evidence().to_bytes())) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            data = old.read(name)
            if change == "header" and name == "images.npy":
                data = data.replace(b"(6, 3, 4, 4)", b"(6, 3, 4,99)")
            if change == "overflow" and name == "images.npy":
                data = data.replace(b"(6, 3, 4, 4)", b"(%d, 0, 4, 4)" % 2**62)
            if change == "object" and name == "labels.npy":
                data = data.replace(b"'<i8'", b"'|O' ")
            if change != "absent" or name != "robust.npy":
                new.writestr(name, data)
        if change == "extra":
            new.writestr("extra.npy", b"")
    return buffer.getvalue()


@pytest.mark.parametrize("change", ["deflated", "header", "overflow", "object", "absent", "extra", "none"])
def test_another_archive_is_unreadable(change: str) -> None:
    # "none" is repacked with today's date: the same arrays in other bytes.
    with pytest.raises(UnreadableEvidenceError):
        parse_evidence(repack(change))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(5, np.int64)},
        {"clean": np.zeros(7, bool)},
        {"adversarial_u8_index": np.array([9])},
        {"adversarial_u8_index": np.array([-1])},
        {"adversarial_u8_index": np.array([1, 4])},
        {"adversarial_f32": np.zeros((1, 3, 5, 5), np.float32)},
    ],
)
def test_arrays_that_do_not_belong_together_are_unreadable(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(UnreadableEvidenceError):
        parse_evidence(replace(make_evidence(), **change).to_bytes())


def test_contradictions_are_named() -> None:
    honest = make_evidence()
    assert find_contradiction(honest, classes=4) is None
    assert "label" in str(find_contradiction(honest, classes=3))
    assert "robust" in str(find_contradiction(replace(honest, clean=np.zeros(6, bool)), 4))
    assert "adversarial" in str(find_contradiction(replace(honest, robust=np.zeros(6, bool)), 4))


def test_files(tmp_path: Path) -> None:
    assert evidence_path(Path("runs/a.b.onnx")) == Path("runs/a.b.evidence.npz")
    with pytest.raises(MissingInputError):
        read_evidence_bytes(tmp_path / "absent.npz")
    with pytest.raises(MissingInputError):
        read_evidence_bytes(tmp_path)


def test_all_bytes_become_the_float_that_the_model_takes() -> None:
    levels = np.arange(256, dtype=np.uint8)
    expected = (levels.astype(np.float64) / 255).astype(np.float32)
    np.testing.assert_array_equal(to_float_array(levels), expected)


def test_more_images_than_a_verifier_reads_are_refused() -> None:
    most = replace(
        make_evidence(0),
        images=np.zeros((10_000, 3, 4, 4), np.uint8),
        labels=np.zeros(10_000, np.int64),
        clean=np.zeros(10_000, bool),
        robust=np.zeros(10_000, bool),
    )
    assert len(parse_evidence(most.to_bytes())) == 10_000
    grown = {
        name: np.concatenate([getattr(most, name)] * 2)[:10_001] for name in ("images", "labels", "clean", "robust")
    }
    with pytest.raises(UnreadableEvidenceError, match="10001 images"):
        parse_evidence(replace(most, **grown).to_bytes())
