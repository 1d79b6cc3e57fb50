"""Texts made fit for a terminal: names that are harmless to print, times as a person says them."""

from __future__ import annotations

import unicodedata

# What Unicode calls control, format, surrogate, and separators of lines and paragraphs: it moves
# the cursor, turns the direction of writing, hides, or starts a command to the terminal.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# These two only join or part letters: Persian, Indic scripts and many emoji need them.
_JOINERS = "\u200c\u200d"


def safe(text: object) -> str:
    r"""Show a name from a file, an attribute or a message as text and nothing but text.

    Control characters, those that turn the direction of writing, and bytes that are no text
    appear as backslash escapes. Markup needs none: everything is printed with markup off.

    Examples
    --------
    >>> safe("a\x1b[2J.zarr")
    'a\\x1b[2J.zarr'
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE and character not in _JOINERS
        else character
        for character in str(text)
    )


def duration(seconds: float) -> str:
    """Say a time as a person would.

    Examples
    --------
    >>> duration(7.4), duration(125), duration(7380)
    ('7 s', '2 min 05 s', '2 h 03 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
