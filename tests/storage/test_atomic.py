"""Files appear whole and follow no planted link; what killed jobs left goes, and nothing else."""

import json
import os
import stat
from pathlib import Path

import pytest
import zarr

from unetkit.errors import OutputError, ResourceError
from unetkit.storage.atomic import (
    half_removed,
    make_folder,
    recover,
    remove,
    sweep,
    write_bytes,
    write_json,
    write_jsons,
    write_text,
)
from unetkit.storage.nodes import plain
from unetkit.storage.urls import is_segment


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "wanted"), [(0o002, 0o664), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(mask, wanted, tmp_path):
    path = tmp_path / "a"
    before = os.umask(mask)
    try:
        write_bytes(str(path), b"old")
    finally:
        os.umask(before)
    assert mode(path) == wanted
    path.chmod(0o646)
    write_bytes(str(path), b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o646)
    assert names(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_planted_link_is_replaced_and_its_target_kept(tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"keep")
    (tmp_path / "out").symlink_to(target)
    write_bytes(str(tmp_path / "out"), b"new")
    assert target.read_bytes() == b"keep"
    assert not (tmp_path / "out").is_symlink()


def test_a_missing_folder_is_not_created(tmp_path):
    with pytest.raises(OutputError, match="must exist, got none"):
        write_bytes(str(tmp_path / "no" / "a"), b"")
    assert names(tmp_path) == []


def test_a_folder_is_no_file_and_a_long_name_works(tmp_path):
    with pytest.raises(OutputError, match="must be a file, got a folder"):
        write_bytes(str(tmp_path), b"")
    write_bytes(str(tmp_path / ("n" * 255)), b"1")
    assert names(tmp_path) == ["n" * 255]


def test_a_folder_is_made_with_those_around_it_or_a_sentence_says_why_not(tmp_path):
    for _ in range(2):
        make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(ResourceError, match=f"{place} must be writable, got"):
            make_folder(str(tmp_path / place))


def test_text_and_json(tmp_path):
    write_text(str(tmp_path / "a.txt"), "µm\n")
    write_json(str(tmp_path / "a.json"), {"µ": [1, None]})
    assert (tmp_path / "a.txt").read_bytes() == "µm\n".encode()
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "µ": [\n    1,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(str(tmp_path / "b.json"), float("nan"))
    assert names(tmp_path) == ["a.json", "a.txt"]


@pytest.mark.parametrize("count", [3, 40])
def test_many_documents_are_those_that_are_written_alone(count, tmp_path):
    (tmp_path / "0.json").write_text("old")
    (tmp_path / "0.json").chmod(0o640)
    write_jsons({str(tmp_path / f"{n}.json"): {"µ": n} for n in range(count)})
    write_json(str(tmp_path / "alone"), {"µ": 2})
    assert (tmp_path / "2.json").read_bytes() == (tmp_path / "alone").read_bytes()
    assert json.loads((tmp_path / "0.json").read_text("utf-8")) == {"µ": 0}
    assert mode(tmp_path / "0.json") == 0o640
    assert len(names(tmp_path)) == count + 1


@pytest.mark.parametrize("count", [3, 40])
def test_of_many_documents_none_is_half_there(count, tmp_path):
    last = tmp_path / f"{count - 1}.json"
    last.mkdir()
    with pytest.raises((ResourceError, OutputError)):
        write_jsons({str(tmp_path / f"{n}.json"): n for n in range(count)})
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert all(path == last or json.loads(path.read_text()) + 1 for path in tmp_path.iterdir())


HEX = "0123456789abcdef"
STRAYS = [
    f"0/c/0/1.{HEX}{HEX}.partial",
    f"zarr.{HEX}{HEX}.partial",
    f".unetkit/.fingerprint.json.{HEX}.tmp",
    f".unetkit/.work.{HEX}.unetkit-old/0/c/0/0",
    f"labels/.1.{HEX}.unetkit-old/zarr.json",
]
KEPT = ["0/c/0/1", "zarr.json", ".unetkit/journal.txt", "notes.tmp", "thesis.partial", "a.0f.tmp"]


def lay(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_half_written_or_half_removed_goes(tmp_path):
    lay(tmp_path, STRAYS + KEPT)
    sweep(str(tmp_path))
    assert files(tmp_path) == set(KEPT)
    assert not list(tmp_path.rglob("*.unetkit-old"))


def test_a_file_that_is_written_sweeps_what_was_tried_long_before(tmp_path):
    old, young, others = f".a.{HEX}.tmp", f".a.{HEX[::-1]}.tmp", [f".b.{HEX}.tmp", ".a.0f.tmp"]
    lay(tmp_path, [old, young, *others])
    for name in (old, *others):
        os.utime(tmp_path / name, (0, 0))
    write_bytes(str(tmp_path / "a"), b"new")
    assert files(tmp_path) == {"a", young, *others}


def test_what_zarr_writes_half_has_such_a_name(tmp_path):
    seen = []
    array = zarr.create_array(str(tmp_path / "a"), shape=(4,), chunks=(4,), dtype="u1")
    real = Path.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, to: (seen.append(self.name), real(self, to)))
        array[:] = 1
    lay(tmp_path, seen)
    sweep(str(tmp_path))
    assert len(seen) == 1
    assert not (tmp_path / seen[0]).exists()


def test_an_output_that_was_put_aside_comes_back(tmp_path):
    url = str(tmp_path / "a[1].zarr")
    aside = half_removed(url)
    lay(aside, ["zarr.json"])
    other = half_removed(str(tmp_path / "a[1].zarr.b"))
    lay(other, ["zarr.json"])
    recover(url, f"{url}-partial")
    assert files(Path(url)) == {"zarr.json"}
    assert other.exists()
    assert not aside.exists()


def test_where_the_new_output_is_in_place_the_old_one_goes(tmp_path):
    url, partial = str(tmp_path / "a.zarr"), str(tmp_path / ".a.zarr.unetkit-partial")
    lay(half_removed(partial), ["older"])
    recover(url, partial)
    assert list(tmp_path.iterdir()) == []  # a partial that was put aside never comes back
    lay(Path(url), ["new"])
    lay(half_removed(url), ["old"])
    lay(half_removed(partial), ["older"])
    recover(url, partial)
    assert files(tmp_path) == {"a.zarr/new"}


def test_a_link_is_removed_and_not_what_it_names(tmp_path):
    lay(tmp_path / "kept", ["a"])
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "kept")
    remove(link)
    assert files(tmp_path) == {"kept/a"}


def test_a_name_that_is_no_utf_8_can_be_written_of(tmp_path):
    name = os.fsdecode(b"sl\xffide")
    write_json(str(tmp_path / "a.json"), plain({"source": name, name: 1}))
    write_json(str(tmp_path / "b.json"), {"source": name})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"source": "sl?ide", "sl?ide": 1}
    assert json.loads((tmp_path / "b.json").read_bytes()) == {"source": "sl?ide"}
    assert not is_segment(name)
