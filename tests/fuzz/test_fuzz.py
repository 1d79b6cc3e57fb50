"""Whatever is wrong with one file, a command works or refuses in one sentence and changes nothing.

    UNETKIT_FUZZ_CASES=5000 UNETKIT_FUZZ_SEED=1 python -m pytest -n 2 tests/fuzz/test_fuzz.py

Each case damages one file of a kind and runs one command on it; a failure says how to replay it.
With UNETKIT_FUZZ_TOLD=FILE what came of each case is added to a file, a line a case.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from numcodecs import Zstd

from unetkit import errors
from unetkit.models.model_file import checksum_of

CASES = int(os.environ.get("UNETKIT_FUZZ_CASES", "300"))
SEED = int(os.environ.get("UNETKIT_FUZZ_SEED", "0"))
ONE = os.environ.get("UNETKIT_FUZZ_CASE")
TOLD = os.environ.get("UNETKIT_FUZZ_TOLD")
# Of computing, since a busy machine is no fault of the code; a case that hangs is ended.
SECONDS, HANGS, MEMORY = 5, 120, 500 * 2**20
CODES = {0} | {
    kind.code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.UnetkitError) and kind.code != 1
}

SYNC = "--scheduler sync"
PREDICT = f"tile-predict slide.zarr --tile 16 --precision float32 --device cpu {SYNC}"
TRAIN = (
    "train data.zarr --set depth=1 --set width=2 --recipe-set tile=32 --recipe-set batch=2"
    " --recipe-set learning_rate=0.05 --device cpu --precision exact --workers 0"
)
STORES = (
    "info data.zarr",
    "info seen.zarr",
    "verify seen.zarr",
    f"tile-predict data.zarr --tile 32 --device cpu -o new.zarr {SYNC}",
    "tile-predict data.zarr --tile 32 --precision exact --device cpu -o seen.zarr"
    f" --overwrite --threshold 0.3 {SYNC}",
    f"eval seen.zarr data.zarr {SYNC}",
    f"measure data.zarr --csv new.csv {SYNC}",
    f"measure seen.zarr data.zarr --csv new.csv {SYNC}",
    f"weights data.zarr --overwrite {SYNC}",
    "augment data.zarr new.zarr --copies 1",
    "export seen.zarr --to geojson -o new.geojson",
    "export seen.zarr --to tiff -o new.tif",
    f"{TRAIN} --steps 1 -o new.safetensors",
)
MODEL = (
    "info model.safetensors",
    f"{PREDICT} -o new.zarr",
    f"{TRAIN} --steps 1 --init model.safetensors -o new.safetensors",
    "models export model.safetensors --size 64 -o new.pt2",
    "tune model.safetensors data.zarr -o new.safetensors --device cpu",
)
OLDER = (
    "info old.zarr",
    f"tile-predict old.zarr --tile 32 --device cpu -o new.zarr {SYNC}",
)
UNFINISHED = (
    f"{PREDICT} --resume",
    f"weights wide.zarr --resume {SYNC}",
    f"eval seen.zarr data.zarr --resume {SYNC}",
)
IMAGES = tuple(
    f"import {name} new.zarr"
    for name in ("images", "wide.png", "grey.jpg", "palette.png", "tiled.tif", "stack.ome.tif")
)
OUTLINES = tuple(
    f"import tiled.tif new.zarr --labels drawn.{end}" for end in ("geojson", "json", "xml")
)
LABELS = ("import images new.zarr --labels masks", f"{PREDICT} -o new.zarr --mask wide.zarr")

# For each kind which files are damaged, which commands are run, and how often it is drawn.
KINDS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "metadata": (r".*\.zarr/(.*/)?zarr\.json", STORES, 28),
    "chunks": (r".*\.zarr/(.*/)?c/.*", STORES, 14),
    "records": (r".*\.zarr/(.*/)?\.unetkit/.*", (*STORES[1:3], *STORES[4:6], *STORES[8:9]), 6),
    "older": (r"old\.zarr/.*", OLDER, 10),
    "model": (r"model\.safetensors", MODEL, 12),
    "images": (r".*\.(png|jpg|tif)", (*IMAGES, LABELS[0]), 10),
    "outlines": (r"drawn\..*", OUTLINES, 8),
    "unfinished": (r"(.*/)?\..*\.unetkit-partial/.*", UNFINISHED, 14),
    "training": (r"begun\.train/[^/]*", (f"{TRAIN} --steps 20 -o begun.safetensors --resume",), 6),
}

STRANGE: tuple[Any, ...] = (
    None, "", "strange", "../..", 10**30, 2**63, -1, 0, 1.5, float("nan"), float("inf"), True,
    [], [[[]]], {}, {"a": [None]}, [[1, 2], [3]], "\x00", "é" * 300,
)  # fmt: skip


def of_case(number):
    """Return the kind of a case and what it draws from."""
    rng = np.random.default_rng([SEED, number])
    shares = np.array([share for *_, share in KINDS.values()])
    return list(KINDS)[rng.choice(len(KINDS), p=shares / shares.sum())], rng


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


def damage_pixels(content, rng):
    """Exchange what a chunk holds for something else that can be unpacked."""
    try:
        raw = np.frombuffer(Zstd().decode(content), np.uint8)
    except (RuntimeError, ValueError):
        return damage_bytes(content, rng)
    what = ("others", "fewer", "more", "far more")[rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))]
    new = {
        "others": rng.permutation(raw),
        "fewer": raw[: rng.integers(raw.size)] if raw.size else raw,
        "more": np.pad(raw, (0, int(rng.integers(1, 100)))),
        "far more": None,
    }[what]
    packed = bomb() if new is None else Zstd(checksum=bool(rng.integers(2))).encode(new)
    return packed, f"{what} pixels"


@functools.cache
def bomb():
    """Return a chunk that unpacks to more than any command may take."""
    return Zstd(level=1).encode(np.zeros(2**30, np.uint8))


def damage_counts(content, rng):
    """Damage what an unfinished evaluation keeps of a block: its tree, or an array."""
    with np.load(io.BytesIO(content)) as found:
        arrays = dict(found)
    name = list(arrays)[rng.integers(len(arrays))]
    if name == "tree" or rng.random() < 0.5:
        name = "tree"
        text, done = damage_document(arrays[name].tobytes(), rng)
        arrays[name] = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8)
    else:
        old = arrays[name]
        others = (old[:0], old.astype("U"), old.ravel()[None], np.full(old.shape, -1), -old)
        what = int(rng.integers(len(others)))
        arrays[name], done = others[what], f"{name} exchanged ({what})"
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue(), done


def damage_lines(content, rng):
    """Damage a line of a log, a journal or a list, of which a document may be a part."""
    lines = content.split(b"\n")
    number = int(rng.integers(max(1, len(lines) - 1)))
    head, text = b"", lines[number]
    if (found := re.fullmatch(rb"([0-9a-f]{8} )(.*)", text)) is not None:
        head, text = found.groups()
    if rng.random() < 0.2:
        lines[number:number] = [lines[number]]
        return b"\n".join(lines), f"line {number} twice"
    new, done = damage_document(text, rng)
    lines[number] = head + new.encode(errors="surrogatepass")
    return b"\n".join(lines), f"line {number}: {done}"


def damage_tensors(content, rng):
    """Damage the header of a file of tensors, the notes in it or the tensors."""
    size = struct.unpack("<Q", content[:8])[0]
    text, body = content[8 : 8 + size], content[8 + size :]
    what = rng.random()
    if what < 0.2:
        body, done = damage_bytes(body, rng)
    elif what < 0.8:
        header = json.loads(text)
        ((key, said),) = header["__metadata__"].items()
        head, brace, inner = said.partition("{")
        inner, done = damage_document(brace + inner, rng)
        header["__metadata__"][key] = head + inner
        text = json.dumps(header).encode()
    else:
        new, done = damage_document(text, rng)
        text = new.encode()
    return struct.pack("<Q", len(text)) + text + body, done


def damage(path, rng):
    """Damage one file by what it is, and say what was done."""
    content = path.read_bytes()
    way = damage_bytes
    if rng.random() < 0.85:
        if path.suffix == ".npz":
            way = damage_counts
        elif path.suffix == ".safetensors":
            way = damage_tensors
        elif path.suffix in (".jsonl", ".txt"):
            way = damage_lines
        elif "c" in path.parts or re.fullmatch(r"\d+\.\d+", path.name):
            way = damage_pixels
        elif path.name.endswith((".json", ".geojson", ".zarray", ".zattrs", ".zgroup")):
            text, done = damage_document(content, rng)
            path.write_text(text)
            return done
    new, done = way(content, rng)
    path.write_bytes(new)
    return done


def seal(path):
    """Put right every checksum that would tell of a damage, so that what is behind it is met."""
    if path.suffix == ".safetensors":
        seal_tensors(path)
    if path.suffix == ".png":
        seal_picture(path)
    folder = next((p for p in path.parents if (p / ".unetkit" / "fingerprint.json").exists()), None)
    if folder is None:
        return
    journal = folder / ".unetkit" / "journal.txt"
    if path == journal:
        lines = [line[9:] for line in journal.read_bytes().split(b"\n")]
        journal.write_bytes(b"\n".join(b"%08x %b" % (zlib.crc32(x), x) for x in lines if x))
    elif path.suffix == ".npz":
        keys = [json.loads(line[9:])[0] for line in journal.read_bytes().splitlines()]
        (key,) = (k for k in keys if hashlib.sha256(k.encode()).hexdigest()[:32] == path.stem)
        line = json.dumps([key, zlib.crc32(path.read_bytes())]).encode()
        journal.write_bytes(journal.read_bytes() + b"%08x %b\n" % (zlib.crc32(line), line))
    fingerprint = folder / ".unetkit" / "fingerprint.json"
    try:
        known = json.loads(fingerprint.read_bytes())
        # Earlier versions wrote none, so that none is needed.
        known.pop("checksum", None)
        if path.name == "zarr.json":
            known.pop("documents", None)
    except (ValueError, AttributeError):
        return
    fingerprint.write_text(json.dumps(known))


def seal_tensors(path):
    """Put right the checksum of a model or a state."""
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        ((key, said),) = header["__metadata__"].items()
        if key == "unetkit":
            notes = json.loads(said)
            notes["checksum"] = checksum_of(tensors)
            said = json.dumps(notes)
        else:
            text = said.partition(" ")[2]
            said = f"{checksum_of(tensors, text)} {text}"
    except Exception:  # it is not that far from whole, and stays as it is
        return
    header["__metadata__"][key] = said
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def seal_picture(path):
    """Put right the checksums of a PNG, as far as it has parts."""
    content, at = path.read_bytes(), 8
    while len(content) >= at + 12:
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        checksum = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        if len(content) >= end + 4:
            content = content[:end] + checksum + content[end + 4 :]
        at = end + 4
    path.write_bytes(content)


def listing(folder):
    """Return every path below a folder, with a hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


def judge(done, before, after):
    """Return what is wrong with how a command ended."""
    wrong = []
    if done["code"] not in CODES:
        wrong.append(f"exit code {done['code']}")
    if "Traceback" in done["err"]:
        wrong.append("a traceback")
    if done["code"] and "error: " not in done["err"]:
        wrong.append("no sentence")
    if done["code"] and before != after:
        names = sorted(
            name for name in before.keys() | after if before.get(name) != after.get(name)
        )
        wrong.append(f"made or changed {names[:6]}")
    if done["seconds"] > SECONDS:
        wrong.append(f"{done['seconds']:.1f} s")
    if done["grown"] > MEMORY:
        wrong.append(f"{done['grown'] >> 20} MB")
    return wrong


def lay(command, seeds, folder):
    """Copy what a command works on, files with their times; return its words."""
    words = command.split()
    hidden = [f".{word}.eval.unetkit-partial" for word in words]
    if "--resume" in words:
        hidden += [".slide.prediction.zarr.unetkit-partial", "begun.train"]
    folder.mkdir()
    for name in {*words, *hidden, "model.safetensors" * (words[0] == "tile-predict")}:
        if name and (seeds / name).exists():
            copy = shutil.copytree if (seeds / name).is_dir() else shutil.copy2
            copy(seeds / name, folder / name)
    return words


def one_case(number, seeds, folder, forks):
    """Run one case and return what is wrong with it, or nothing."""
    kind, rng = of_case(number)
    pattern, commands, _ = KINDS[kind]
    command = commands[rng.integers(len(commands))]
    lay(command, seeds, folder)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    names = [n for n in sorted(files) if re.fullmatch(pattern, n) and files[n].is_file()]
    name = names[rng.integers(len(names))]
    said = damage(files[name], rng)
    if rng.random() < 0.5:
        seal(files[name])
        said += ", sealed"
    before = listing(folder)
    done = forks(folder, f"{command} --json", seconds=HANGS)
    wrong = judge(done, before, listing(folder))
    shutil.rmtree(folder)
    end = " | ".join(done["err"].strip().splitlines()[-2:])
    if TOLD:
        with Path(TOLD).open("a") as file:
            row = (number, kind, done["code"], done["seconds"], done["grown"] >> 20, name, said)
            told = (command, end[-300:] if done["code"] else "", "; ".join(wrong))
            file.write(json.dumps([*row, *told]) + "\n")
    if not wrong:
        return None
    replay = f"UNETKIT_FUZZ_SEED={SEED} UNETKIT_FUZZ_CASE={number} pytest -n 0 tests/fuzz"
    return f"{'; '.join(wrong)}\n  {name}: {said}\n  {command}\n  {end[-600:]}\n  {replay}"


PARTS = [[int(ONE)]] if ONE else [range(CASES)[k : k + 50] for k in range(0, CASES, 50)]


@pytest.mark.parametrize("numbers", PARTS, ids=lambda numbers: f"{numbers[0]}-{numbers[-1]}")
def test_one_damaged_file_is_read_or_refused(numbers, seeds, disk, forks):
    found = [one_case(number, seeds, disk / f"{number}", forks) for number in numbers]
    wrong = [text for text in found if text]
    assert not wrong, f"{len(wrong)} of {len(found)} cases\n" + "\n".join(wrong)


def test_what_is_whole_is_read(seeds, disk, forks):
    """Else a kind would show no more than that all of it is refused."""
    for command in dict.fromkeys(each for _, commands, _ in KINDS.values() for each in commands):
        lay(command, seeds, disk / "whole")
        done = forks(disk / "whole", f"{command} --json")
        assert done["code"] == 0, (command, done["err"])
        assert judge(done, {}, {}) == []
        shutil.rmtree(disk / "whole")


def test_the_judge_sees_each_fault(forks, disk):
    whole = {"code": 0, "err": "", "seconds": 1.0, "grown": 0}
    before, after = {"a": "1"}, {"a": "2", "b": "1"}
    refused = whole | {"code": 3, "err": "error: a must be b"}
    assert judge(refused, before, before) == judge(whole, before, after) == []
    assert judge(refused, before, after) == ["made or changed ['a', 'b']"]
    crashed = whole | {"code": 1, "err": "Traceback (most recent"}
    assert judge(crashed, before, before) == ["exit code 1", "a traceback", "no sentence"]
    large = whole | {"seconds": 6.0, "grown": 600 * 2**20}
    assert judge(large, before, before) == ["6.0 s", "600 MB"]
