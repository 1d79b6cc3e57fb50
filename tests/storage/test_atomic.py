"""Files appear whole, with the rights that the umask gives, and follow no planted link."""

import os
import stat

import pytest

from unetkit.errors import OutputError, ResourceError
from unetkit.storage.atomic import make_folder, write_bytes, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "wanted"), [(0o002, 0o664), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_mode_of_the_umask(mask, wanted, tmp_path):
    before = os.umask(mask)
    try:
        write_bytes(str(tmp_path / "a"), b"1")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == wanted


def test_an_existing_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o664)
    write_bytes(str(path), b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o664)
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


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="must be a file, got a folder"):
        write_bytes(str(tmp_path / "a"), b"")


def test_a_long_name_works(tmp_path):
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
