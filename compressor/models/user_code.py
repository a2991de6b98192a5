"""Models defined in the user's own code, ``python:package.module:factory``: permission, import and digest.

A checkpoint of unknown origin names its network too, and to import a module is to run it. So a module is imported only
if the user named it to this process, on the command line: ``allow_user_code`` passes that on, and nothing that reads a
file may call it.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.core.errors import UnsafeCheckpointError, UsageError
from compressor.core.registry import unknown_name

_PREFIX = "python:"
_FORM = re.compile(r"python:([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")

_allowed: set[str] = set()
_digests: dict[str, str] = {}


@dataclass(frozen=True)
class UserCode:
    """A factory, imported, and the SHA-256 of the source file it was imported from."""

    factory: Callable[..., Any]
    sha256: str


def is_user_code(name: str) -> bool:
    """Whether a model's name refers to the user's own code."""
    return name.startswith(_PREFIX)


def allow_user_code(name: str) -> None:
    """Note that the user named this model; only for names that were written on the command line of this process.

    Names of other kinds need no consent.
    """
    if is_user_code(name):
        _allowed.add(name)


def load_user_code(name: str) -> UserCode:
    """Import the factory that ``python:package.module:factory`` names; modules in the working folder are found too.

    The digest is taken when a module is first imported and kept: it says what runs, not what the file has become.

    Raises:
        UsageError: the name has another form, or its module cannot be imported or holds no such factory.
        UnsafeCheckpointError: the user did not name it; only a file did.
    """
    found = _FORM.fullmatch(name)
    if found is None:
        raise UsageError(f"the model {name!r} names no factory.", "Write python:package.module:factory.")
    if name not in _allowed:
        raise UnsafeCheckpointError(
            f"the network is {name}, code that this command was not told to run.",
            f"If you trust that module, name it: --model {name} (of a student: --student; of a teacher: "
            "--teacher-model).",
        )
    module_name, attribute = found.groups()
    module = _import(module_name)
    factory = getattr(module, attribute, None)
    if factory is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"factory in {module_name}", attribute, sorted(known) or ["(none)"])
    if not callable(factory):
        raise UsageError(f"{name} is no factory: {attribute} cannot be called.", "Name a function or a class.")
    return UserCode(factory, _digest(module))


def _import(name: str) -> ModuleType:
    # Like `python -m`, and at the end: nothing in the working folder takes an installed package's place.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:  # the module's own code runs here, and may raise anything
        raise UsageError(
            f"the module {name} cannot be imported ({type(error).__name__}: {_first_line(error)}).",
            "It must be installed, or lie in the working folder.",
        ) from error


def _digest(module: ModuleType) -> str:
    name, file = module.__name__, getattr(module, "__file__", None)
    if name not in _digests:
        if file is None or not Path(file).is_file():
            raise UsageError(f"the module {name} has no source file.", "Name the module that defines the factory.")
        _digests[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return _digests[name]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200].rstrip(".")
