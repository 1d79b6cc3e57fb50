import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.conftest import python
from unetkit.cli import console
from unetkit.cli.console import Bar, Lines
from unetkit.cli.tables import details
from unetkit.progress import SILENT


@dataclass(frozen=True)
class Report:
    output: str

    def to_dict(self):
        return {"output": self.output, "samples": 2}


def run(code, **options):
    """Run a line of Python in a process of its own, so that its streams are real."""
    program = f"from unetkit.cli import console, tables\n{code}\n"
    return python("-c", program, text=False, **options)


def test_a_path_is_all_that_stands_on_stdout(capfdbinary):
    console.written(Report("a b[red].zarr"), json=False, quiet=False)
    assert capfdbinary.readouterr() == (b"a b[red].zarr\n", b"samples 2\n")
    console.written(Report("a b[red].zarr"), json=False, quiet=True)
    assert capfdbinary.readouterr() == (b"a b[red].zarr\n", b"")


def test_a_path_that_is_piped_keeps_its_bytes():
    strange = b"x\x1b[2J\xff\n.zarr"
    done = run(f"console.emit_path({os.fsdecode(strange)!r})")
    assert done.stdout == strange + b"\n"


def test_json_is_one_strict_object(capsys):
    console.written(Report("größe \x1b.zarr"), json=True, quiet=False)
    out = capsys.readouterr().out
    assert json.loads(out) == {"output": "größe \x1b.zarr", "samples": 2}
    assert out.isascii()
    assert "\x1b" not in out


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_holds_no_number_that_json_does_not_have(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        console.emit_json({"score": number})


def test_what_is_found_is_laid_out_or_json(capsys):
    console.found({"kind": "image", "name": "[x]\x1b"}, json=False, layout=details)
    assert capsys.readouterr().out == "kind  image\nname  [x]\\x1b\n"
    console.found({"kind": "image"}, json=True, layout=details)
    assert json.loads(capsys.readouterr().out) == {"kind": "image"}


def test_a_table_that_is_piped_is_not_folded():
    long = "word " * 100
    done = run(f"console.found({{'a': {long!r}}}, json=False, layout=tables.details)")
    assert done.stdout.decode().splitlines() == [f"a  {long}".rstrip()]


def test_an_error_is_one_line_on_stderr(capsys):
    console.fail("tile must be\na multiple of 16, got [red]\x1b[2J" + " and so on" * 40)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: tile must be a multiple of 16, got [red]\\x1b[2J and so on")
    assert err.count("\n") == 1


def test_quiet_is_silent(capsys):
    with console.progress(quiet=True) as progress:
        assert progress is SILENT
        progress.note("nobody hears")
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr_and_tells_a_failure(capsys):
    def fail():
        with console.progress(quiet=False) as progress:
            progress.start("tiles", total=4)
            progress.advance(3)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capsys.readouterr() == ("", "tiles: 4 to do\ntiles: stopped after 3 of 4\n")


def test_a_reader_that_went_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = run("console.emit('x' * 100_000)", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_stdout_may_be_closed():
    shell = f"{sys.executable} -c \"from unetkit.cli import console; console.emit('x')\" >&-"
    done = subprocess.run(shell, shell=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_told_once():
    program = (
        "from unetkit.errors import ResourceError\n"
        "try:\n    console.emit('x')\n"
        "except ResourceError as error:\n    console.fail(str(error))\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = run(program, stdout=full)
    assert done.returncode == 0
    assert done.stderr.startswith(b"error: stdout must take the result, got 'No space left")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LANG": "C"}],
)
def test_any_encoding_will_do(environment):
    program = (
        "console.fail('größe 細胞')\n"
        "console.found({'größe': '細胞', 'rows': [{'µ': 1}]}, json=False, layout=tables.details)\n"
        "with console.progress(quiet=False) as progress:\n"
        "    progress.start('größe', total=1)\n"
        "    progress.note('細胞')\n"
    )
    done = run(program, env={"PATH": os.environ["PATH"], **environment})
    assert done.returncode == 0, done.stderr.decode()


def test_no_colour_holds():
    shell = "console.fail('x')"
    plain = run(shell, env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"})
    coloured = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    control = run(shell, env={**coloured, "FORCE_COLOR": "1", "TERM": "xterm"})
    assert b"31m" not in plain.stderr
    assert b"31m" in control.stderr


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def paper(*, width=80, terminal=False):
    plain = dict.fromkeys(("markup", "highlight", "emoji"), False)
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, **plain)


def text(sheet):
    return sheet.file.getvalue()


@pytest.fixture
def meter():
    """Return lines that are written, their clock, and what reads them."""
    sheet, clock = paper(), Clock()
    return Lines(sheet, clock=clock), clock, lambda: text(sheet).splitlines()


def test_lines_come_at_the_start_every_half_minute_and_at_the_end(meter):
    lines, clock, said = meter
    lines.start("training", total=100)
    for _ in range(100):
        clock.now += 1
        lines.advance(status="loss 0.5")
    lines.close(done=True)
    assert said() == [
        "training: 100 to do",
        "training: 30 of 100, loss 0.5, about 1 min 10 s left",
        "training: 60 of 100, loss 0.5, about 40 s left",
        "training: 90 of 100, loss 0.5, about 10 s left",
        "training: done in 1 min 40 s",
    ]


def test_what_was_done_before_does_not_make_the_rest_seem_short(meter):
    lines, clock, said = meter
    lines.start("training", total=100)
    lines.advance(50)
    for _ in range(30):
        clock.now += 1
        lines.advance()
    lines.close(done=False)
    assert said()[1] == "training: 80 of 100, about 20 s left"


def test_a_stage_that_turns_out_longer_goes_on_counting(meter):
    lines, clock, said = meter
    lines.start("training", total=60)
    for step in range(90):
        if step == 40:
            lines.expect(90)
        clock.now += 1
        lines.advance()
    lines.close(done=True)
    assert said() == [
        "training: 60 to do",
        "training: 30 of 60, about 30 s left",
        "training: 60 of 90, about 30 s left",
        "training: done in 1 min 30 s",
    ]
    sheet = paper(terminal=True)
    bar = Bar(sheet)
    bar.expect(3)
    bar.start("training", total=2)
    bar.advance()
    bar.expect(5)
    bar.advance()
    bar.close(done=False)
    assert "2/5" in text(sheet)


def test_a_first_part_that_is_slow_tells_how_long_the_others_take(meter):
    lines, clock, said = meter
    lines.start("tiles", total=3)
    clock.now += 40
    lines.advance()
    assert said()[1] == "tiles: 1 of 3, about 1 min 20 s left"


def test_a_new_stage_ends_the_one_before_and_a_failure_is_no_end(meter):
    lines, _, said = meter
    lines.start("reading", total=1)
    lines.start("writing", total=2)
    lines.advance()
    lines.close(done=False)
    assert said() == [
        "reading: 1 to do",
        "reading: done in 0 s",
        "writing: 2 to do",
        "writing: stopped after 1 of 2",
    ]


def test_work_without_stages_says_nothing(meter):
    lines, _, said = meter
    lines.advance(5)
    lines.close(done=True)
    assert said() == []


@pytest.mark.parametrize("width", [1, 2, 10, 40, 80, 200])
def test_a_bar_is_drawn_at_any_width(width):
    sheet = paper(width=width, terminal=True)
    bar = Bar(sheet)
    bar.start("predicting [/] \x1b[2J", total=3)
    bar.advance(2, status="loss [red] \x9b2J")
    bar.note("half [/way] \x1b]0;x\x07")
    bar.start("nothing to do", total=0)
    bar.close(done=True)
    shown = text(sheet)
    assert "\x1b[2J" not in shown.replace("\x1b[2K", "")
    assert "\x1b]0;" not in shown
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    ("width", "status", "seen"),
    [
        (60, "AP 0.50, best · loss 0.074", "AP 0.50, best · "),
        (80, "AP 0.50, best · loss 0.074", "AP 0.50, best · loss 0.074"),
        (80, "AP 0.50, old 0.45, new 0.55, best · loss", "AP 0.50, old 0.45, new 0.55, best"),
        (100, "AP 0.50, best · loss 0.074 · validating", "AP 0.50, best · loss 0.074 · validating"),
    ],
)
def test_a_bar_gives_way_to_a_status(width, status, seen):
    sheet = paper(width=width, terminal=True)
    bar = Bar(sheet)
    bar.start("training", total=1000)
    bar.advance(1000, status=status)
    bar.close(done=True)
    line = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text(sheet)).split("\r")[-1].split("\n")[0]
    assert seen in line
    assert line.count("━") > 1
    assert len(line) == width


def test_a_bar_is_full_after_success_and_only_then():
    full, short = paper(terminal=True), paper(terminal=True)
    for sheet, done in ((full, True), (short, False)):
        bar = Bar(sheet)
        bar.start("tiles", total=10)
        bar.advance(4)
        bar.close(done=done)
    assert "10/10" in text(full)
    assert "10/10" not in text(short)
    assert "4/10" in text(short).replace(" 4/10", "4/10")


@pytest.mark.parametrize("kind", [Bar, Lines])
def test_names_with_markup_or_commands_are_plain_text(kind):
    sheet = paper()
    meter = kind(sheet)
    meter.note("exp[control].zarr img[/].zarr [link=file:///etc]x[/link] :smile: \x1b[31m")
    assert text(sheet).strip() == (
        "exp[control].zarr img[/].zarr [link=file:///etc]x[/link] :smile: \\x1b[31m"
    )
