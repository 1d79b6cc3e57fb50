"""What passes by itself is tried again, a few times; all else is said at once."""

import errno

import pytest

from unetkit.storage import retry


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0, 0.0))


class Flaky:
    """Fails some times before it succeeds."""

    def __init__(self, times, number):
        self.left, self.number, self.calls = times, number, 0

    def __call__(self):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise OSError(self.number, "refused")
        return "done"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_what_passes_is_tried_again(number, times):
    flaky = Flaky(times, number)
    with retry.count_attempts() as tries:
        assert retry.retrying(flaky) == "done"
    assert (flaky.calls, tries) == (times + 1, [times])


def test_what_stays_is_raised_after_four_tries():
    flaky = Flaky(99, errno.EIO)
    with pytest.raises(OSError, match="refused"):
        retry.retrying(flaky)
    assert flaky.calls == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EDQUOT, None])
def test_what_does_not_pass_is_raised_at_once(number):
    flaky = Flaky(1, number)
    with pytest.raises(OSError, match="refused"):
        retry.retrying(flaky)
    assert flaky.calls == 1


def test_counts_of_two_blocks_do_not_mix():
    with retry.count_attempts() as outer:
        retry.retrying(Flaky(1, errno.EIO))
        with retry.count_attempts() as inner:
            retry.retrying(Flaky(2, errno.EIO))
        retry.retrying(Flaky(1, errno.EIO))
    assert (outer, inner) == ([2], [2])
    assert retry.retrying(Flaky(1, errno.EIO)) == "done"
