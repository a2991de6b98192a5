from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import functional as TF

from compressor.core.errors import MissingDataError, UnreadableDataError, UsageError
from compressor.data.sources import _cache, _pictures
from compressor.data.sources.imagefolder import DATASET


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(folder))
    return folder


def open_folder(root: Path, size: int = 8):
    return DATASET(str(root), data_dir=None, download=False, image_size=size)


def save(path: Path, value: int = 0, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, value, value)).save(path)


def make_tree(root: Path, validation: str | None = None) -> Path:
    """Pictures whose grey value tells which file they are."""
    for value, name in enumerate(
        ["train/a/1.png", "train/a/0.png", "train/b/deep/2.png", "test/b/3.png", "test/a/4.png"]
    ):
        save(root / name, value)
    if validation:
        save(root / validation / "b" / "5.png", 5)
    return root


def grey(split) -> list[int]:
    return [int(v) for v in split.images[:, 0, 0, 0]]


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


# ---- layout


def test_pictures_come_by_class_then_by_name(tmp_path: Path) -> None:
    dataset = open_folder(make_tree(tmp_path / "d"))
    assert dataset.class_names == ("a", "b")
    assert grey(dataset.load("train")) == [1, 0, 2]
    assert dataset.load("train").labels.tolist() == [0, 0, 1]
    assert grey(dataset.load("test")) == [4, 3]
    assert dataset.load("test").labels.tolist() == [0, 1]
    assert dataset.load("test").labels.dtype == np.int64
    assert dataset.load("test").images.shape == (2, 3, 8, 8)


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_a_validation_folder_may_have_three_names(tmp_path: Path, folder: str) -> None:
    dataset = open_folder(make_tree(tmp_path / "d", folder))
    assert dataset.has("validation")
    # Class a has no picture there: b keeps the index that it has in train.
    assert dataset.load("validation").labels.tolist() == [1]


def test_without_train_the_classes_are_those_of_test(tmp_path: Path) -> None:
    for name in ("test/x/0.png", "test/y/0.png"):
        save(tmp_path / "d" / name)
    dataset = open_folder(tmp_path / "d")
    assert dataset.class_names == ("x", "y")
    assert not dataset.has("train")
    with pytest.raises(UnreadableDataError, match="no train split"):
        dataset.load("train")


def test_without_test_only_asking_for_it_is_an_error(tmp_path: Path) -> None:
    for name in ("train/x/0.png", "train/y/0.png"):
        save(tmp_path / "d" / name)
    dataset = open_folder(tmp_path / "d")
    assert len(dataset.load("train")) == 2
    with pytest.raises(UnreadableDataError, match="no test split"):
        dataset.load("test")


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "d")
    (root / "train/a/Thumbs.db").write_bytes(b"x")
    (root / "train/a/._0.png").write_bytes(b"x")
    (root / "train/.git").mkdir()
    assert len(open_folder(root).load("train")) == 3


def test_a_relative_folder_is_taken_from_data_dir(tmp_path: Path) -> None:
    make_tree(tmp_path / "d")
    assert DATASET("d", data_dir=tmp_path, download=False, image_size=8).class_names == ("a", "b")


def test_the_name_tells_no_path(tmp_path: Path) -> None:
    assert open_folder(make_tree(tmp_path / "secret")).name == "imagefolder"


def test_nothing_is_decoded_on_opening(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "d")
    (root / "train/a/0.png").write_bytes(b"no picture")
    open_folder(root)


# ---- layouts that cannot be used


def test_no_folder_named() -> None:
    with pytest.raises(UsageError, match="needs a folder"):
        DATASET("", data_dir=None, download=False, image_size=8)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="does not exist"):
        open_folder(tmp_path / "absent")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingDataError, match="is not a folder"):
        open_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("argument", "fault"), [("x" * 300, "cannot be opened: file name too long"), ("~nobody-here", "begins with a user")]
)
def test_paths_that_the_system_refuses(argument: str, fault: str) -> None:
    with pytest.raises(MissingDataError, match=fault):
        DATASET(argument, data_dir=None, download=False, image_size=8)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "neither train nor test"),
        (["a/0.png", "b/0.png"], "neither train nor test"),
        (["val/a/0.png", "val/b/0.png"], "neither train nor test"),
        (["train/0.png"], "no class folders"),
        (["train/a/0.png"], "one class only"),
        (["train/a/0.png", "train/b/notes.txt"], "holds no pictures"),
        (["train/a/0.png", "train/b/0.png", "test/c/0.png"], "class 'c' in .* is not among the 2"),
        (["train/a/0.png", "train/b/0.png", "test/a/notes.txt"], "test holds no pictures"),
        (["train/a/0.png", "train/b/0.png", "val/a/0.png", "valid/a/0.png"], "two validation splits"),
    ],
)
def test_layouts_that_cannot_be_used(tmp_path: Path, names: list[str], message: str) -> None:
    root = tmp_path / "d"
    root.mkdir()
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"never read")
    with pytest.raises(UnreadableDataError, match=message) as caught:
        open_folder(root)
    assert caught.value.message.endswith(".")
    assert caught.value.hint


# ---- one picture


def read(image: Image.Image, path: Path, size: int, **options) -> np.ndarray:
    image.save(path, **options)
    return _pictures.read_picture(path, size)


def test_exact_size_is_not_resampled(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    assert np.array_equal(read(Image.fromarray(pixels), tmp_path / "x.png", 8), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(8, 9), (9, 8), (33, 50), (50, 33), (5, 4), (4, 4), (17, 160)])
def test_size_is_shorter_side_then_centre_crop_as_torchvision_does_it(tmp_path: Path, height: int, width: int) -> None:
    image = Image.fromarray(noise(height, width))
    expected = TF.center_crop(TF.resize(image, 8, antialias=True), [8, 8])
    assert np.array_equal(read(image, tmp_path / "x.png", 8), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(noise(8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1)
    assert np.array_equal(_pictures.read_picture(tmp_path / "x.png", 8), expected)


def test_tiff_orientation_is_applied_once(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    got = read(Image.fromarray(pixels), tmp_path / "x.tif", 8, tiffinfo={0x0112: 6})
    assert np.array_equal(got, np.rot90(pixels, -1).transpose(2, 0, 1))


def test_a_damaged_exif_block_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    got = read(Image.fromarray(pixels), tmp_path / "x.png", 8, exif=b"Exif\0\0MM\0\x2agarbage")
    assert np.array_equal(got, pixels.transpose(2, 0, 1))


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    pixels = noise(8, 8, 1)[..., 0]
    assert np.array_equal(read(Image.fromarray(pixels), tmp_path / "x.png", 8), np.stack([pixels] * 3))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    pixels = noise(8, 8, 1)[..., 0] > 127
    assert np.array_equal(read(Image.fromarray(pixels), tmp_path / "x.png", 8), np.stack([pixels * np.uint8(255)] * 3))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_keep_the_high_byte(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (8, 8), dtype=np.uint16)
    pixels[0, :4] = [0, 255, 256, 65535]
    got = read(Image.fromarray(pixels), tmp_path / f"x{suffix}", 8)
    assert np.array_equal(got, np.stack([(pixels >> 8).astype(np.uint8)] * 3))


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    got = read(Image.fromarray(pixels, "RGBA"), tmp_path / "x.png", 8)
    expected = pixels[..., :3].astype(float) * (pixels[..., 3:] / 255)
    assert np.abs(got.transpose(1, 2, 0) - expected).max() <= 1
    assert got[:, 0, 0].tolist() == [0, 0, 0]
    assert got[:, 0, 1].tolist() == pixels[0, 1, :3].tolist()


def test_palette_and_its_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, 10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 2)
    opaque = read(image, tmp_path / "opaque.png", 8)
    assert opaque[:, 0, 1].tolist() == [10, 20, 30]
    assert opaque[:, 0, 0].tolist() == [40, 50, 60]
    transparent = read(image, tmp_path / "transparent.png", 8, transparency=1)
    assert transparent[:, 0, 1].tolist() == [0, 0, 0]
    assert transparent[:, 0, 0].tolist() == [40, 50, 60]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    got = read(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), tmp_path / "x.tif", 8)
    assert got.max() == 0


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (255, 0)]
    got = read(frames[0], tmp_path / "x.gif", 8, save_all=True, append_images=frames[1:])
    assert got[:, 0, 0].tolist() == [255, 0, 0]


def test_floating_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataError, match="floating-point"):
        read(Image.new("F", (8, 8)), tmp_path / "x.tif", 8)


@pytest.mark.parametrize("factor", [1, 3])
def test_pictures_beyond_the_pixel_limit_are_refused(tmp_path: Path, factor: int) -> None:
    # One bit a pixel keeps the file small. Three times the limit is where Pillow itself raises.
    root = make_tree(tmp_path / "d")
    Image.new("1", (1 << 13, (1 << 13) * factor + 8)).save(root / "train/a/0.png")
    with pytest.raises(UnreadableDataError, match=r"0\.png cannot be used: .*limit of 67,108,864 pixels"):
        open_folder(root).load("train")


def test_a_thin_picture_is_refused_before_it_becomes_huge(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataError, match="limit"):
        read(Image.new("L", (60_000, 1)), tmp_path / "x.png", 224)


def test_formats_that_start_programs_are_not_tried(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(UnreadableDataError, match="not of a known format"):
        _pictures.read_picture(tmp_path / "x.png", 8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(32, 32)).save(path)
    whole = path.read_bytes()
    for keep in (0, 1, 10, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(UnreadableDataError, match=rf"x\{suffix} cannot be used: .*\."):
            _pictures.read_picture(path, 8)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".jpg", ".gif", ".tif", ".webp"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_a_picture_or_a_plain_error(tmp_path: Path, suffix: str, damage: list) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(noise(16, 16)).save(path)
    content = bytearray(path.read_bytes())
    for position, value in damage:
        content[int(position * len(content))] = value
    path.write_bytes(content)
    try:
        assert _pictures.read_picture(path, 8).shape == (3, 8, 8)
    except UnreadableDataError as error:
        assert error.message.count(".") >= 1  # noqa: PT017 - either outcome is right


def test_the_first_unreadable_picture_is_named_and_nothing_is_cached(tmp_path: Path, cache: Path) -> None:
    root = make_tree(tmp_path / "d")
    (root / "train/a/1.png").write_bytes(b"x")
    (root / "train/b/deep/2.png").write_bytes(b"x")
    with pytest.raises(UnreadableDataError, match=r"a/1\.png"):
        open_folder(root).load("train")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_file_name_that_is_not_text_can_still_be_printed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "d")
    try:
        (root / "train/a/\udcff.png").write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only names that are text")
    with pytest.raises(UnreadableDataError) as caught:
        open_folder(root).load("train")
    caught.value.message.encode("utf-8")


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "d")
    (root / "train/a/2.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UnreadableDataError, match=r"2\.png cannot be used: no such file"):
        open_folder(root).load("train")


# ---- the cache


def cached(cache: Path) -> list[Path]:
    return sorted((cache / "decoded").glob("*.npy"))


def refuse_to_decode(*args, **kwargs):
    raise AssertionError("decoded again")


def test_a_second_run_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(tmp_path / "d")
    first = open_folder(root).load("train")
    monkeypatch.setattr("compressor.data.sources._decoding.read_picture", refuse_to_decode)
    second = open_folder(root).load("train")
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)


@pytest.mark.parametrize("change", ["content", "name", "size", "root"])
def test_a_change_is_seen(tmp_path: Path, cache: Path, change: str) -> None:
    root = make_tree(tmp_path / "d")
    open_folder(root).load("train")
    size = 8
    if change == "content":
        save(root / "train/a/0.png", 77)
    elif change == "name":
        (root / "train/a/0.png").rename(root / "train/a/9.png")
    elif change == "size":
        size = 16
    else:
        root = root.rename(tmp_path / "moved")
    open_folder(root, size).load("train")
    assert len(cached(cache)) == 2


def test_large_splits_are_mapped_and_never_written_to(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "d")
    in_memory = open_folder(root).load("train").images
    monkeypatch.setattr(_cache, "fits_in_memory", lambda size: False)
    mapped = open_folder(root).load("train").images
    assert not isinstance(in_memory, np.memmap)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(in_memory, mapped)
    before = cached(cache)[0].read_bytes()
    mapped[:] = 99
    assert cached(cache)[0].read_bytes() == before


DAMAGES = {
    "empty": b"",
    "random": bytes(range(256)),
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95",
    "header": b"\x93NUMPY\x01\x00\xff\xff{",
    "nested header": b"\x93NUMPY\x01\x00\xb8\x0b" + b"(" * 3000,
    "huge header": b"\x93NUMPY\x01\x00\x54\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9"
    + b"9" * 30
    + b", 3, 8, 8)}",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "truncated", "dtype", "shape", "folder"])
def test_a_damaged_cache_is_decoded_again(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    root = make_tree(tmp_path / "d")
    good = open_folder(root).load("train").images
    (path,) = cached(cache)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "dtype":
        np.save(path, good.astype(np.int8))
    elif damage == "shape":
        np.save(path, good[:2])
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(DAMAGES[damage])
    with caplog.at_level(logging.WARNING, "compressor.data"):
        assert np.array_equal(open_folder(root).load("train").images, good)
    assert "cannot be used" in caplog.text


def test_an_unwritable_cache_is_said_and_done_without(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_tree(tmp_path / "d")
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, "compressor.data"):
        assert grey(open_folder(root).load("train")) == [1, 0, 2]
    assert "not kept for the next run" in caplog.text


def test_a_full_disk_is_seen_before_decoding(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "d")
    usage = _cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(_cache.shutil, "disk_usage", lambda folder: usage._replace(free=100))
    assert grey(open_folder(root).load("train")) == [1, 0, 2]
    assert "bytes are not free" in caplog.text
    assert not cache.exists()


def test_opening_the_cache_sets_its_time_of_last_use(tmp_path: Path, cache: Path) -> None:
    root = make_tree(tmp_path / "d")
    open_folder(root).load("train")
    (path,) = cached(cache)
    os.utime(path, (0, 0))
    open_folder(root).load("train")
    assert path.stat().st_mtime > 1e9


# ---- many pictures


def test_blocks_keep_the_order_and_report_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.data.sources import _decoding

    monkeypatch.setattr(_decoding, "_BLOCK_BYTES", 1)
    paths = []
    for index in range(200):
        paths.append(tmp_path / f"{index}.png")
        Image.new("L", (8, 8), index).save(paths[-1])
    seen: list[tuple[int, int]] = []
    with _decoding.watch_decoding(lambda done, total: seen.append((done, total))):
        blocks = list(_decoding.decode_files(paths, 8))
    assert [len(block) for block in blocks] == [64, 64, 64, 8]
    assert np.concatenate(blocks)[:, 0, 0, 0].tolist() == list(range(200))
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]


REAL = Path(__file__).parents[3] / "data/cifar10-jpeg"


@pytest.mark.skipif(not REAL.is_dir(), reason="the CIFAR-10 pictures are not unpacked here")
def test_real_pictures(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "d" / split / name
            folder.mkdir(parents=True)
            for index in range(20):
                (folder / f"{index:04}.jpg").symlink_to(REAL / split / name / f"{index:04}.jpg")
    split = open_folder(tmp_path / "d", 32).load("test")
    with Image.open(REAL / "test/dog/0003.jpg") as image:
        assert np.array_equal(split.images[23], np.asarray(image).transpose(2, 0, 1))
    assert split.labels.tolist() == [0] * 20 + [1] * 20
