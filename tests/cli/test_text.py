from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.cli.tables import safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cells[dapi,gfp].ome.zarr", "cells[dapi,gfp].ome.zarr"),
        ("img[/].zarr", "img[/].zarr"),
        (":smile: größe µm 細胞", ":smile: größe µm 細胞"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("a\x9b2Jb", "a\\x9b2Jb"),
        ("gnp.\u202ezarr", "gnp.\\u202ezarr"),
        ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        ("byte \udcff", "byte \\udcff"),
        ("line\u2028break", "line\\u2028break"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_a_name_is_shown_as_text(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.text())
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    left = {unicodedata.category(character) for character in safe(text)} & {"Cc", "Cs", "Zl", "Zp"}
    assert not left
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in safe(text))


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_harmless_names_are_left_alone(text: str) -> None:
    assert safe(text) == text
