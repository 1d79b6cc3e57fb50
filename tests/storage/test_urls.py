"""Paths and URLs as text: joined, kept inside their store, and never created by looking."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError
from unetkit.storage.urls import (
    base_name,
    bytes_on_disk,
    children,
    exists,
    inside,
    is_segment,
    join,
    missing,
    read_small,
    stem,
)

ESCAPES = [
    "../../x",
    "/etc",
    "a/../../b",
    "http://host/x",
    "file:///etc",
    "..\\x",
    "x\u0000",
    "",
    ".",
    "~root",
    "__private",
    7,
    None,
    ["a"],
]


def test_urls_keep_their_double_slash():
    assert join("s3://bucket/a.zarr/", "labels", "x") == "s3://bucket/a.zarr/labels/x"
    assert base_name("s3://bucket/a.ome.zarr/") == "a.ome.zarr"
    assert stem("s3://bucket/a.ome.zarr/") == "a"


@pytest.mark.parametrize("relative", ESCAPES)
def test_a_path_from_metadata_never_leads_out(relative, tmp_path):
    with pytest.raises(InputError, match="must be a path inside it"):
        inside(str(tmp_path), relative, what="a label's name")


def test_a_link_out_of_the_store_is_refused(tmp_path):
    (tmp_path / "store" / "real").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    store = str(tmp_path / "store")
    assert inside(store, "real", what="a path") == join(store, "real")
    with pytest.raises(InputError, match="must be a path inside it"):
        inside(store, "link", what="a path")


@settings(deadline=None)
@given(st.text(max_size=20))
def test_a_segment_stays_one_folder_below(name):
    if is_segment(name):
        path = Path("/store", name)
        assert path.parent == Path("/store")
        assert ".." not in path.parts


def test_looking_creates_nothing(tmp_path):
    nowhere = str(tmp_path / "no.zarr")
    assert read_small(join(nowhere, "zarr.json"), limit=10) is None
    assert not exists(nowhere)
    assert children(nowhere) == []
    assert list(tmp_path.iterdir()) == []


def test_a_long_document_is_refused(tmp_path):
    (tmp_path / "zarr.json").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="at most 10 bytes"):
        read_small(str(tmp_path / "zarr.json"), limit=10)
    assert read_small(str(tmp_path / "zarr.json"), limit=11) == b"x" * 11


def test_sizes_add_up_without_following_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    (tmp_path / "c").write_bytes(b"123")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    link = (tmp_path / "a" / "loop").lstat().st_size
    assert bytes_on_disk(str(tmp_path)) == 8 + link
    assert bytes_on_disk(str(tmp_path / "c")) == 3


def test_a_misspelt_name_is_answered_with_the_near_one(tmp_path):
    (tmp_path / "slide.zarr").mkdir()
    assert "slide.zarr'?" in str(missing(str(tmp_path / "slid.zarr")))
    assert "check the path" in str(missing(str(tmp_path / "quite-else")))
