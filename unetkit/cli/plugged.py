"""Commands of other distributions: listed without being imported, loaded when they are called."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from unetkit.cli.text import safe
from unetkit.errors import SurroundingsError
from unetkit.registry import Entry, Registry

PANEL = "Plugins"


class PluggedCommand(TyperCommand):
    """What stands for a command until it is called.

    Parameters
    ----------
    name : str
        The name on the command line.
    entry : Entry
        Who offers it.
    """

    def __init__(self, name: str, entry: Entry) -> None:
        origin = safe(f"from {entry.distribution} {entry.version}")
        super().__init__(name=safe(name), help=origin, rich_help_panel=PANEL)
        self.entry = entry

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Load the command and let it read its arguments.

        Raises
        ------
        SurroundingsError
            If the distribution is broken, or offers no Typer application.
        """
        found = _commands().get(self.entry.full_name)
        if not isinstance(found, typer.Typer):
            raise SurroundingsError(
                f"command {self.entry} must be a typer.Typer, got {type(found).__name__}; install"
                f" another version of {self.entry.distribution} or remove it"
            )
        return typer.main.get_command(found).make_context(info_name, args, parent, **extra)


class OpenGroup(TyperGroup):
    """The commands of unetkit, and behind them those of other distributions.

    A command of unetkit's own can't be shadowed; one of the same name from elsewhere is called
    ``distribution/name``.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every name, without importing a plugin."""
        return [*super().list_commands(ctx), *self._plugged()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command of unetkit, or what stands for one of another distribution."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = self._plugged().get(cmd_name)
        if entry is None and _commands().offers(cmd_name):
            # A name of two distributions, or a full name: the registry knows or says so.
            entry = _commands().entry(cmd_name)
        return None if entry is None else PluggedCommand(cmd_name, entry)

    def called(self, name: str, *, full_name: str) -> str:
        """Return how a command of another distribution is called: unetkit's own come first."""
        return full_name if name in self.commands else name

    def _plugged(self) -> dict[str, Entry]:
        return {
            self.called(name, full_name=entry.full_name): entry
            for name, entry in _commands().entries()
        }


def _commands() -> Registry:
    return Registry("unetkit.commands", noun="command")
