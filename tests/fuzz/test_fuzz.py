"""Whatever is wrong with one file, a command works or refuses in one sentence and changes nothing.

    UNETKIT_FUZZ_CASES=5000 UNETKIT_FUZZ_SEED=1 python -m pytest -n 0 -m slow tests/fuzz

Each case damages one file of a kind and runs one command on it; a failure says how to replay it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit import errors
from unetkit.cli.app import main

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parents[1] / "golden" / "golden.tar.xz"
CASES = int(os.environ.get("UNETKIT_FUZZ_CASES", "300"))
SEED = int(os.environ.get("UNETKIT_FUZZ_SEED", "0"))
ONE = os.environ.get("UNETKIT_FUZZ_CASE")
SECONDS = 60
CODES = {0} | {
    kind.code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.UnetkitError) and kind.code != 1
}

SYNC = " --scheduler sync"
PREDICT = f"tile-predict slide.zarr --tile 16 --precision exact --device cpu{SYNC}"
TRAIN = (
    "train data.zarr --set depth=1 --set width=2 --recipe-set tile=60 --recipe-set"
    " learning_rate=0.05 --recipe-set averaging=0 --device cpu --precision exact --workers 0"
)
STORES = (
    "info data.zarr",
    "info seen.zarr",
    "verify seen.zarr",
    f"tile-predict data.zarr --tile 32 --device cpu -o new.zarr{SYNC}",
    f"eval seen.zarr data.zarr{SYNC}",
    f"measure data.zarr -o new.csv{SYNC}",
    f"measure seen.zarr -o new.csv{SYNC}",
    f"weights data.zarr --overwrite{SYNC}",
    "augment data.zarr new.zarr --copies 1",
    "export seen.zarr new",
    f"{TRAIN} --steps 1 -o new.safetensors",
)
MODEL = ("info model.safetensors", f"{PREDICT} -o new.zarr", "export model.safetensors new.onnx")
UNFINISHED = (
    f"{PREDICT} --resume",
    f"weights wide.zarr --resume{SYNC}",
    f"eval seen.zarr data.zarr --resume{SYNC}",
)

# For each kind: what lies in the folder, which files are damaged, which commands are run, and how
# many of 100 cases are of it.
KINDS: dict[str, tuple[str, str, tuple[str, ...], int]] = {
    "metadata": ("data.zarr seen.zarr model.safetensors", r"*.zarr/**/zarr.json", STORES, 30),
    "chunks": ("data.zarr seen.zarr model.safetensors", r"*.zarr/**/c/**/*", STORES, 10),
    "records": ("data.zarr seen.zarr", "*.zarr/**/.unetkit/*", STORES[1:3] + STORES[4:5], 5),
    "older": ("old.zarr model.safetensors", "old.zarr/**/.z*", (), 15),
    "model": ("slide.zarr model.safetensors", "model.safetensors", MODEL, 10),
    "images": ("images", "images/*", ("import images new.zarr",), 12),
    "unfinished": (
        "slide.zarr wide.zarr data.zarr seen.zarr model.safetensors"
        " .slide.prediction.zarr.unetkit-partial .seen.zarr.eval.unetkit-partial",
        "**/*.unetkit-partial/**/*",
        UNFINISHED,
        12,
    ),
    "training": ("data.zarr model.train", "model.train/*.*", (f"{TRAIN} --steps 40 --resume",), 6),
}
OLDER = (
    "info old.zarr",
    "verify old.zarr",
    f"tile-predict old.zarr --tile 32 --device cpu -o new.zarr{SYNC}",
    "export old.zarr new",
    "import old.zarr new.zarr",
)
KINDS["older"] = (*KINDS["older"][:2], OLDER, KINDS["older"][3])

STRANGE: tuple[Any, ...] = (
    None, "", "strange", "../..", 10**30, 2**63, -1, 0, 1.5, float("nan"), float("inf"), True,
    [], [[[]]], {}, {"a": [None]}, [[1, 2], [3]], "\x00", "é" * 300,
)  # fmt: skip


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Return a folder with everything that is damaged, whole."""
    folder = tmp_path_factory.mktemp("seeds")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    grey = np.random.default_rng(0).integers(0, 255, (24, 20), np.uint8)
    (folder / "images").mkdir()
    Image.fromarray(grey).save(folder / "images" / "a.png")
    Image.fromarray(grey).save(folder / "images" / "b.jpg")
    tifffile.imwrite(folder / "images" / "c.tif", grey, compression="zlib", tile=(16, 16))
    tifffile.imwrite(
        folder / "images" / "d.ome.tif", grey[None].repeat(2, 0), metadata={"axes": "CYX"}
    )
    lay_older(folder / "old.zarr", grey)
    return folder


def lay_older(folder, grey):
    """Lay out an image as OME-Zarr 0.4, in version 2 of Zarr."""
    import zarr

    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    group.create_array("0", shape=grey.shape, chunks=(16, 16), dtype="u1")[:] = grey
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "coordinateTransformations": [], "scale": [0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def places(value, found=()):
    """Return the way to every value of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    ways = []
    for key, below in inner:
        ways.append((*found, key))
        if isinstance(below, dict | list):
            ways += places(below, (*found, key))
    return ways


def damage_document(text, rng):
    """Damage one value of a JSON document; return it with what was done."""
    document = json.loads(text)
    ways = places(document) if isinstance(document, dict | list) else []
    if not ways:
        return "null", "all of it is null"
    way = ways[rng.integers(len(ways))]
    parent = document
    for key in way[:-1]:
        parent = parent[key]
    last, what = way[-1], int(rng.integers(8))
    where = "/".join(map(str, way))
    if what == 0:
        del parent[last]
        return json.dumps(document), f"{where} deleted"
    strange = STRANGE[rng.integers(len(STRANGE))]
    if what == 1 and isinstance(last, str):
        # The duplicate stands behind the first, which is how most readers let it win.
        parent["\x01twice"] = strange
        written = json.dumps(document).replace(json.dumps("\x01twice"), json.dumps(last))
        return written, f"{where} twice, then {strange!r}"
    if what == 2:
        parent[last] = [parent[last]]
        return json.dumps(document), f"{where} in a list"
    parent[last] = strange
    return json.dumps(document), f"{where} = {strange!r}"


def damage_bytes(content, rng):
    """Flip, cut off, take out or add bytes; return them with what was done."""
    what = ("flip", "cut", "take", "add", "empty")[rng.choice(5, p=(0.5, 0.2, 0.1, 0.15, 0.05))]
    at = int(rng.integers(len(content))) if content else 0
    if what == "flip" and content:
        # Headers are where the sense of a file is.
        at = at if rng.random() < 0.5 else at % 64
        new = content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    elif what == "cut":
        new = content[:at]
    elif what == "take":
        new = content[:at] + content[at + int(rng.integers(1, 20)) :]
    elif what == "empty":
        new = b""
    else:
        new = content[:at] + rng.bytes(int(rng.integers(1, 20))) + content[at:]
    return new, f"{what} at byte {at}"


def damage(path, rng):
    """Damage one file, as a document where it is one, and say what was done."""
    content = path.read_bytes()
    if rng.random() < 0.75:
        if path.suffix == ".safetensors":
            size = struct.unpack("<Q", content[:8])[0]
            text, done = damage_document(content[8 : 8 + size], rng)
            header = text.encode()
            path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])
            return done
        lines = content.splitlines() if path.suffix == ".jsonl" else [content]
        number = int(rng.integers(len(lines))) if lines else 0
        try:
            text, done = damage_document(lines[number], rng)
        except (ValueError, IndexError):
            pass
        else:
            lines[number] = text.encode()
            path.write_bytes(b"\n".join(lines))
            return done
    content, done = damage_bytes(content, rng)
    path.write_bytes(content)
    return done


def listing(folder):
    """Return every path below a folder, with a hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


def too_long(*_):
    raise RuntimeError(f"the command took more than {SECONDS} seconds")


def judge(code, told, before, after):
    """Return what is wrong with how a command ended."""
    wrong = []
    if code not in CODES:
        wrong.append(f"exit code {code}")
    if "Traceback" in told:
        wrong.append("a traceback")
    if code and before != after:
        names = sorted(
            name for name in before.keys() | after if before.get(name) != after.get(name)
        )
        wrong.append(f"made or changed {names[:6]}")
    return wrong


def one_case(kind, number, seeds, folder, capsys):
    """Run one case and return what is wrong with it, or nothing."""
    needed, pattern, commands, _ = KINDS[kind]
    rng = np.random.default_rng([SEED, list(KINDS).index(kind), number])
    folder.mkdir()
    for name in needed.split():
        copy = shutil.copytree if (seeds / name).is_dir() else shutil.copy2
        copy(seeds / name, folder / name)
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    path = files[rng.integers(len(files))]
    done = damage(path, rng)
    command = commands[rng.integers(len(commands))]
    os.chdir(folder)
    before = listing(folder)
    capsys.readouterr()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        code = main([*command.split(), "--json"] if "--json" not in command else command.split())
    except BaseException as error:  # whatever comes out is the fault that is looked for
        code = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    told = capsys.readouterr().err
    wrong = judge(code, told, before, listing(folder))
    shutil.rmtree(folder)
    if not wrong:
        return None
    chosen = f"UNETKIT_FUZZ_SEED={SEED} UNETKIT_FUZZ_CASE={number}"
    replay = f"{chosen} pytest -n 0 -m slow tests/fuzz -k {kind}"
    where = path.relative_to(folder)
    end = " | ".join(told.strip().splitlines()[-2:])
    return f"{'; '.join(wrong)}\n  {where}: {done}\n  {command}\n  {end[:600]}\n  {replay}"


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_file_is_read_or_refused(kind, seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    numbers = [int(ONE)] if ONE else range(max(1, CASES * KINDS[kind][3] // 100))
    found = [one_case(kind, number, seeds, tmp_path / f"{number}", capsys) for number in numbers]
    wrong = [text for text in found if text]
    assert not wrong, f"{len(wrong)} of {len(found)} cases\n" + "\n".join(wrong)


def test_the_judge_sees_each_fault():
    before, after = {"a": "1"}, {"a": "2", "b": "1"}
    assert judge(3, "error: a must be b", before, before) == judge(0, "", before, after) == []
    assert judge("KeyError: 'a'", "", before, before) == ["exit code KeyError: 'a'"]
    assert judge(1, "Traceback (most recent", before, before) == ["exit code 1", "a traceback"]
    assert judge(3, "", before, after) == ["made or changed ['a', 'b']"]
