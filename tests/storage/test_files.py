"""Outputs appear whole by rename; inputs and foreign files are never touched."""

import os
from pathlib import Path

import numpy as np
import pytest

from unetkit.errors import OutputError, ResourceError, UsageError
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image
from unetkit.storage.outputs import (
    check_local,
    check_output,
    output_name,
    partial_url,
    publish,
    staged,
)


def make(url, value=1):
    array = create_image(url, shape=(4, 4), axes="yx", dtype=np.uint8)
    array.write(0, 0, 0, np.full((1, 4, 4), value, np.uint8))


def tree(folder):
    """Everything below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_an_output_appears_complete(tmp_path):
    url = str(tmp_path / "out.zarr")
    with staged(url) as partial:
        assert partial == str(tmp_path / ".out.zarr.unetkit-partial")
        assert not Path(partial).exists()
        make(partial)
        assert not Path(url).exists()
    assert (open_image(url).data.read(0, 0, 4, 0, 4) == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    url = str(tmp_path / "out.zarr")
    make(url)
    before = tree(tmp_path)

    def fail():
        with staged(url, overwrite=True) as partial:
            make(partial, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert tree(tmp_path) == before


def test_an_earlier_output_is_replaced_only_when_asked(tmp_path):
    url = str(tmp_path / "out.zarr")
    make(url)
    with pytest.raises(OutputError, match="add --overwrite to replace it"), staged(url):
        pytest.fail("the output exists")
    with staged(f"{url}/", overwrite=True) as partial:
        make(partial, 2)
    assert (open_image(url).data.read(0, 0, 4, 0, 4) == 2).all()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_leftover_partial_is_removed(tmp_path):
    url = str(tmp_path / "out.zarr")
    make(partial_url(url), 7)
    with staged(url) as partial:
        assert not Path(partial).exists()
        make(partial, 2)
    assert (open_image(url).data.read(0, 0, 4, 0, 4) == 2).all()


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", ["folder", "file.txt", "foreign.zarr", "link.zarr", "empty", "."])
def test_foreign_things_are_never_replaced(name, overwrite, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.docx").write_text("years of work")
    (tmp_path / "file.txt").write_text("unetkit")
    (tmp_path / "foreign.zarr").mkdir()
    (tmp_path / "foreign.zarr" / "zarr.json").write_text('{"zarr_format":3,"node_type":"group"}')
    make(str(tmp_path / "ours.zarr"))
    (tmp_path / "link.zarr").symlink_to(tmp_path / "ours.zarr")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    url = f"{tmp_path}/{name}"
    words = "must be an earlier output" if overwrite else "must not exist yet"
    with pytest.raises(OutputError, match=words):
        check_output(url, overwrite=overwrite)
    with pytest.raises(OutputError, match=words), staged(url, overwrite=overwrite):
        pytest.fail("something foreign is there")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "output",
    [
        "data/in.zarr",
        "data/in.zarr/",
        "data/../data/in.zarr",
        "link/in.zarr",
        "in-link.zarr",
        "data/in.zarr/out.zarr",
        "data/in.zarr/new/out.zarr",
        "in-link.zarr/out.zarr",
        "data",
        "data/.",
        ".",
    ],
)
def test_an_output_that_meets_its_input_is_refused(output, tmp_path):
    (tmp_path / "data").mkdir()
    make(str(tmp_path / "data" / "in.zarr"))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "in-link.zarr").symlink_to(tmp_path / "data" / "in.zarr")
    before = tree(tmp_path)
    source = str(tmp_path / "data" / "in.zarr")
    with pytest.raises(OutputError, match="must lie apart from its input"):
        check_output(f"{tmp_path}/{output}", inputs=[source], overwrite=True)
    assert tree(tmp_path) == before


def test_neighbours_do_not_collide(tmp_path):
    make(str(tmp_path / "in.zarr"))
    check_output(str(tmp_path / "in.zarr2"), inputs=[str(tmp_path / "in.zarr"), "s3://b/in.zarr"])


def test_a_missing_folder_is_not_created(tmp_path):
    with pytest.raises(OutputError, match="must exist, got none"):
        check_output(str(tmp_path / "no" / "out.zarr"))
    assert list(tmp_path.iterdir()) == []


def test_a_relative_name_lies_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with staged("out.zarr") as partial:
        assert partial == ".out.zarr.unetkit-partial"
        make(partial)
    assert (tmp_path / "out.zarr").is_dir()


def test_where_no_folder_can_be_made_a_sentence_says_so(tmp_path):
    # A name that is nearly as long as names may be leaves no room for that of the partial.
    with (
        pytest.raises(ResourceError, match="must be writable, got") as caught,
        staged(str(tmp_path / f"{'a' * 240}.zarr")),
    ):
        pytest.fail("nothing can be made here")
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    with staged(str(tmp_path / f"{'a' * 200}.zarr")) as partial:
        make(partial)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_a_file_system_that_lets_nobody_make_a_folder_is_told_of():
    # Only the right to write is asked for before.
    if not os.access("/proc", os.W_OK):
        pytest.skip("only the administrator seems to be allowed to write there")
    with pytest.raises(ResourceError, match=r"/proc/\S+ must be writable"), staged("/proc/x"):
        pytest.fail("nothing can be made here")


def test_an_output_that_appeared_meanwhile_is_kept(tmp_path):
    url = str(tmp_path / "out.zarr")

    def race():
        with staged(url) as partial:
            make(partial, 2)
            Path(url).mkdir()

    with pytest.raises(OutputError, match="must not exist yet"):
        race()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_rename_that_fails_puts_the_old_output_back(tmp_path, monkeypatch):
    url, partial = str(tmp_path / "out.zarr"), str(tmp_path / "partial")
    make(url)
    with pytest.raises(ResourceError, match="must be writable"):
        publish(partial, url, overwrite=True)
    assert (open_image(url).data.read(0, 0, 4, 0, 4) == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_all_is_on_the_disk_before_the_name_appears(tmp_path, monkeypatch):
    url, seen = str(tmp_path / "out.zarr"), []
    monkeypatch.setattr(os, "sync", lambda: seen.append(Path(url).exists()))
    with staged(url) as partial:
        make(partial)
    assert seen == [False]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("slide.zarr", "slide.prediction.zarr"),
        ("slide.zarr/", "slide.prediction.zarr"),
        ("a/slide.ome.zarr", "a/slide.prediction.zarr"),
        ("/a/slide", "/a/slide.prediction.zarr"),
        ("../slide.v2.zarr", "../slide.v2.prediction.zarr"),
    ],
)
def test_an_output_is_named_after_its_input(source, wanted):
    assert output_name(source, ".prediction.zarr") == wanted


@pytest.mark.parametrize("source", ["s3://bucket/slide.zarr", ".", "..", "a/..", "/", ""])
def test_an_input_without_a_name_needs_one_for_the_output(source):
    with pytest.raises(UsageError, match=r"add -o NAME\.prediction\.zarr"):
        output_name(source, ".prediction.zarr")


def test_an_output_is_not_put_into_the_store_of_its_input(tmp_path):
    DatasetWriter(str(tmp_path / "data.zarr"))
    with pytest.raises(UsageError, match="inside a store"):
        output_name(str(tmp_path / "data.zarr" / "a01"), ".prediction.zarr")


def test_work_that_needs_a_disk_is_done_on_one():
    check_local("data/model.safetensors")
    with pytest.raises(UsageError, match="must be a path on this machine, got s3://bucket/m"):
        check_local("s3://bucket/m.safetensors")
