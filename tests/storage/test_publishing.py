"""Where there is no rename an output still appears complete: its root document comes last."""

import numpy as np
import pytest

from unetkit.errors import InputError, OutputError, UsageError
from unetkit.storage import atomic, urls
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image
from unetkit.storage.outputs import check_output, is_there, partial_url, staged
from unetkit.storage.urls import exists


def make(url, value=1):
    array = create_image(url, shape=(8, 4), axes="yx", dtype=np.uint8, chunk=4)
    array.write(0, 0, 0, np.full((1, 8, 4), value, np.uint8))


def value_of(url):
    return int(open_image(url).data.read(0, 0, 8, 0, 4).max())


def test_an_output_appears_complete_and_its_partial_goes(bucket):
    url = f"{bucket}/out.zarr"
    with staged(url) as partial:
        assert partial == f"{bucket}/.out.zarr.unetkit-partial"
        make(partial)
        assert not exists(url)
    assert value_of(url) == 1
    assert urls.children(bucket) == ["out.zarr"]
    with pytest.raises(OutputError, match="add --overwrite to replace it"):
        check_output(url)
    with staged(url, overwrite=True) as partial:
        make(partial, 2)
        assert value_of(url) == 1
    assert value_of(url) == 2


class CutError(Exception):
    """Ends a publishing as a power cut would."""


@pytest.mark.parametrize("calls", range(8))
@pytest.mark.parametrize("replaces", [False, True])
def test_a_publishing_that_is_cut_off_leaves_nothing_to_be_read(
    tmp_path, monkeypatch, calls, replaces
):
    url = f"memory://{tmp_path.name}/out.zarr"
    partial = partial_url(url)
    if replaces:
        make(url, 1)
    make(partial, 2)
    left = calls

    def cut(patch, act):
        real = getattr(urls, act)

        def acting(url, *rest):
            nonlocal left
            if left == 0:
                raise CutError
            left -= 1
            real(url, *rest)

        patch.setattr(urls, act, acting)

    with monkeypatch.context() as patch:
        for act in ("write", "copy", "remove"):
            cut(patch, act)
        try:
            atomic.publish(partial, url)
            ended = True
        except CutError:
            ended = False
    if not exists(url) or not is_there(url):
        with pytest.raises(InputError):
            open_image(url)
        check_output(url)  # what is there is ours to go on with
    else:
        assert value_of(url) in ({1, 2} if replaces else {2})
    if not ended and exists(partial):
        atomic.publish(partial, url)
        ended = True
    assert ended or calls > 0
    assert value_of(url) == 2
    assert not atomic.is_half_there(url)


def test_foreign_objects_are_never_replaced(bucket):
    urls.write(f"{bucket}/thesis/draft.docx", b"years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            check_output(f"{bucket}/thesis", overwrite=overwrite)
    assert urls.files_below(bucket) == ["thesis/draft.docx"]


def test_an_output_that_meets_its_input_is_refused():
    source = "s3://bucket/data/in.zarr"
    for output in (source, f"{source}/", f"{source}/out.zarr", "s3://bucket/data"):
        with pytest.raises(OutputError, match="must lie apart"):
            check_output(output, inputs=[source])


def test_nothing_is_written_to_a_website():
    with pytest.raises(UsageError, match="where one can write"):
        check_output("https://host/out.zarr")
