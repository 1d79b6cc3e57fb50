"""Paths and URLs: joined, kept inside their store, read and written alike wherever they lie."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError, OutputError, ResourceError, UnavailableError, UsageError
from unetkit.storage import urls
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


NOWHERE = "http://127.0.0.1:1/slide.zarr"


@pytest.fixture(params=["s3", "memory"])
def store(request, tmp_path):
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    return f"memory://{tmp_path.name}"


def test_objects_are_written_read_listed_copied_and_removed(store):
    url = f"{store}/a"
    assert not urls.exists(url)
    assert urls.children(url) == urls.files_below(url) == []
    for name in ("x/1", "x/2", "y"):
        urls.write(f"{url}/{name}", f"<{name}>".encode())
    assert urls.exists(url)
    assert not urls.is_file(url)
    assert urls.is_file(f"{url}/y")
    assert urls.children(url) == ["x", "y"]
    assert urls.files_below(url) == ["x/1", "x/2", "y"]
    assert urls.bytes_on_disk(url) == 13
    assert urls.read(f"{url}/x/1") == b"<x/1>"
    assert urls.read(f"{url}/x/1", stop=2) == b"<x"
    assert urls.read(f"{url}/x/1", stop=99) == b"<x/1>"
    urls.copy(url, f"{store}/b", ["x/2", "y"])
    assert urls.files_below(f"{store}/b") == ["x/2", "y"]
    urls.copy(f"{url}/y", f"{store}/z", [""])
    assert urls.read(f"{store}/z") == b"<y>"
    urls.remove(url, ["x/1"])
    assert urls.files_below(url) == ["x/2", "y"]
    urls.remove(url)
    assert not urls.exists(url)
    urls.remove(url)


def test_a_new_object_is_never_laid_over_another(store):
    urls.write(f"{store}/lock", b"1", new=True)
    with pytest.raises(FileExistsError):
        urls.write(f"{store}/lock", b"2", new=True)
    assert urls.read(f"{store}/lock") == b"1"
    urls.write(f"{store}/lock", b"2")
    assert urls.read(f"{store}/lock") == b"2"


def test_the_store_itself_refuses_a_second_creation(bucket):
    # What was not there a moment ago: nothing but the store can tell.
    filesystem, path = urls.file_system(f"{bucket}/lock")
    filesystem.pipe_file(path, b"1", mode="create")
    with pytest.raises(FileExistsError):
        filesystem.pipe_file(path, b"2", mode="create")


def test_what_others_write_is_seen_at_once(bucket):
    import s3fs

    assert urls.children(bucket) == []
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    other.pipe_file(f"{bucket}/new".removeprefix("s3://"), b"1")
    assert urls.children(bucket) == ["new"]


def test_a_missing_bucket_is_named(bucket):
    assert not urls.exists(f"{bucket}-none/a")
    with pytest.raises(FileNotFoundError):
        urls.read(f"{bucket}-none/a")
    with pytest.raises(OutputError, match="create the bucket first"):
        urls.write(f"{bucket}-none/a", b"1")


def test_a_website_is_read(tmp_path, website):
    (tmp_path / "a").write_bytes(b"0123456789")
    assert urls.read(f"{website}/a") == b"0123456789"
    # This server knows no ranges and sends the whole file.
    assert urls.read(f"{website}/a", stop=4) == b"0123"
    assert urls.exists(f"{website}/a")
    assert not urls.exists(f"{website}/b")
    with pytest.raises(FileNotFoundError):
        urls.read(f"{website}/b")


@pytest.mark.parametrize("look", [urls.exists, urls.read])
def test_a_server_that_does_not_answer_is_not_an_empty_one(look):
    with pytest.raises(UnavailableError, match="must answer") as caught:
        look(NOWHERE)
    assert caught.value.exit_code == 75


def test_a_store_that_does_not_let_us_in_is_named(bucket, monkeypatch):
    import s3fs

    urls.write(f"{bucket}/a", b"1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ResourceError, match="check your credentials") as caught:
        urls.read(f"{bucket}/a")
    assert caught.value.exit_code == 5
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "url",
    [
        "https://me:swordfish@host/slide.zarr",
        "s3://AKIA:swordfish@bucket/slide.zarr",
        "https://host/slide.zarr?X-Amz-Signature=swordfish",
        "HTTPS://host/slide.zarr?token=swordfish",
        "simplecache::https://host/slide.zarr?token=swordfish",
        "zip://slide.zarr::https://me:swordfish@host/all.zip",
        "zip://slide.zarr::simplecache::s3://AKIA:swordfish@bucket/all.zip",
        "az://container/slide.zarr?sv=1&sig=swordfish",
        "https://host/slide.zarr#token=swordfish",
        "https://host/slide.zarr;token=swordfish",
        "https://me:sword/swordfish@host/slide.zarr",
        "https://me:swordfish%40host/slide.zarr",
        "https://me:a swordfish@host/slide.zarr",
        "s3://swordfish@bucket/slide.zarr",
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(UsageError, match="must hold no password") as caught:
        urls.read(url)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host/a@b.zarr", "s3://bucket/a", "http://[::1]:80/a"])
def test_a_url_without_a_secret_is_said_as_it_is(url):
    assert str(InputError(f"{url} must be; {url}, it '{url}'?")).count(url) == 3


@pytest.mark.parametrize("url", ["zip://a::none.zip", "zip://zip://a", "reference://", "zip://::"])
def test_a_chain_that_leads_nowhere_gets_one_sentence(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be a URL that fsspec can open"):
        urls.read(f"{url}/zarr.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["nonsense://host/a", "s4://bucket/a"])
def test_an_unknown_kind_of_url_is_named(url):
    with pytest.raises(ResourceError, match="fsspec can open"):
        urls.read(url)


def test_a_missing_package_is_named(monkeypatch):
    import_module("fsspec.registry")
    loaded = sys.modules["fsspec.registry"]._registry
    for name in ("s3", "s3a"):
        monkeypatch.delitem(loaded, name, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ResourceError, match=r"pip install 'unetkit\[s3\]'") as caught:
        urls.read("s3://bucket/a")
    assert caught.value.exit_code == 5


def test_a_link_in_a_loop_is_said_where_it_is_read_or_replaced(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    loop = str(tmp_path / "loop")
    assert not list(urls.colliding(loop, [str(tmp_path / "other")]))
    with pytest.raises(InputError, match=r"must be readable, got: .*symbolic links"):
        urls.read_small(urls.inside(str(tmp_path), "loop", what="a level's path"), limit=9)
