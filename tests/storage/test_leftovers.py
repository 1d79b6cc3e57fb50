"""What killed jobs left is removed, nothing else is, and what was put aside comes back."""

from pathlib import Path

import pytest

from unetkit.storage.atomic import half_removed, recover, remove, sweep

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


def test_what_zarr_writes_half_has_such_a_name(tmp_path):
    import zarr

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
    lay(Path(url), ["new"])
    lay(half_removed(url), ["old"])
    lay(half_removed(partial), ["older"])
    recover(url, partial)
    assert files(tmp_path) == {"a.zarr/new"}


def test_a_partial_that_was_put_aside_never_comes_back(tmp_path):
    url, partial = str(tmp_path / "a.zarr"), str(tmp_path / ".a.zarr.unetkit-partial")
    lay(half_removed(partial), ["older"])
    recover(url, partial)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_removed_and_not_what_it_names(tmp_path):
    lay(tmp_path / "kept", ["a"])
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "kept")
    remove(link)
    assert files(tmp_path) == {"kept/a"}
