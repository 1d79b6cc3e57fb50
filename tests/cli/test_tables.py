from __future__ import annotations

import io

from rich.console import Console

from unetkit.cli.tables import details, table, value


def shown(*parts: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_values_come_first_and_parts_are_indented() -> None:
    document = {"contract": {"step": 16, "exact": True}, "model": "unet", "scores": {}}
    assert [line.rstrip() for line in shown(*details(document)).splitlines()] == [
        "model   unet",
        "scores  -",
        "contract",
        "  step   16",
        "  exact  yes",
    ]


def test_a_list_of_mappings_is_a_table_with_every_column() -> None:
    text = shown(*details({"samples": [{"name": "a", "objects": 3}, {"name": "b", "source": "x"}]}))
    assert "name" in text
    assert "objects" in text
    assert "source" in text
    assert text.index("a ") < text.index("b ")


def test_names_are_escaped_and_markup_stays_text() -> None:
    text = shown(*details({"na[/]me": "img[/].zarr \x1b[2J", "rows": [{"[red]": "\u202ex"}]}))
    assert "na[/]me" in text
    assert "img[/].zarr \\x1b[2J" in text
    assert "[red]" in text
    assert "\\u202ex" in text
    assert "\x1b" not in text


def test_one_column_is_enough() -> None:
    assert shown(*details({"a": 1, "b": {"c": "long text"}, "d": [{"e": 1, "f": 2}]}), width=1)


def test_numbers_stand_right_and_words_left() -> None:
    lines = shown(table([{"n": 7, "w": "long word"}, {"n": 1234, "w": "x"}])).splitlines()
    rows = [line for line in lines if "7" in line or "1234" in line]
    assert rows[0].index("7") == rows[1].index("4")
    assert rows[0].index("l") == rows[1].index("x")


def test_values_say_what_is_not_there() -> None:
    assert value(None) == "-"
    assert value([]) == "-"
    assert value(0.5) == "0.5"
    assert value({"y": 0.25, "x": 0.25}) == "y 0.25, x 0.25"
