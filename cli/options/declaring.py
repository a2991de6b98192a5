"""How options are declared: what most of them say, in the order in which the help shows it."""

from __future__ import annotations

from typing import Any

import typer


def option(metavar: str, text: str, panel: str | None = None, *, names: tuple[str, ...] = (), **more: Any) -> Any:
    """An option that takes a value, for ``Annotated``; its name is that of the parameter.

    Args:
        metavar: what the help shows for the value.
        text: the help.
        panel: of the help.
        names: such as ``--output`` and ``-o``, where the parameter has another name or the option has several.
        **more: as for ``typer.Option``, such as ``min`` and ``callback``.
    """
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, **more)


def switch(name: str, text: str, panel: str | None = None, *, also: str | None = None) -> Any:
    """An option that takes no value.

    Args:
        name: such as ``--force``; without it, Typer would add ``--no-force``.
        text: the help.
        panel: of the help.
        also: another name.
    """
    names = (name,) if also is None else (name, also)
    return typer.Option(*names, help=text, rich_help_panel=panel)
