from __future__ import annotations

import io

import pytest
from rich.console import Console

from unetkit.cli.console import Bar, Lines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paper(*, width: int = 80, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        markup=False,
        highlight=False,
        emoji=False,
    )


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_lines_come_at_the_start_every_half_minute_and_at_the_end() -> None:
    console, clock = paper(), Clock()
    lines = Lines(console, clock=clock)
    lines.start("training", total=100)
    for _ in range(100):
        clock.now += 1
        lines.advance(status="loss 0.5")
    lines.close(done=True)
    assert text(console).splitlines() == [
        "training: 100 to do",
        "training: 30 of 100, loss 0.5, about 1 min 10 s left",
        "training: 60 of 100, loss 0.5, about 40 s left",
        "training: 90 of 100, loss 0.5, about 10 s left",
        "training: done in 1 min 40 s",
    ]


def test_what_was_done_before_does_not_make_the_rest_seem_short() -> None:
    console, clock = paper(), Clock()
    lines = Lines(console, clock=clock)
    lines.start("training", total=100)
    lines.advance(50)
    for _ in range(30):
        clock.now += 1
        lines.advance()
    lines.close(done=False)
    assert text(console).splitlines()[1] == "training: 80 of 100, about 20 s left"


def test_a_first_part_that_is_slow_tells_how_long_the_others_take() -> None:
    console, clock = paper(), Clock()
    lines = Lines(console, clock=clock)
    lines.start("tiles", total=3)
    clock.now += 40
    lines.advance()
    assert text(console).splitlines()[1] == "tiles: 1 of 3, about 1 min 20 s left"


def test_a_new_stage_ends_the_one_before_and_a_failure_is_no_end() -> None:
    console = paper()
    lines = Lines(console, clock=Clock())
    lines.start("reading", total=1)
    lines.start("writing", total=2)
    lines.advance()
    lines.close(done=False)
    assert text(console).splitlines() == [
        "reading: 1 to do",
        "reading: done in 0 s",
        "writing: 2 to do",
        "writing: stopped after 1 of 2",
    ]


def test_work_without_stages_says_nothing() -> None:
    console = paper()
    lines = Lines(console)
    lines.advance(5)
    lines.close(done=True)
    assert text(console) == ""


@pytest.mark.parametrize("width", [1, 2, 10, 40, 80, 200])
def test_a_bar_is_drawn_at_any_width(width: int) -> None:
    console = paper(width=width, terminal=True)
    bar = Bar(console)
    bar.start("predicting [/] \x1b[2J", total=3)
    bar.advance(2, status="loss [red] \x9b2J")
    bar.note("half [/way] \x1b]0;x\x07")
    bar.start("nothing to do", total=0)
    bar.close(done=True)
    shown = text(console)
    assert "\x1b[2J" not in shown.replace("\x1b[2K", "")
    assert "\x1b]0;" not in shown
    assert "\x9b" not in shown


def test_a_bar_is_full_after_success_and_only_then() -> None:
    full, short = paper(terminal=True), paper(terminal=True)
    for console, done in ((full, True), (short, False)):
        bar = Bar(console)
        bar.start("tiles", total=10)
        bar.advance(4)
        bar.close(done=done)
    assert "10/10" in text(full)
    assert "10/10" not in text(short)
    assert "4/10" in text(short).replace(" 4/10", "4/10")


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_names_with_markup_or_commands_are_plain_text(kind: type[Bar] | type[Lines]) -> None:
    console = paper()
    meter = kind(console)
    meter.note("exp[control].zarr img[/].zarr [link=file:///etc]x[/link] :smile: \x1b[31m")
    assert text(console).strip() == (
        "exp[control].zarr img[/].zarr [link=file:///etc]x[/link] :smile: \\x1b[31m"
    )
