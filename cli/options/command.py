"""How the commands' help shows what their options take."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperOption


class Command(TyperCommand):
    """A command whose switches are shown to take nothing; by default the help gives each of them a ``<bool>``."""

    def get_params(self, ctx: Any) -> Any:
        """The arguments and options, ``--help`` among them."""
        params = super().get_params(ctx)
        for option in params:
            if isinstance(option, TyperOption) and option.is_bool_flag:
                option.metavar = ""
        return params
