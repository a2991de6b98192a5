"""Reading a checkpoint of unknown origin: no code from it runs, and what comes out is plain tensors."""

from __future__ import annotations

import json
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from compressor.checkpoint.unwrapping import Unwrapped, unwrap
from compressor.core.errors import MissingInputError, UnreadableCheckpointError, UnsafeCheckpointError
from compressor.core.types import Normalization

OWN_KEY = "compress"
"""Where our own files describe themselves, in the text metadata of safetensors."""

_LARGEST_HEADER = 16 << 20
_EXACT = (torch.int64, torch.bool)
_FORMATS = "Give a PyTorch state dict (.pt, .pth, .ckpt) or a safetensors file; if it is one, fetch it again."
_STATE_DICT_ONLY = (
    "Load it where it is trusted, save only its weights with torch.save(model.state_dict(), FILE), and give that file."
)
# What torch's restricted unpickler says of a pickle that is sound and asks for more than tensors and containers.
_FORBIDDEN = re.compile(
    r"[Uu]nsupported (?:global|GLOBAL|class)|unsafe class|unrecognized function|allowlisted|TorchScript"
)
_FORBIDDEN_NAME = re.compile(r"(?:GLOBAL|class|function) ([A-Za-z_][\w.]*\.[\w.]+)")
_UNSUPPORTED_OPCODE = re.compile(r"Unsupported operand (\d+)")


@dataclass(frozen=True)
class ForeignState:
    """What a checkpoint file holds, before anyone has asked which network it is.

    Attributes:
        state: float32 tensors, and int64 or bool ones (counters, positions, masks), by the network's own names.
        metadata: the text a safetensors file carries; empty for other files.
        classes: how many classes the file itself says it has, or ``None``.
        normalization: what the file itself says its input is normalised with, or ``None`` where it says nothing.
        notes: what was left out or chosen on the way, for people.
    """

    state: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    classes: int | None = None
    normalization: Normalization | None = None
    notes: tuple[str, ...] = ()


def read_state(path: Path) -> ForeignState:
    """Read safetensors or a PyTorch file, take off what is wrapped around its state dict, and check every tensor.

    Our own files wrap nothing: names in them that look like a wrapper's are the network's.

    Raises:
        MissingInputError: no such file, or a folder.
        UnreadableCheckpointError: empty, truncated, damaged, not a checkpoint, or with weights that are not finite.
        UnsafeCheckpointError: reading it would mean running code that it carries.
    """
    _require_file(path)
    metadata: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[:4] == b"PK\x03\x04":
            _check_zip(path)
            document = _torch_load(path, mmap=True)
        elif start[8:9] == b"{" and not (start[:1] == b"\x80" and _header_bytes(start) > _LARGEST_HEADER):
            # The length of a safetensors header may begin with the byte that a pickle begins with, but it is small.
            document, metadata = _read_safetensors(path, _header_bytes(start))
        elif start[:1] == b"\x80":
            document = _torch_load(path, mmap=False)
        else:
            raise UnreadableCheckpointError(f"{path} is not a checkpoint: it starts like no known format.", _FORMATS)
    except OSError as error:
        raise UnreadableCheckpointError(f"{path} cannot be read: {error.strerror or error}.", _FORMATS) from error
    unwrapped = Unwrapped(document, None, None, ()) if OWN_KEY in metadata else unwrap(document, path)
    _check_size(path, unwrapped.state)
    state = {key: _plain(path, key, tensor) for key, tensor in unwrapped.state.items()}
    return ForeignState(state, metadata, unwrapped.classes, unwrapped.normalization, unwrapped.notes)


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise MissingInputError(f"{path} is a folder, not a checkpoint.", "Name the file inside it.")
    if not path.is_file():
        raise MissingInputError(f"there is no file {path}.", "Check the path of the checkpoint.")
    if path.stat().st_size == 0:
        raise UnreadableCheckpointError(f"{path} is empty.", _FORMATS)


def _header_bytes(start: bytes) -> int:
    return int(struct.unpack("<Q", start[:8])[0])


def _read_safetensors(path: Path, header_bytes: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    if header_bytes > _LARGEST_HEADER or header_bytes + 8 > path.stat().st_size:
        raise UnreadableCheckpointError(f"{path} is truncated or damaged: its header does not fit the file.", _FORMATS)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, AttributeError, TypeError) as error:  # the latter two: a dtype that torch does not have
        raise UnreadableCheckpointError(f"{path} is truncated or damaged: {error}.", _FORMATS) from error


def _check_zip(path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is: PyTorch stores without compressing."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UnreadableCheckpointError(f"{path} is truncated or damaged: {error}.", _FORMATS) from error
    if unpacked > 2 * path.stat().st_size:
        raise UnreadableCheckpointError(f"{path} is compressed, which no PyTorch checkpoint is.", _FORMATS)


def _torch_load(path: Path, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            # What torch warns of here (an unusual pickle protocol) ends in one of the errors below, if it matters.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle can fail in any way at all; none of them is ours
        raise _explain(path, str(error)) from error


def _explain(path: Path, message: str) -> UnreadableCheckpointError | UnsafeCheckpointError:
    reason = message.partition("WeightsUnpickler error:")[2] or message
    opcode = _UNSUPPORTED_OPCODE.search(reason)
    # Opcodes from 128 on belong to pickle protocols that torch's restricted reader leaves out; below, it is damage.
    if _FORBIDDEN.search(reason) or (opcode and int(opcode[1]) >= 128):
        name = _FORBIDDEN_NAME.search(reason)
        wanted = f"it asks for {name[1]}" if name else "it holds more than tensors"
        return UnsafeCheckpointError(
            f"{path} cannot be read without running code from inside it: {wanted}.", _STATE_DICT_ONLY
        )
    return UnreadableCheckpointError(f"{path} is truncated or damaged: PyTorch cannot read it.", _FORMATS)


def _check_size(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are larger than their file: views that repeat a few numbers to fill the memory."""
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > 2 * path.stat().st_size:
        raise UnreadableCheckpointError(f"{path} declares tensors that are larger than the file.", _FORMATS)


def _plain(path: Path, key: str, tensor: Tensor) -> Tensor:
    """A contiguous tensor of its own memory on the CPU: float32, or int64 and bool for what is no weight."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise UnreadableCheckpointError(f"{path} holds {key!r} in a form that is not a plain tensor.", _STATE_DICT_ONLY)
    if key.endswith("num_batches_tracked"):
        return tensor.detach().to(torch.int64, copy=True).reshape(())
    if tensor.dtype in _EXACT:
        return tensor.detach().contiguous().clone()
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UnreadableCheckpointError(
            f"{path} holds {key!r} as {kind}, which is no weight.", "Give the checkpoint before quantisation."
        )
    plain = tensor.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    if not bool(plain.isfinite().all()):
        raise UnreadableCheckpointError(
            f"{path} holds NaN or infinity in {key!r}: its training diverged.", "Give an earlier checkpoint."
        )
    return plain


def parse_json(path: Path, text: str) -> Any:
    """JSON out of a file's header.

    Raises:
        UnreadableCheckpointError: it is not JSON, or nested without end.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableCheckpointError(f"{path} has a damaged header: {error}.", _FORMATS) from error
