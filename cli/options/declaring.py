"""How options are declared: what most of them say, in the order in which the help shows it."""

from __future__ import annotations

from typing import Any

import typer


def option(
    name: str, metavar: str, text: str, panel: str | None = None, *, also: str | None = None, **more: Any
) -> Any:
    """An option that takes a value, for ``Annotated``.

    Args:
        name: such as ``--data``.
        metavar: what the help shows for the value.
        text: the help.
        panel: of the help.
        also: another name.
        **more: as for ``typer.Option``, such as ``min`` and ``callback``.
    """
    names = (name,) if also is None else (name, also)
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, **more)


def switch(name: str, text: str, panel: str | None = None, *, also: str | None = None) -> Any:
    """An option that takes no value; otherwise as ``option``."""
    names = (name,) if also is None else (name, also)
    return typer.Option(*names, help=text, rich_help_panel=panel)
