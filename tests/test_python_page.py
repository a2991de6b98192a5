"""The blocks of ``docs/python.md`` run, one after the other, and print nothing but what they print themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("compressor.system.devices.available_threads", lambda: 1)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        # The page's own lines in a traceback.
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "(500, 3, 8, 8) uint8 ('0', '1', '2')",
        "stopped",
        "best.safetensors last.safetensors [1, 2]",
        "module:Small 4/255",
        "torch.Size([1, 10])",
        "50 True",
        "['FGSM', 'PGD-10'] (50,) bool",
        "True",
        "torch.Size([16, 3, 8, 8]) torch.bool True",
        "student.onnx student.evidence.npz int8 32",
        "holds dataset-bound ['structure', 'digests', 'data']",
        "True",
        "10 checkpoint",
        "['phase', 'progress']",
        "unknown-name there is no suite 'strongest'. True",
    ]
