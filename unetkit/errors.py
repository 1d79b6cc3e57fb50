"""The exceptions that a user can cause or meet, each with the exit code that a shell script sees.

    UnetkitError
    ├── UsageError        2   an option or its value
    ├── InputError        3   data or a model file: missing, damaged, unsuitable
    │   ├── MissingError      nothing there
    │   └── LabelError        labels that can't be what they are said to be
    ├── OutputError       4   exists, is the input, or a partial made with other settings
    ├── ResourceError     5   disk, memory, workers, plugins, optional dependencies
    │   └── OutOfMemoryError  too little memory for what is in work
    ├── NonFiniteError    6   NaN or Inf in the input or the loss
    ├── CheckError        7   a check did not hold
    ├── UnavailableError  75  a scheduler or a remote store can't be reached
    └── StoppedError      128 + n, ended by signal n

Every message reads: what must hold, what was got, what would do.
"""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import Any, ClassVar, Self

# What a URL may hold that is nobody's business, in whichever link of a chain: who asks and with
# what password, even one that cuts the host short, and what follows the path.
SECRETS = re.compile(
    r"(?<=://)(?:[^\s/'\"@]*?|[^\s/'\"@:\[]*:(?!\d+(?:[\s/'\",;?#]|$))[^\s'\"]*)(?:@|%40)"
    r"|(?<=[^\s'\"])[?#;](?=[^\s'\"])[^\s'\"]*"
)
URL = re.compile(r"[^\s'\"]*://[^\s'\"]*")


def without_secrets(text: str) -> str:
    """Leave out of the URLs in a text what lets someone in.

    >>> without_secrets("simplecache::http://me:secret@host/a.zarr?token=1 must exist")
    'simplecache::http://host/a.zarr must exist'
    """
    return URL.sub(lambda found: SECRETS.sub("", found[0]), text)


def command_line(*words: str) -> str:
    """Say what to type, for between single marks, hence in double ones where a word needs some.

    >>> print(command_line("import", "my cells.tif", "cells.zarr"))
    unetkit import "my cells.tif" cells.zarr
    """

    def quoted(word: str) -> str:
        safest = shlex.quote(word)
        return safest if safest == word or set(word) & set('"$`\\!') else f'"{word}"'

    return " ".join(["unetkit", *map(quoted, words)])


class UnetkitError(Exception):
    """Anything that the command line turns into one sentence and an exit code."""

    code: ClassVar[int] = 1

    def __str__(self) -> str:
        """Say what is wrong, without what a URL may hold of passwords."""
        return without_secrets(super().__str__())

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this error."""
        return self.code


class UsageError(UnetkitError, ValueError):
    """An option or its value can't be used."""

    code = 2


class InputError(UnetkitError, ValueError):
    """Data or a model file is damaged or unsuitable."""

    code = 3


class MissingError(InputError, FileNotFoundError):
    """There is nothing at a path."""

    def __new__(cls, *args: object) -> Self:
        """Make it as the operating system's errors are made.

        ValueError's own way comes first in line and can't make one, which shows only where an
        error is rebuilt after its travel from another process.
        """
        return FileNotFoundError.__new__(cls, *args)


class LabelError(InputError):
    """Labels are not what they are said to be."""


class OutputError(UnetkitError, FileExistsError):
    """The output exists, is the input, or is a partial made with other settings."""

    code = 4


class ResourceError(UnetkitError, RuntimeError):
    """Disk, memory, workers, plugins or an optional dependency fall short."""

    code = 5


class OutOfMemoryError(ResourceError):
    """Memory falls short of what is in work; less at a time may fit."""


class NonFiniteError(UnetkitError, ArithmeticError):
    """NaN or Inf in the input or in the loss."""

    code = 6


class CheckError(UnetkitError, RuntimeError):
    """A check that was asked for did not hold."""

    code = 7


class UnavailableError(UnetkitError, ConnectionError):
    """A scheduler or a remote store can't be reached now."""

    code = 75


class StoppedError(UnetkitError, RuntimeError):
    """A signal, by its number, ended the work at a safe place; the message says how to go on."""

    def __init__(self, message: str, *, signal: int) -> None:
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class without `signal` in the process that unpickles it.
        return partial(type(self), signal=self.signal), self.args

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it."""
        return 128 + self.signal


# What these were called before; plugins may import the old names.
SurroundingsError = ResourceError
NumbersError = NonFiniteError
TryAgainError = UnavailableError
