"""What installed distributions offer by name; imports nothing until it is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from unetkit.errors import SurroundingsError, UsageError

BUILT_IN = "unetkit"


@dataclass(frozen=True)
class Entry:
    """One thing that a distribution offers.

    Parameters
    ----------
    name : str
        The name that it is asked for by.
    distribution, version : str
        Where it comes from.
    point : importlib.metadata.EntryPoint
        What loads it.
    """

    name: str
    distribution: str
    version: str
    point: EntryPoint

    @property
    def full_name(self) -> str:
        """The name that is never ambiguous: ``distribution/name``."""
        return f"{self.distribution}/{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


class Registry:
    """What is installed under one entry-point group, by name.

    A name of unetkit's own always means unetkit's own; what another distribution offers under
    the same name is reached as ``distribution/name``.

    Parameters
    ----------
    group : str
        The entry-point group, such as ``unetkit.models``.
    noun : str
        What one of its things is called in messages, such as ``model``.

    Examples
    --------
    >>> Registry("unetkit.models", noun="model").entry("unet").full_name
    'unetkit/unet'
    """

    def __init__(self, group: str, *, noun: str) -> None:
        self.group = group
        self.noun = noun

    @cached_property
    def _entries(self) -> dict[str, list[Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        for point in entry_points(group=self.group):
            origin = point.dist
            if origin is not None:
                entry = Entry(point.name, origin.name, origin.version, point)
                found.setdefault(point.name, {}).setdefault(_plain(origin.name), entry)
        return {name: [by[key] for key in sorted(by)] for name, by in sorted(found.items())}

    def names(self) -> list[str]:
        """Return every name that `get` takes, in order, without importing anything.

        Where two distributions use one name, those that the plain name does not mean are listed
        as ``distribution/name``.
        """
        return sorted(
            entry.name if self._meant(entries) is entry else entry.full_name
            for entries in self._entries.values()
            for entry in entries
        )

    def entry(self, name: str) -> Entry:
        """Return who offers `name`, without importing it.

        Raises
        ------
        UsageError
            If nobody does, or two distributions do and `name` does not say which.
        """
        distribution, _, short = name.rpartition("/")
        entries = self._entries.get(short, [])
        if distribution:
            entries = [e for e in entries if _plain(e.distribution) == _plain(distribution)]
        if not entries:
            raise UsageError(self._unknown(name))
        meant = self._meant(entries)
        if meant is None:
            origins = " and ".join(f"{e.distribution} {e.version}" for e in entries)
            choices = " or ".join(repr(e.full_name) for e in entries)
            raise UsageError(
                f"{self.noun} must come from one distribution, got {name!r} of {origins};"
                f" say {choices}"
            )
        return meant

    def get(self, name: str) -> Any:
        """Import and return what is installed as `name`.

        Parameters
        ----------
        name : str
            A name, or ``distribution/name``.

        Raises
        ------
        UsageError
            If no such name is installed, or two distributions offer it.
        SurroundingsError
            If its distribution is broken.
        """
        entry = self.entry(name)
        try:
            return entry.point.load()
        # A plugin may fail in any way while it is imported, even by leaving the program.
        except (Exception, SystemExit) as error:
            raise SurroundingsError(
                f"{self.noun} {entry} must be importable, got {type(error).__name__}: {error};"
                f" install {entry.distribution} again or remove it"
            ) from error

    @staticmethod
    def _meant(entries: list[Entry]) -> Entry | None:
        own = [e for e in entries if _plain(e.distribution) == BUILT_IN]
        chosen = own or entries
        return chosen[0] if len(chosen) == 1 else None

    def _unknown(self, name: str) -> str:
        installed = [entry for entries in self._entries.values() for entry in entries]
        close = get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(map(str, installed)) or "none"
        return f"no {self.noun} named {name!r} is installed; {hint}installed: {listed}"


def _plain(distribution: str) -> str:
    # Packaging treats these spellings of a distribution's name as one.
    return re.sub(r"[-_.]+", "-", distribution).lower()
