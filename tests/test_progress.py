import time

import pytest

from unetkit.errors import UsageError
from unetkit.progress import (
    SILENT,
    Progress,
    Silent,
    Together,
    format_bytes,
    format_duration,
    noted_if_slow,
    parse_size,
)


def test_silence_takes_every_call_and_says_nothing(capsys):
    watcher: Progress = SILENT
    watcher.start("tiles", total=2)
    watcher.advance()
    watcher.advance(2, status="loss 0.3")
    watcher.note("A sentence.")
    assert capsys.readouterr() == ("", "")


def test_many_stages_can_be_one():
    heard = []

    class Teller(Silent):
        def start(self, what, *, total):
            heard.append((what, total))

        def advance(self, parts=1, *, status=""):
            heard.append((parts, status))

        def note(self, text):
            heard.append(text)

    together = Together(Teller(), "measure", total=3)
    for parts in (1, 2):
        together.start("part", total=parts)
        together.advance(parts, status="now")
    together.note("A sentence.")
    assert heard == [("measure", 3), (1, "now"), (2, "now"), "A sentence."]


class Listener(Silent):
    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append(text)


def test_what_takes_long_is_said_once_and_what_does_not_never():
    listener = Listener()
    with noted_if_slow(listener, "waiting"):
        pass
    assert listener.heard == []
    with noted_if_slow(listener, "waiting", patience=0.01):
        while not listener.heard:
            time.sleep(0.01)
    assert listener.heard == ["waiting"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_a_time_is_said_as_a_person_would(seconds, said):
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (2**20, "1.00 MiB"),
        (1577819953, "1.47 GiB"),
        (2**41, "2.00 TiB"),
        (2**80, "1073741824.00 PiB"),
    ],
)
def test_an_amount_is_said_in_the_units_of_max_memory(size, said):
    assert format_bytes(size) == said


@pytest.mark.parametrize("text", ["", "8 gigs", "-1G", "0", "1e9", "G", "1.5.2G", "9" * 400])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(UsageError, match="max-memory must be an amount such as 8G"):
        parse_size(text)


def test_amounts_are_powers_of_1024():
    assert parse_size("1300M") == 1300 * 2**20
    assert [parse_size(t) for t in ("1k", "1KB", "1 KiB", "1024", "1024B")] == [1024] * 5
    assert parse_size("0.5T") == 2**39
