"""A disk that fails for a moment harms nothing, one that stays so is named, and so is a chunk."""

import errno
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
import zarr

from unetkit.errors import InputError, ResourceError, UnetkitError
from unetkit.storage import retry
from unetkit.storage.image_writer import create_image
from unetkit.storage.nodes import ArrayNode, read_node
from unetkit.storage.planes import plane_array

IMAGE = np.arange(1, 64 * 40 + 1, dtype=np.uint16).reshape(1, 64, 40)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.0, 0.0, 0.0))


@pytest.fixture
def data(tmp_path):
    data = create_image(str(tmp_path / "a.zarr"), shape=(64, 40), axes="yx", dtype="u2", chunk=32)
    data.write(0, 0, 0, IMAGE)
    return data


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EINTR])
@pytest.mark.parametrize("times", [1, 2])
def test_a_read_that_fails_for_a_moment_is_tried_again(faults, data, number, times):
    with faults.at("open", "/c/1/0", number, times=times), retry.count_attempts() as tries:
        np.testing.assert_array_equal(data.read(0, 0, 64, 0, 40), IMAGE)
    assert tries == [times]


@pytest.mark.parametrize("event", ["open", "os.rename"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_write_that_fails_for_a_moment_is_tried_again(faults, data, event, times):
    with faults.at(event, "/c/1/1", errno.EIO, times=times), retry.count_attempts() as tries:
        data.write(0, 0, 0, IMAGE + 1)
    assert tries == [times]
    np.testing.assert_array_equal(data.read(0, 0, 64, 0, 40), IMAGE + 1)
    assert not list(Path(data.url).rglob("*.partial"))


def test_a_disk_that_stays_bad_is_named(faults, data):
    with faults.at("open", "/c/1/0", errno.EIO):
        with pytest.raises(ResourceError, match="4 times in a row; see to the disk") as caught:
            data.read(0, 0, 64, 0, 40)
        # The other chunks are as good as ever.
        np.testing.assert_array_equal(data.read(0, 0, 32, 0, 40), IMAGE[:, :32])
    assert caught.value.exit_code == 5
    words = "writable"
    with faults.at("open", "/c/1/0", errno.EIO), pytest.raises(ResourceError, match=words):
        data.write(0, 0, 0, IMAGE)


def test_what_may_not_be_read_is_named_with_its_pixels(faults, data):
    words = r"chunk c/1/0 \(rows 32:64, columns 0:32\) must be readable, got PermissionError"
    with faults.at("open", "/c/1/0", errno.EACCES), pytest.raises(InputError, match=words):
        data.read(0, 0, 64, 0, 40)


def test_a_stack_s_chunk_is_named_by_its_rows(tmp_path):
    url = str(tmp_path / "stack.zarr")
    zarr.create_array(url, shape=(3, 8, 8), chunks=(1, 4, 4), dtype="u1")[:] = 7
    data = plane_array(read_node(url), axes="yx", has_channels=True, item=2)
    Path(url, "c", "2", "1", "0").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"chunk c/2/1/0 \(rows 4:8, columns 0:4\)"):
        data.read(0, 0, 8, 0, 8)
    assert (replace(data, item=1).read(0, 0, 8, 0, 8) == 7).all()


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


class Busy(SimpleHTTPRequestHandler):
    """A server that gives its answers to chunks, and the files of a folder else."""

    answers: ClassVar[list[int]] = []

    def do_GET(self):
        if "/c/" in self.path and self.answers:
            self.send_error(self.answers.pop(0))
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(data, tmp_path):
    """Serve the image over HTTP, with answers that chunks get first."""
    Busy.answers.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Busy, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield replace(data, url=f"{address}/a.zarr/0"), Busy.answers
        server.shutdown()
        thread.join()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(served):
    there, answers = served
    answers += [503, 429, 500, 502]
    with retry.count_attempts() as tries:
        np.testing.assert_array_equal(there.read(0, 0, 64, 0, 40), IMAGE)
    assert tries[0] > 0
    assert not answers


@pytest.mark.parametrize(("answer", "code"), [(503, 75), (429, 75), (500, 75), (403, 5)])
def test_a_server_that_stays_busy_is_no_damaged_chunk(answer, code, served):
    there, answers = served
    answers += [answer] * 99
    with pytest.raises(UnetkitError, match=r"must (be readable|let you in), got") as caught:
        there.read(0, 0, 64, 0, 40)
    assert caught.value.exit_code == code
    assert "restore" not in str(caught.value)


def test_a_server_that_sends_whole_files_only_is_named_for_a_sharded_array(tmp_path, website):
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    url = str(tmp_path / "sharded")
    zarr.create_array(url, data=array, chunks=(2, 2), shards=(4, 4))
    for place in (url, f"{website}/sharded"):
        node = read_node(place)
        assert isinstance(node, ArrayNode)
        there = plane_array(node, axes="yx", has_channels=False)
        if place == url:
            np.testing.assert_array_equal(there.read(0, 0, 8, 0, 8), array)
            continue
        with pytest.raises(ResourceError, match=rf"the server of {website}.* must send parts"):
            there.read(0, 0, 8, 0, 8)
