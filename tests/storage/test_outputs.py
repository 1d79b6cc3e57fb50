"""Outputs appear whole, with a rename and without; inputs and foreign files are never touched."""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from safetensors.numpy import save_file

from unetkit.errors import InputError, OutputError, ResourceError, UsageError
from unetkit.storage import atomic, urls
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.image_writer import create_image, create_weights
from unetkit.storage.images import open_image
from unetkit.storage.outputs import (
    check_file,
    check_local,
    check_output,
    is_there,
    output_name,
    partial_url,
    publish,
    staged,
    write_csv,
    written_by_unetkit,
)
from unetkit.storage.urls import colliding, exists


def make(url, value=1):
    array = create_image(str(url), shape=(8, 4), axes="yx", dtype=np.uint8, chunk=4)
    array.write(0, 0, 0, np.full((1, 8, 4), value, np.uint8))


def value_of(url):
    (value,) = np.unique(open_image(url).data.read(0, 0, 8, 0, 4))
    return int(value)


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.zarr")


def tree(folder):
    """Everything below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_an_output_appears_complete_once_all_is_on_the_disk(out, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "sync", lambda: seen.append(Path(out).exists()))
    make(partial_url(out), 7)  # a leftover goes
    with staged(out) as partial:
        assert partial == str(tmp_path / ".out.zarr.unetkit-partial")
        assert not Path(partial).exists()
        make(partial)
        assert not Path(out).exists()
    assert seen == [False]
    assert value_of(out) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_what_a_killed_replacement_had_put_aside_comes_back(out, tmp_path):
    make(out, 1)
    aside = tmp_path / f".out.zarr.{'0' * 16}.unetkit-old"
    Path(out).rename(aside)
    with pytest.raises(OutputError, match="add --overwrite"), staged(out):
        pytest.fail("an earlier output was taken for none")
    assert value_of(out) == 1
    shutil.copytree(out, aside)
    with staged(out, overwrite=True) as partial:
        make(partial, 2)
    assert value_of(out) == 2
    assert not aside.exists()


def test_a_failure_leaves_everything_as_it_was(out, tmp_path):
    make(out)
    before = tree(tmp_path)

    def fail():
        with staged(out, overwrite=True) as partial:
            make(partial, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert tree(tmp_path) == before


def test_an_earlier_output_is_replaced_only_when_asked(out, tmp_path):
    make(out)
    with pytest.raises(OutputError, match="add --overwrite to replace it"), staged(out):
        pytest.fail("the output exists")
    with staged(f"{out}/", overwrite=True) as partial:
        make(partial, 2)
    assert value_of(out) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("name", ["folder", "file.txt", "foreign.zarr", "link.zarr", "empty", "."])
def test_foreign_things_are_never_replaced(name, overwrite, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.docx").write_text("years of work")
    (tmp_path / "file.txt").write_text("unetkit")
    (tmp_path / "foreign.zarr").mkdir()
    (tmp_path / "foreign.zarr" / "zarr.json").write_text('{"zarr_format":3,"node_type":"group"}')
    make(tmp_path / "ours.zarr")
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
    source = [f"{tmp_path}/data/in.zarr"]
    with pytest.raises(OutputError, match="must lie apart from its input"):
        check_output(f"{tmp_path}/{output}", inputs=source, overwrite=True)
    assert tree(tmp_path) == before


def test_neighbours_do_not_collide_and_places_in_a_bucket_may(tmp_path):
    make(tmp_path / "in.zarr")
    source = "s3://bucket/data/in.zarr"
    check_output(str(tmp_path / "in.zarr2"), inputs=[str(tmp_path / "in.zarr"), source])
    for output in (source, f"{source}/", f"{source}/out.zarr", "s3://bucket/data"):
        with pytest.raises(OutputError, match="must lie apart"):
            check_output(output, inputs=[source])


def test_a_missing_folder_is_not_created_and_a_website_takes_nothing(tmp_path):
    with pytest.raises(OutputError, match="must exist, got none"):
        check_output(str(tmp_path / "no" / "out.zarr"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="where one can write"):
        check_output("https://host/out.zarr")


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


def test_an_output_that_appeared_meanwhile_is_kept(out, tmp_path):
    def race():
        with staged(out) as partial:
            make(partial, 2)
            Path(out).mkdir()

    with pytest.raises(OutputError, match="must not exist yet"):
        race()
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_rename_that_fails_puts_the_old_output_back(out, tmp_path):
    make(out)
    with pytest.raises(ResourceError, match="must be writable"):
        publish(str(tmp_path / "partial"), out, overwrite=True)
    assert value_of(out) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


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


def test_an_input_without_a_name_or_inside_a_store_needs_one_for_the_output(tmp_path):
    for source in ("s3://bucket/slide.zarr", ".", "..", "a/..", "/", ""):
        with pytest.raises(UsageError, match=r"add -o NAME\.prediction\.zarr"):
            output_name(source, ".prediction.zarr")
    DatasetWriter(str(tmp_path / "data.zarr"))
    with pytest.raises(UsageError, match="inside a store"):
        output_name(str(tmp_path / "data.zarr" / "a01"), ".prediction.zarr")
    for document in (".zgroup", ".zattrs", ".zarray"):
        (tmp_path / document / "plain").mkdir(parents=True)
        (tmp_path / document / document).touch()
        for inner in ("0", "plain/0"):
            with pytest.raises(UsageError, match="inside a store"):
                output_name(str(tmp_path / document / inner), ".prediction.zarr")


def test_work_that_needs_a_disk_is_done_on_one():
    check_local("data/model.safetensors")
    with pytest.raises(UsageError, match="must be a path on this machine, got s3://bucket/m"):
        check_local("s3://bucket/m.safetensors")


def test_stores_of_ours_are_told_from_foreign_ones_and_from_links(tmp_path):
    DatasetWriter(str(tmp_path / "data.zarr"))
    make(tmp_path / "a.zarr")
    create_weights(str(tmp_path / "a.zarr"), shape=(8, 4), axes="yx")
    (tmp_path / "demo" / ".unetkit").mkdir(parents=True)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "data.zarr")
    zarr.create_array(str(tmp_path / "array.zarr"), data=np.zeros((4, 4)))
    zarr.create_group(str(tmp_path / "group.zarr"), attributes={"unetkit": {}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "zarr.json").write_text("{")
    ours = ("data.zarr", "a.zarr", "a.zarr/weights", "demo")
    for name in (*ours, "link.zarr", "array.zarr", "group.zarr", "empty", "damaged", "nothing"):
        assert written_by_unetkit(str(tmp_path / name)) is (name in ours)


def test_models_are_known_by_their_header(tmp_path):
    tensors = {"a": np.zeros(2, np.float32)}
    save_file(tensors, tmp_path / "ours.safetensors", metadata={"unetkit": "{}"})
    save_file(tensors, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    save_file(tensors, tmp_path / "bare.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "empty.safetensors").touch()
    assert written_by_unetkit(str(tmp_path / "ours.safetensors"))
    for name in ("foreign", "bare", "junk", "empty", "nothing"):
        assert not written_by_unetkit(str(tmp_path / f"{name}.safetensors"))


@pytest.mark.parametrize(
    ("name", "content", "ours"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n....tEXtSoftware\0unetkit 0.1", True),
        ("a.png", b"\x89PNG\r\n\x1a\n....tEXtSoftware\0Fiji", False),
        ("a.html", b'<!DOCTYPE html><meta name="generator" content="unetkit 0.1">', True),
        ("a.html", b"<!DOCTYPE html><p>unetkit</p>", False),
        ("a.json", json.dumps({"unetkit": "0.1"}).encode(), True),
        ("a.json", b'{"note": "made with unetkit"}', False),
        ("thesis.docx", b"PK unetkit", False),
        ("thesis.tex", b"unetkit", False),
    ],
)
def test_files_are_known_by_a_mark(name, content, ours, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert written_by_unetkit(str(tmp_path / name)) is ours


def test_an_onnx_model_is_known_by_its_last_properties(tmp_path):
    path = tmp_path / "model.onnx"
    # An entry of the properties: key, its length, its text; then the value.
    path.write_bytes(b"\x08\x0a" + bytes(2**17) + b"\x72\x0d\x0a\x07unetkit\x12\x02{}")
    assert written_by_unetkit(str(path))
    path.write_bytes(path.read_bytes().replace(b"unetkit", b"unitkit"))
    assert not written_by_unetkit(str(path))


HOSTILE = [
    "=cmd|x",
    "'=cmd|x",
    "''=cmd|x",
    "'",
    "+1",
    "-2",
    "@x",
    "\tq",
    "\rz",
    "a,b",
    'say "x"',
    "two\nlines",
    "plain",
]


def test_text_never_begins_a_formula_numbers_stay_and_what_is_not_there_is_empty(tmp_path):
    path = tmp_path / "t.csv"
    write_csv(str(path), ("name", "number"), [(text, -1.5) for text in HOSTILE])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    for text, (name, number) in zip(HOSTILE, rows, strict=True):
        assert not name.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert name.removeprefix("'") == text
        assert number == "-1.5"
    write_csv(str(path), ("a", "b", "c"), [(None, float("nan"), 0.1)])
    assert len({name for name, _ in rows}) == len(HOSTILE)
    assert path.read_text() == "a,b,c\n,,0.1\n"


def test_only_our_own_files_are_replaced(tmp_path):
    mine, foreign = tmp_path / "mine.csv", tmp_path / "foreign.csv"
    write_csv(str(mine), ("sample", "id"), [])
    foreign.write_text("patient,diagnosis\n")
    check_file(str(tmp_path / "new.csv"), overwrite=False, begins="sample,id")
    check_file(str(mine), overwrite=True, begins="sample,id")
    with pytest.raises(OutputError, match="add --overwrite"):
        check_file(str(mine), overwrite=False, begins="sample,id")
    for path in (foreign, tmp_path):
        with pytest.raises(OutputError, match="earlier output"):
            check_file(str(path), overwrite=True, begins="sample,id")
    with pytest.raises(UsageError, match="a path on this machine"):
        check_file("s3://b/t.csv", overwrite=False, begins="sample")


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
    new, a, b = (str(tmp_path / name) for name in ("new", "a", "b"))
    assert not list(colliding(a, [f"{a}b", new]))
    assert not list(colliding(f"{new}/a", [f"{new}/b"]))
    assert list(colliding(f"{new}/a", [a, new, f"{new}/a/c"])) == [new, f"{new}/a/c"]
    Path(a).touch()
    Path(b).hardlink_to(a)
    assert list(colliding(a, [b])) == [b]
    assert list(colliding("s3://b/in.zarr", ["s3://b/in.zarr/0/"]))
    assert not list(colliding("s3://b/in.zarr", ["s3://b/in.zarr2", a]))


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
    others = [str(tmp_path / "b"), str(tmp_path / "c")]
    assert list(colliding(str(tmp_path / "a" / "new"), others)) == others[:1]


def test_without_a_rename_an_output_appears_complete_too(bucket):
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
    left = iter(range(calls))

    def cut(real, *given):
        if next(left, None) is None:
            raise CutError
        real(*given)

    ended = False
    with monkeypatch.context() as patch, suppress(CutError):
        for act in ("write", "copy", "remove"):
            patch.setattr(urls, act, functools.partial(cut, getattr(urls, act)))
        atomic.publish(partial, url)
        ended = True
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
