"""What installed distributions offer by name; imports nothing until it is asked for."""

from __future__ import annotations

import re
import sys
import threading
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any

from unetkit.errors import ResourceError, UnetkitError, UsageError
from unetkit.progress import SILENT, Progress, noted_if_slow

BUILT_IN = "unetkit"

# The plugin interface: what build functions, readers and commands are handed and must return.
# A distribution says which one it is for by a name in the group unetkit.api; silence means 1.
API = "1"
API_GROUP = "unetkit.api"

# What can be plugged in, by entry-point group, and what one of them is called.
GROUPS = {"unetkit.models": "model", "unetkit.readers": "reader", "unetkit.commands": "command"}


@dataclass(frozen=True)
class Entry:
    """One thing that a distribution offers, and the entry point that loads it."""

    name: str
    distribution: str
    version: str
    point: EntryPoint
    api: tuple[str, ...] = (API,)  # the versions of the plugin interface that it is for

    @property
    def is_own(self) -> bool:
        """Whether unetkit itself offers it."""
        return plain_name(self.distribution) == BUILT_IN

    @property
    def fits(self) -> bool:
        """Whether it is for the plugin interface of this unetkit."""
        return self.is_own or API in self.api

    @property
    def full_name(self) -> str:
        """The name that is never ambiguous: ``distribution/name``."""
        return f"{self.distribution}/{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


# A plugin may look up others while it is loaded.
_LOADING = threading.RLock()


class Registry:
    """What is installed under one entry-point group, by name.

    A name of unetkit's own always means unetkit's own; what another distribution offers under
    the same name is reached as ``distribution/name``. `noun` is what messages call one of them.

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
        for origin, text in _installed():
            for entry in _offered(origin, text, self.group):
                found.setdefault(entry.name, {}).setdefault(plain_name(entry.distribution), entry)
        return {name: [by[key] for key in sorted(by)] for name, by in sorted(found.items())}

    def names(self) -> list[str]:
        """Return every name that `get` takes, in order, without importing anything.

        Where two distributions use one name, those that the plain name does not mean are listed
        as ``distribution/name``.
        """
        return [name for name, _ in self.entries()]

    def entries(self) -> list[tuple[str, Entry]]:
        """Return every name that `get` takes with what it means, without importing anything."""
        named = (
            (entry.name if self._meant(entries) is entry else entry.full_name, entry)
            for entries in self._entries.values()
            for entry in entries
        )
        return sorted(named, key=lambda pair: pair[0])

    def offers(self, name: str) -> bool:
        """Say whether anybody offers `name`, be it clear who is meant or not."""
        return bool(self._matching(name))

    def entry(self, name: str) -> Entry:
        """Return who offers `name`, without importing it; refuse a name that is not clear."""
        entries = self._matching(name)
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

    def get(self, name: str, *, progress: Progress = SILENT) -> Any:
        """Import and return what is installed as `name`, or as ``distribution/name``.

        A plugin that is broken, or for another plugin interface, is a `ResourceError`; one that
        takes long to import is told of.
        """
        entry = self.entry(name)
        if not entry.fits:
            raise ResourceError(
                f"{self.noun} {entry} must be for version {API} of the plugin interface, got"
                f" {' and '.join(entry.api)}; install another version of {entry.distribution} or"
                " of unetkit"
            )
        try:
            # What a plugin prints must not get among the results on stdout. Of two threads that
            # redirect it at once, one would leave it so.
            with (
                _LOADING,
                redirect_stdout(sys.stderr),
                noted_if_slow(progress, _slow(self.noun, entry)),
            ):
                return entry.point.load()
        except (KeyboardInterrupt, UnetkitError):
            raise
        # A plugin may fail in any way while it is imported, even by leaving the program.
        except BaseException as error:
            raise ResourceError(
                f"{self.noun} {entry} must be importable, got {type(error).__name__}: {error};"
                f" install {entry.distribution} again or remove it"
            ) from error

    def _matching(self, name: str) -> list[Entry]:
        distribution, _, short = name.rpartition("/")
        entries = self._entries.get(short, [])
        if distribution:
            return [e for e in entries if plain_name(e.distribution) == plain_name(distribution)]
        return entries

    @staticmethod
    def _meant(entries: list[Entry]) -> Entry | None:
        own = [e for e in entries if e.is_own]
        chosen = own or entries
        return chosen[0] if len(chosen) == 1 else None

    def _unknown(self, name: str) -> str:
        installed = [entry for entries in self._entries.values() for entry in entries]
        close = get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(map(str, installed)) or "none"
        return f"no {self.noun} named {name!r} is installed; {hint}installed: {listed}"


def status(entry: Entry) -> str:
    """Say whether something can be used, as far as that is known without importing it."""
    return "installed" if entry.fits else f"for plugin interface {' and '.join(entry.api)}"


def _slow(noun: str, entry: Entry) -> str:
    return (
        f"waiting for {noun} {entry} to be imported; Ctrl-C ends it, and pip uninstall"
        f" {entry.distribution} removes it"
    )


def plain_name(distribution: str) -> str:
    """Return a distribution's name as packaging compares it: these spellings are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def is_distribution_name(value: object) -> bool:
    """Say whether a value could be the name of a distribution, by the rule of PEP 508."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


# A folder that changed so short a time ago may change again without another time: nanoseconds.
_RECENT = 10**9


def _installed() -> list[tuple[Distribution, str]]:
    """Return the distributions that offer anything, with what; a command asks for it often."""
    places = tuple((place, _changed(place or ".")) for place in sys.path)
    if any(time.time_ns() - changed < _RECENT for _, changed in places):
        return _look()
    return _known(places)


def _changed(folder: str) -> int:
    """Return when something last came into a folder or went from it."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _known(places: tuple[tuple[str, int], ...]) -> list[tuple[Distribution, str]]:
    """Look once at `places` as they are."""
    return _look()


def _look() -> list[tuple[Distribution, str]]:
    found = ((origin, origin.read_text("entry_points.txt")) for origin in distributions())
    return [(origin, text) for origin, text in found if text]


def _offered(origin: Distribution, text: str, group: str) -> list[Entry]:
    """Return what a distribution, whose entry points are `text`, offers under a group."""
    # Most distributions know nothing of unetkit: one look spares taking their points apart.
    if group not in text:
        return []
    name, version = _name_and_version(origin)
    if not name:  # the rest of an installation that went wrong
        return []
    points = origin.entry_points
    api = tuple(point.name for point in points.select(group=API_GROUP)) or ("1",)
    return [Entry(p.name, name, version, p, api) for p in points.select(group=group)]


def _name_and_version(origin: Distribution) -> tuple[str, str]:
    """Read what a distribution is called; its description, often long, is left alone."""
    metadata = origin.read_text("METADATA") or origin.read_text("PKG-INFO") or ""
    header, *_ = metadata.split("\n\n")
    fields = dict(re.findall(r"^(Name|Version):[ \t]*(.*?)[ \t]*$", header, re.MULTILINE))
    return fields.get("Name", ""), fields.get("Version", "")
