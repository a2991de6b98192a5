"""No file may have a module imported: only a name that the user wrote."""

from __future__ import annotations

import hashlib
import sys

import pytest

from compressor.core.errors import UnknownNameError, UnsafeCheckpointError, UsageError
from compressor.models import user_code as own_code


@pytest.fixture(autouse=True)
def no_consent(monkeypatch):
    """Each test starts without any consent, in a search path of its own."""
    monkeypatch.setattr(own_code, "_allowed", set())
    monkeypatch.setattr(own_code, "_digests", {})
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module into the working folder; it is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def module(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return path

    yield module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_name_that_nobody_wrote_is_refused_before_anything_runs(write, tmp_path):
    write("mine_marked", "from pathlib import Path\nPath('ran').touch()\ndef make(): ...\n")
    own_code.allow_user_code("python:mine_marked:other")
    with pytest.raises(UnsafeCheckpointError, match="python:mine_marked:make") as caught:
        own_code.load_user_code("python:mine_marked:make")
    assert "--model python:mine_marked:make" in caught.value.hint
    assert "mine_marked" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_an_allowed_factory_is_found_in_the_working_folder_and_its_digest_is_that_of_what_runs(write):
    path = write("mine_plain", "def make(): return 7\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    own_code.allow_user_code("python:mine_plain:make")
    code = own_code.load_user_code("python:mine_plain:make")
    assert (code.factory(), code.sha256) == (7, digest)
    path.write_text("def make(): return 8\n", encoding="utf-8")
    again = own_code.load_user_code("python:mine_plain:make")
    assert (again.factory(), again.sha256) == (7, digest)


def test_nothing_in_the_working_folder_takes_an_installed_package_s_place(write):
    write("colorsys", "raise RuntimeError('the wrong one')\n")
    own_code.allow_user_code("python:colorsys:rgb_to_hsv")
    assert own_code.load_user_code("python:colorsys:rgb_to_hsv").factory(1, 1, 1) == (0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("python:mine_bad", UsageError, "names no factory"),
        ("python::make", UsageError, "names no factory"),
        ("python:..mine_bad:make", UsageError, "names no factory"),
        ("python:mine_bad:make:more", UsageError, "names no factory"),
        ("python:mine_absent:make", UsageError, "No module named 'mine_absent'"),
        ("python:mine_raising:make", UsageError, "ZeroDivisionError"),
        ("python:mine_bad:maker", UnknownNameError, "no factory in mine_bad 'maker'"),
        ("python:mine_bad:number", UsageError, "cannot be called"),
        ("python:sys:exit", UsageError, "no source file"),
    ],
)
def test_what_cannot_be_imported_is_a_sentence(write, name, error, says):
    write("mine_bad", "number = 1\ndef make(): ...\n")
    write("mine_raising", "1 / 0\n")
    own_code.allow_user_code(name)
    with pytest.raises(error, match=says):
        own_code.load_user_code(name)


def test_names_of_libraries_need_no_consent():
    own_code.allow_user_code("torchvision:resnet18")
    assert not own_code._allowed
    assert not own_code.is_user_code("torchvision:resnet18")
