"""An input is known again by whatever links, mounts and spellings it is named."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from unetkit.storage import urls
from unetkit.storage.image_writer import create_image
from unetkit.storage.urls import collide


def make(url):
    array = create_image(str(url), shape=(4, 4), axes="yx", dtype=np.uint8)
    array.write(0, 0, 0, np.ones((1, 4, 4), np.uint8))


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def mounted(script, program, folder):
    """Mount in a namespace of its own, and run a program there; None where nobody may mount."""
    if shutil.which("unshare") is None:
        return None
    # Images of disks are for the administrator alone; folders may be mounted by all in some places.
    for rights in ("-m", "-rm"):
        words = ["unshare", rights, "sh", "-ec"]
        tried = subprocess.run([*words, script], cwd=folder, check=False, capture_output=True)
        if tried.returncode:
            continue
        whole = [*words, f'{script}\nexec "$@"', "sh", sys.executable, "-c", program]
        run = subprocess.run(whole, cwd=folder, check=False, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()
    return None


def test_names_are_told_apart_and_links_are_followed(tmp_path):
    assert not collide(str(tmp_path / "a"), str(tmp_path / "ab"))
    assert not collide(str(tmp_path / "new" / "a"), str(tmp_path / "new" / "b"))
    assert collide(str(tmp_path / "new" / "a"), str(tmp_path / "new"))
    (tmp_path / "a").touch()
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert collide(str(tmp_path / "a"), str(tmp_path / "b"))


def test_urls_are_compared_by_their_words(tmp_path):
    assert collide("s3://b/in.zarr", "s3://b/in.zarr/0/")
    assert not collide("s3://b/in.zarr", "s3://b/in.zarr2")
    assert not collide("s3://b/in.zarr", str(tmp_path))


# Who checks outputs, and what it says of each; then the same without a look at the mounts.
CHECKED = """
import sys
from unetkit.errors import OutputError
from unetkit.storage import urls
from unetkit.storage.outputs import check_output

def say(*pairs):
    for output, source in pairs:
        try:
            check_output(output, inputs=[source], overwrite=True)
        except OutputError as error:
            assert error.exit_code == 4
            print("refused" if "must lie apart" in str(error) else error)
        else:
            print("taken")
"""

BOUND = """
mount --bind data mirror
mount --bind data/in.zarr whole
mount --bind data/in.zarr/0 inner
mount --bind data "with space"
mount --bind other beside
"""
MET = [
    ("mirror/in.zarr", "data/in.zarr"),
    ("mirror/in.zarr/", "data/in.zarr"),
    ("mirror/in.zarr/out.zarr", "data/in.zarr"),
    ("mirror", "data/in.zarr"),
    ("whole", "data/in.zarr"),
    ("whole/out.zarr", "data/in.zarr"),
    ("data/in.zarr", "whole"),
    ("with space/in.zarr", "whole"),
    ("mirror/in.zarr/out.zarr", "with space/in.zarr"),
]
# What is shown lies deeper than the input: its parents, seen from there, are others.
HIDDEN = [
    ("inner/out.zarr", "data/in.zarr"),
    ("inner/out.zarr", "with space/in.zarr"),
    ("data", "inner"),
    ("data/in.zarr", "inner"),
    ("mirror/in.zarr", "inner"),
]
APART = [
    ("beside/out.zarr", "data/in.zarr"),
    ("mirror/out.zarr", "data/in.zarr"),
    ("mirror/in.zarr2", "whole"),
    ("data/out.zarr", "inner"),
]


def test_a_bind_mount_hides_no_input(tmp_path):
    for name in ("data", "mirror", "whole", "inner", "with space", "other", "beside"):
        (tmp_path / name).mkdir()
    make(tmp_path / "data" / "in.zarr")
    before = tree(tmp_path)
    program = f"{CHECKED}\nsay(*{MET + HIDDEN + APART})"
    said = mounted(BOUND, program, tmp_path)
    if said is None:
        pytest.skip("nobody may mount folders here")
    assert said == ["refused"] * len(MET + HIDDEN) + ["taken"] * len(APART)
    assert tree(tmp_path) == before
    # Without the other names of a place, what hides its parents stays unnoticed.
    blind = f"{CHECKED}\nurls._aliases = lambda path: []\nsay(*{HIDDEN})"
    assert "refused" not in (mounted(BOUND, blind, tmp_path) or ["refused"])


def test_a_mount_that_is_hidden_by_another_is_not_looked_at(tmp_path):
    for name in ("data", "outer/inner", "other/inner"):
        (tmp_path / name).mkdir(parents=True)
    # `outer/inner` shows the data only until the other folder is shown over it.
    script = "mount --bind data outer/inner\nmount --bind other outer\n"
    program = f"{CHECKED}\nsay(('outer/inner/out.zarr', 'data'), ('data/out.zarr', 'outer'))"
    said = mounted(script, program, tmp_path)
    if said is None:
        pytest.skip("nobody may mount folders here")
    assert said == ["taken", "taken"]


FOLDING = [
    "mount -t tmpfs -o casefold none disk\nmkdir disk/d\nchattr +F disk/d\n",
    "mkfs.ext4 -Fq -O casefold -E encoding=utf8 image\nmount -o loop image disk\n"
    "mkdir disk/d\nchattr +F disk/d\n",
    "mkfs.vfat image\nmount -o loop image disk\nmkdir disk/d\n",
]


def test_case_makes_no_difference_where_a_disk_does_not_mind_it(tmp_path):
    make(tmp_path / "in.zarr")
    (tmp_path / "disk").mkdir()
    with (tmp_path / "image").open("wb") as file:
        file.truncate(2**24)
    pairs = [
        ("disk/d/IN.zarr", "disk/d/in.zarr"),
        ("disk/d/In.Zarr/new/out.zarr", "disk/d/in.zarr"),
        ("disk/D", "disk/d/in.zarr"),
        ("disk/d/in.zarr/0/OUT.zarr", "disk/d/IN.ZARR"),
        ("disk/d/IN2.zarr", "disk/d/in.zarr"),
    ]
    for script in FOLDING:
        copied = f"{script}cp -r in.zarr disk/d/\ntest -e disk/d/IN.ZARR/0\n"
        said = mounted(copied, f"{CHECKED}\nsay(*{pairs})", tmp_path)
        if said is not None:
            assert said == ["refused"] * (len(pairs) - 1) + ["taken"]
            return
    pytest.skip("no disk that folds case can be mounted here (tmpfs, ext4 and vfat were tried)")


def test_without_a_list_of_mounts_names_and_inodes_are_compared(tmp_path, monkeypatch):
    def nothing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(urls, "_mount_of", nothing)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert collide(str(tmp_path / "a" / "new"), str(tmp_path / "b"))
    assert not collide(str(tmp_path / "a" / "new"), str(tmp_path / "c"))
