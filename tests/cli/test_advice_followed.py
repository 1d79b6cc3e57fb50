"""The advice of a message, read off what is printed and followed, works."""

import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.cli.test_advice import OPTION, messages, parameters
from tests.commands.conftest import noise_image, tiny_model
from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.commands.weights.command import weights
from unetkit.errors import StoppedError
from unetkit.progress import Silent

PREDICT = "tile-predict slide.zarr --tile 16 --scheduler sync --device cpu --precision exact"
TRAIN = (
    "train cells.zarr --set depth=1 --set width=2 --recipe-set tile=60 --steps 4 --device cpu"
    " --precision exact --workers 0 -o new.safetensors"
)
# What follows an option and is no value of it.
PROSE = r"(?!--|(?:if|or|and|to|at|for|with|in|where|does|instead|out|keeps|of|asks|itself)\b)"
GIVEN = re.compile(
    rf"(leave out |leave |instead of |without )?({OPTION.pattern})(?: and ({OPTION.pattern}))?"
    rf"(?:(?:[= ]|, such as ){PROSE}('[^']+'|[^\s;]+))?"
)


@dataclass(frozen=True)
class Case:
    """A message of the source, what provokes it, and what only a user can add to its advice."""

    said: str  # a part of the message as it stands in the source
    words: str  # what is typed
    prepare: Callable[[], object] = lambda: None
    values: Mapping[str, str] = field(default_factory=dict)  # those that the advice leaves open
    instead: Mapping[str, str] = field(default_factory=dict)  # what its prose says, in words
    first: str = ""  # the command that its options belong to, typed before the words again
    then: str = ""  # the command that its options belong to, in place of the words
    whole: bool = False  # whether the options stand before the advice
    open_end: bool = False  # where it works, another refusal may come

    @property
    def id(self):
        return f"{self.words.split()[0]}: {self.said[:50]}"


def picture(path, array):
    Path(path).parent.mkdir(exist_ok=True)
    if path.endswith(".tif"):
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


LABELS = np.zeros((48, 52), np.uint8)
LABELS[4:16, 4:18], LABELS[22:40, 10:26], LABELS[5:17, 30:44] = 1, 2, 3
IMAGE = (60 + 60 * (LABELS > 0) + np.arange(52) % 7).astype(np.uint8)


def torn():
    """Write a TIFF of which one strip does not decode."""
    tifffile.imwrite("torn.tif", IMAGE, compression="zlib", rowsperstrip=16)
    with tifffile.TiffFile("torn.tif") as tif:
        offset = tif.pages[0].dataoffsets[1]
    with Path("torn.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"torn")


def masks(array, name="odd"):
    """Write masks of another kind for both images."""
    for stem in "ab":
        picture(f"{name}/{stem}.{'tif' if array.min() < 0 else 'png'}", array)


def run(words):
    """Type a command; what it writes is read by the caller."""
    return main(shlex.split(words) if isinstance(words, str) else words)


def changed(words, option, value=None, *, off=False):
    """Return words with an option added, with another value, or without it."""
    words = list(words)
    takes = not getattr(known(words)[option], "is_flag", True)
    while option in words and (off or not getattr(known(words)[option], "multiple", False)):
        at = words.index(option)
        del words[at : at + 1 + takes]
    assert not takes or off or value, f"no value for {option}"
    return words if off else [*words, option, *([value] if takes else [])]


def known(words):
    name = " ".join(words[:2]) if words[0] in ("models", "plugins") else words[0]
    return parameters(name)


def remedies(case, text):
    """Yield for each thing that a message advises the commands that do it."""
    words = shlex.split(case.words)
    again = [w for word in words for w in case.instead.get(word, "").split() or [word]]
    advice = text if case.whole else text.strip().rpartition("; ")[2]
    if case.whole and "must come with" in text:
        advice = text.partition("must come with ")[2].partition(",")[0]
    base = shlex.split(case.first or case.then) or again
    if "leave one out" in advice or "give one of them" in advice:
        for option in OPTION.findall(text.partition("; ")[0]):
            yield [changed(words, option, off=True)]
        return
    commands = re.findall(r"'(unetkit .+?)'(?=[\s,.;]|$)", advice)
    for quoted in commands:
        command = shlex.split(quoted)[1:]
        advice = advice.replace(quoted, "")
        if command[0] == words[0] and len(command) > 1:
            yield [[*base, *command[1:]] if case.then else command]
            continue
        if command[1:] and not command[1].startswith("-"):
            moved = {words[1]: command[-1]} if command[0] == "import" else {}
            yield [command, [moved.get(word, word) for word in again]]
        elif not (case.first or case.then):
            yield [[command[0], words[1], *command[1:]], again]
        elif command[1:]:
            yield [[*base, *command[1:]]]
    if source := re.search(r"give (\S+) --", advice):
        base = [base[0], source[1].strip("'"), *base[2:]]
    found = list(GIVEN.finditer(advice))
    followed = found or (commands and not (case.first or case.then))
    if not followed and not any(len(c.split()) > 2 for c in commands):
        yield [base, again] if case.first else [base]
    # What stands in another's place goes with each of the others.
    gone = [m[2] for m in found if m[1] in ("instead of ", "without ")]
    for match in found:
        if match[1] in ("instead of ", "without "):
            continue
        value = (match[4] or "").rstrip(".,").strip("'") or case.values.get(match[2])
        if not value and any(m[4] for m in found if m[2] == match[2]):
            continue  # an example with a value follows
        kept = base
        for option in gone:
            kept = changed(kept, option, off=True)
        made = changed(kept, match[2], value, off=bool(match[1]))
        if match[3]:
            made = changed(made, match[3], off=bool(match[1]))
        yield [made, again] if case.first else [made]


def pattern(text):
    return ".*?".join(map(re.escape, text.split("{}")))


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    """Lay out a lab: images, masks, a dataset, a slide, two models and a prediction."""
    folder = tmp_path_factory.mktemp("advice")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stem in "ab":
            picture(f"images/{stem}.png", IMAGE + (stem == "b"))
            picture(f"masks/{stem}.png", LABELS)
        assert run("import images cells.zarr --labels masks -q") == 0
        assert run("import images bare.zarr -q") == 0
        tiny_model("model.safetensors")
        tiny_model("two.safetensors", channels=2)
        noise_image("slide.zarr", (64, 60))
        noise_image("pair.zarr", (2, 64, 60), axes="cyx")
        assert run(f"{PREDICT} -q") == 0
    return folder


@pytest.fixture
def lab(laid, tmp_path, monkeypatch):
    """Return what lays the lab out anew and works there."""
    monkeypatch.setenv("COLUMNS", "200")

    def fresh(number):
        folder = tmp_path / str(number)
        shutil.copytree(laid, folder)
        monkeypatch.chdir(folder)

    return fresh


class Stopping(Silent):
    """Ends the run as a signal does, after some parts of a stage."""

    def __init__(self, stage, parts):
        self.stage, self.parts, self.now = stage, parts, ""

    def start(self, what, *, total):
        self.now = what

    def advance(self, parts=1, *, status=""):
        if self.stage in self.now:
            self.parts -= parts
            if self.parts == 0:
                os.kill(os.getpid(), signal.SIGTERM)


def stopped(words):
    """Run a command until a signal stops it half-way."""
    name, source, *_ = words.split()
    with suppress(StoppedError):
        if name == "train":
            train(
                source,
                output="new.safetensors",
                options=("depth=1", "width=2"),
                recipe_set=("tile=60",),
                steps=4,
                device="cpu",
                precision="exact",
                workers=0,
                progress=Stopping("train", 3),
            )
        elif name == "weights":
            weights(source, scheduler="sync", progress=Stopping("", 1))
        else:
            shutil.rmtree("slide.prediction.zarr")
            tile_predict(
                source,
                tile=16,
                scheduler="sync",
                device="cpu",
                precision="exact",
                progress=Stopping("", 3),
            )


def stop_and(words, change):
    def prepare():
        stopped(words)
        change()

    return prepare


def rewrite(path, change):
    """Change the bytes of a file that a glob finds."""
    (place,) = list(Path().glob(path))[:1]
    place.write_bytes(change(place.read_bytes()))


def stack(name="stack.zarr", *, dimensions=None):
    images = np.random.default_rng(0).integers(0, 200, (2, 1, 48, 52)).astype(np.uint8)
    group = zarr.create_group(name)
    for key, array in (("images", images), ("labels", np.stack([LABELS, LABELS]))):
        group.create_array(key, data=array)


def attributes(path, change):
    """Change the attributes of a group."""
    group = zarr.open_group(path, mode="r+")
    found = group.attrs.asdict()
    change(found)
    group.attrs.put(found)


def foreign(name="nuclei"):
    """Let another program have named the labels of the dataset."""
    for sample in "ab":
        place = Path(f"cells.zarr/{sample}/labels")
        (place / "instances").rename(place / name)
        attributes(str(place), lambda a: a["ome"].update(labels=[name]))


def slide_without(path):
    shutil.rmtree(f"slide.zarr/{path}")


def nan_slide():
    noise_image("nan.zarr", (64, 60), dtype="f4")
    array = zarr.open_array("nan.zarr/0", mode="r+")
    array[3, 4] = np.nan


def binary():
    masks(((LABELS > 0) * 255).astype(np.uint8))


def outlines(*corners):
    """Draw a square of class cell on both images, from each (x, y) on."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9], [x, y]]],
            },
            "properties": {"classification": {"name": "cell"}},
        }
        for x, y in corners
    ]
    Path("drawn").mkdir()
    for stem in "ab":
        text = json.dumps({"type": "FeatureCollection", "features": features})
        Path(f"drawn/{stem}.geojson").write_text(text)


def two_channels():
    for stem in "ab":
        picture(f"stained/{stem}.tif", np.stack([IMAGE, IMAGE]))
    assert run("import stained stained.zarr --labels masks --axes cyx -q") == 0


def specks(values):
    """Masks of a few values in very many pieces."""
    array = LABELS.copy()
    array[::2, ::2] = np.resize(values, array[::2, ::2].shape)
    masks(array)


def judged():
    """Judge the first of three objects as the page of a review does."""
    assert run("review slide.prediction.zarr --count 3 -q -o page.html") == 0
    (data,) = re.findall(r'id="data">(.*?)</script>', Path("page.html").read_text())
    record = json.loads(data)["record"]
    record["objects"][0]["verdict"] = "right"
    Path("j.json").write_text(json.dumps(record))


# fmt: off
CASES = [
    # import
    Case("marks what nobody judged", "import images out.zarr --labels odd",
         lambda: masks(np.where(LABELS == 3, -1, LABELS.astype(np.int16)))),
    Case("say --connected-components to number", "import images out.zarr --labels odd", binary),
    Case("name it in --classes, or set it",
         "import images out.zarr --labels drawn --kind classes --classes background,other",
         lambda: outlines((5, 5)), values={"--classes": "background,cell"}),
    Case("--judged must be a rectangle where", "import images out.zarr --labels masks --judged roi",
         instead={"roi": "0:30,0:40"}),
    Case("shapes must not overlap", "import images out.zarr --labels drawn --overlaps refuse",
         lambda: outlines((5, 5), (10, 5)), instead={"refuse": "smaller"}),
    Case("say --kind classes for a class map, --ignore", "import images out.zarr --labels odd",
         lambda: specks([255]), values={"--ignore": "255"}, open_end=True),
    Case("the values {} in {}; leave the option out if the numbers",
         "import images out.zarr --labels masks --connected-components",
         then="import images out.zarr --labels masks"),
    Case("the same in all, got {}; leave the option out",
         "import images out.zarr --labels odd --connected-components",
         lambda: [picture(f"odd/{s}.png", ((LABELS == 1) * n).astype(np.uint8))
                  for s, n in (("a", 1), ("b", 2))],
         then="import images out.zarr --labels odd"),
    Case("masks of classes must hold small whole numbers",
         "import images out.zarr --labels odd --kind classes",
         lambda: masks(np.array([0, 100, 200, 233], np.uint8)[LABELS]),
         values={"--ignore": "233", "--classes": "a,b,c,d"}),
    Case("bring the others in with --damaged fill", "import torn.tif out.zarr", torn),
    Case("damaged must be error where the input must be complete",
         "import images out.zarr --require-complete-input --damaged fill"),
    Case("{} must come with --labels", "import images out.zarr --kind classes",
         values={"--labels": "masks"}, whole=True),
    Case("--classes must come with --kind classes",
         "import images out.zarr --labels masks --classes a,b,c,d", whole=True),
    Case("must come with instances, got --kind {}",
         "import images out.zarr --labels odd --kind classes --connected-components", binary),
    Case("samples must be named to be removed", "remove cells.zarr",
         instead={"cells.zarr": "cells.zarr a"}),
    Case("images must have equally many channels", "import images out.zarr",
         lambda: picture("images/c.png", np.dstack([IMAGE] * 3) + np.arange(3, dtype=np.uint8)),
         values={"--channels": "0"}),
    Case("images must have as many channels as", "import more cells.zarr --append",
         lambda: picture("more/c.png", np.dstack([IMAGE] * 3) + np.arange(3, dtype=np.uint8)),
         values={"--channels": "0"}),
    Case("labels must be of the kind that",
         "import more cells.zarr --append --labels odd --kind classes",
         lambda: (picture("more/c.png", IMAGE + 3), picture("odd/c.png", LABELS)),
         values={"--kind": "instances"}),
    Case("classes must be those of", "import more tissue.zarr --append --labels odd"
         " --kind classes --classes p,q,r,s",
         lambda: (run("import images tissue.zarr --labels masks --kind classes --classes a,b,c,d"),
                  picture("more/c.png", IMAGE + 3), picture("odd/c.png", LABELS))),
    Case("unetkit remove {}", "import more cells.zarr --append --labels masks",
         lambda: (picture("more/a.png", IMAGE + 3), Path("masks/b.png").unlink())),
    Case("mask must differ from its image", "import masks out.zarr --labels copy",
         lambda: (shutil.copytree("masks", "copy"), masks(LABELS * 2)),
         values={"--labels": "odd"}),
    Case("masks must hold values that are named as classes",
         "import images out.zarr --labels masks --kind classes --classes 0=a,1=b,2=c",
         values={"--classes": "0=a,1=b,2=c,3=d", "--ignore": "3"}),
    Case("TIFF with dimensions", "import cube.tif out.zarr",
         lambda: tifffile.imwrite("cube.tif", np.zeros((5, 40, 40), np.uint8),
                                  photometric="minisblack", metadata=None)),
    Case("{} --labels {}", "import more out.zarr --labels odd",
         lambda: [(picture(f"more/{s}_im.png", IMAGE + n), picture(f"odd/{s}.png", LABELS))
                  for n, s in enumerate("pq")]),
    Case("--labels {}", "import images out.zarr --labels odd",
         lambda: [picture(f"odd/{s}_mask.png", LABELS) for s in "ab"]),
    Case("came in as an image, and may be the mask", "import 'images' out.zarr",
         lambda: picture("images/a_seg.png", LABELS),
         then="import 'images/?.png' out.zarr"),
    Case("must be a regular expression or a CSV file", "import images out.zarr --group '(.'",
         values={"--group": "(.)"}, open_end=True),
    Case("must have a part in brackets", "import images out.zarr --group .",
         values={"--group": "(.)"}, open_end=True),
    Case("--group must be of several images", "import images/a.png out.zarr --group '(.)'"),
    Case("images must have a group as the samples", "import more some.zarr --append",
         lambda: (run("import images some.zarr --group '(.)'"), picture("more/c.png", IMAGE + 3)),
         values={"--group": "(.)"}),
    Case("images must be of no group as the samples",
         "import more cells.zarr --append --group '(.)'",
         lambda: picture("more/c.png", IMAGE + 3)),
    # augment and weights
    Case("movements would have folded", "augment cells.zarr out.zarr --copies 3 --sigma 12",
         whole=True, values={"--sigma": "1"}),
    Case("must hold originals only", "augment bent.zarr out.zarr",
         lambda: run("augment cells.zarr bent.zarr --copies 1"),
         instead={"bent.zarr": "cells.zarr"}, values={"--copies": "2"}),
    Case("must be a sample that 'unetkit augment' made",
         "augment cells.zarr out.zarr --replay cells.zarr/a",
         lambda: run("augment cells.zarr more.zarr --copies 1"),
         instead={"cells.zarr/a": "more.zarr/a-aug001"}),
    Case("to get weights beside its labels, got a stack", "weights stack.zarr", stack,
         then="augment stack.zarr out.zarr --axes cyx"),
    Case("it uses the second, too, with", "weights cells.zarr", then=TRAIN, whole=True),
    Case("for a {} in micrometres, got none", "weights cells.zarr --sigma 2um",
         first="import images cells.zarr --labels masks --overwrite",
         values={"--pixel-size": "0.5"}),
    Case("{} must name its {} dimensions", "augment stack.zarr out.zarr --copies 1", stack),
    Case("be left out where images are read at their own size",
         f"{PREDICT} -o out.zarr --scale 0.5 --no-rescale"),
    Case("{} must name its {} dimensions", "export stack.zarr", stack),
    Case("{} must name its {} dimensions", "measure stack.zarr", stack),
    Case("{} must name its {} dimensions",
         TRAIN.replace("cells.zarr", "stack.zarr"), stack),
    Case("{} must name its {} dimensions",
         "tile-predict cube.zarr --tile 16", lambda: zarr.save("cube.zarr", IMAGE[None])),
    # train
    Case("so that one can be held out, got", TRAIN.replace("cells", "one"),
         lambda: (Path("g.csv").write_text("image,group\na,m\nb,m\n"),
                  run("import images one.zarr --labels masks --group g.csv")),
         first="import images one.zarr --labels masks --overwrite --group g.csv"),
    Case("samples have no stored weights", TRAIN, whole=True),
    Case("has no {}; run 'unetkit import'", TRAIN.replace("cells", "bare"),
         first="import images bare.zarr --overwrite", values={"--labels": "masks"}),
    Case("must hold originals beside augmented copies", TRAIN.replace("cells", "bent"),
         lambda: (run("augment cells.zarr bent.zarr --copies 1 -q"),
                  run("remove bent.zarr a b -q")),
         first="augment cells.zarr bent.zarr --copies 1 --overwrite"),
    Case("must be built as that of init",
         f"{TRAIN} --set depth=2 --init wide.safetensors".replace("--set depth=1", ""),
         lambda: run(f"{TRAIN} -o wide.safetensors -q")),
    Case("holds what a training that was stopped", TRAIN, lambda: stopped(TRAIN),
         then=f"{TRAIN}"),
    Case("must be as it was written, got {}; add --overwrite", f"{TRAIN} --resume",
         stop_and(TRAIN, lambda: rewrite("new.train/*.safetensors", lambda b: b[: len(b) // 2]))),
    Case("device must be there", f"{TRAIN} --device cuda:7"),
    Case("output {} must not exist yet, got something there; add --overwrite",
         "measure slide.prediction.zarr --csv x.csv",
         lambda: run("measure slide.prediction.zarr --csv x.csv -q")),
    *(Case("add --overwrite to replace it", words, partial(run, f"{words} -q")) for words in (
        "import images out.zarr", "augment cells.zarr out.zarr --copies 1", "weights cells.zarr",
        "export slide.prediction.zarr", "models export model.safetensors --size 60",
        f"{TRAIN} -o again.safetensors", PREDICT)),
    Case("to be replaced by --overwrite, got", "import images odd --overwrite",
         lambda: picture("odd/a.png", IMAGE), instead={"odd": "out.zarr"}),
    # tile-predict
    Case("must hold finite numbers that fit float32", "tile-predict nan.zarr --tile 16", nan_slide),
    Case("choose with --channels, or name another --model", "tile-predict pair.zarr",
         values={"--channels": "1", "--model": "two.safetensors"}),
    Case("add --overwrite to replace them", "tile-predict slide.zarr --tile 16 --in-place",
         lambda: run("tile-predict slide.zarr --tile 16 --in-place -q")),
    Case("got one model that looks once; add --tta flips",
         "tile-predict slide.zarr --tile 16 --uncertainty --output out.zarr"),
    Case("--in-place must come without --output",
         "tile-predict slide.zarr --tile 16 --in-place --output out.zarr"),
    Case("got --at {}; leave out --in-place",
         "tile-predict slide.zarr --tile 16 --in-place --at model", open_end=True),
    Case("got the {} {}; leave out --in-place", "tile-predict cells.zarr --tile 16 --in-place"),
    Case("{} absent, such as {}; copy it again", "tile-predict slide.zarr"
         " --require-complete-input -o out.zarr", lambda: shutil.rmtree("slide.zarr/0/c/0/0")
         if Path("slide.zarr/0/c/0/0").is_dir() else Path("slide.zarr/0/c/0/0").unlink()),
    Case("memory must hold {} of {} pixels", "tile-predict slide.zarr -o out.zarr --tile 20000"
         " --dry-run --max-memory 3G"),
    Case("mask must be given with a single image", "tile-predict cells.zarr --mask slide.zarr"),
    Case("must have the channels that the model was trained on", "tile-predict named.zarr",
         lambda: (tiny_model("model.safetensors", chosen="DAPI"),
                  noise_image("named.zarr", (2, 64, 60), axes="cyx"),
                  attributes("named.zarr", lambda a: a["ome"].update(
                      omero={"channels": [{"label": "x"}, {"label": "y"}]}))),
         values={"--channels": "x"}),
    Case("axes must be {} as {} says itself", "tile-predict slide.zarr --axes zyx -o out.zarr"),
    Case("the model file must exist", "tile-predict slide.zarr -o out.zarr",
         lambda: Path("model.safetensors").rename("other.safetensors"),
         then="tile-predict slide.zarr -o out.zarr",
         values={"--model": "other.safetensors"}),
    *(Case(said, f"tile-predict slide.zarr -o out.zarr --model {name}", prepare,
           instead={name: "model.safetensors"}) for said, name, prepare in (
        ("a model file must be a .safetensors file", "notes.txt",
         lambda: Path("notes.txt").write_text("x")),
        ("a model file must be written by", "bare.safetensors",
         lambda: Path("bare.safetensors").write_bytes(
             (2).to_bytes(8, "little") + b"{}")),
        ("the model must be a file that can be read", "images", None))),
    Case("must be a Zarr store, got a model file", "tile-predict model.safetensors",
         then="tile-predict slide.zarr -o out.zarr", values={"--model": "model.safetensors"}),
    Case("must not have been begun, got the tiles", PREDICT, lambda: stopped(PREDICT)),
    Case("to start afresh", f"{PREDICT} --resume --threshold 0.9 --probabilities float32",
         lambda: stopped(PREDICT)),
    Case("had written, got another", f"{PREDICT} --resume",
         stop_and(PREDICT, lambda: rewrite(
             ".slide*partial/zarr.json", lambda b: b.replace(b'"image"', b'"array"', 1)))),
    Case("must say what was begun as it was written", f"{PREDICT} --resume",
         stop_and(PREDICT, lambda: rewrite(
             ".slide*partial/.unetkit/fingerprint.json", lambda b: b[:9]))),
    Case("must be finished to be verified", "verify .slide.prediction.zarr.unetkit-partial",
         lambda: stopped(PREDICT), then=PREDICT),
    Case("must be a finished output, got an incomplete",
         "measure .slide.prediction.zarr.unetkit-partial",
         lambda: stopped(PREDICT), then=PREDICT),
    Case("with the checksums it was published with", "verify cells.zarr",
         instead={"cells.zarr": "slide.prediction.zarr"}),
    Case("options must be set for an installed model",
         "models check model.safetensors --set width=2", open_end=True),
    # view, which ends where it draws a picture, if there is a browser
    Case("choose with --sample {}", "view cells.zarr --png a.png", open_end=True),
    Case("overwrite must be given with a picture", "view slide.zarr --overwrite", open_end=True),
    Case("name the new one last, or leave --mix out", f"{TRAIN} --mix 0.5"),
    Case("two datasets, of which the last is new", f"{TRAIN} --keep-old"),
    # review
    Case("say where it is with --image", "review slide.prediction.zarr --count 3",
         lambda: Path("slide.zarr").rename("away.zarr"), values={"--image": "away.zarr"}),
    Case("name the image that was predicted with --image",
         "review slide.prediction.zarr --count 3 --image cells.zarr/a",
         values={"--image": "slide.zarr"}),
    Case("region must be given to score what was judged",
         "review slide.prediction.zarr --region r.tif",
         lambda: (judged(), picture("r.tif", np.ones((64, 60), np.uint8))),
         values={"--score": "j.json"}),
    Case("must be given to make a page, got --score",
         "review slide.prediction.zarr --score j.json --count 3", judged),
    Case("what was judged must be a dataset, or y0:y1", "suggest unsure.zarr --judged 5:1,2:3",
         lambda: run(f"{PREDICT} --tta flips --uncertainty -o unsure.zarr -q"),
         then="suggest unsure.zarr --window 16 --count 1", open_end=True),
    # eval, measure, export
    Case("eval must get one prediction", "eval cells.zarr",
         lambda: [shutil.copytree("cells.zarr", f"{n}.zarr") for n in ("a", "b", "truth")]),
    Case("--objects and --report must be of one",
         "eval cells.zarr cells.zarr --truth cells.zarr --objects o.csv",
         then="eval cells.zarr cells.zarr --objects o.csv"),
    Case("are worked out with --borders", "eval cells.zarr cells.zarr --json", whole=True),
    Case("--fail-under must name a score", "eval cells.zarr cells.zarr --fail-under dic=1"),
    Case("--fail-under must give a number", "eval cells.zarr cells.zarr --fail-under dice=x",
         instead={"dice=x": "dice=0.9"}),
    Case("micrometres in {}; run 'unetkit import'", "eval near.zarr far.zarr",
         lambda: [run(f"import images {n}.zarr --labels masks --pixel-size {p} -q")
                  for n, p in (("near", 0.5), ("far", 0.7))],
         first="import images far.zarr --labels masks --overwrite",
         values={"--pixel-size": "0.5"}),
    *(Case("must have labels named instances or classes", words, foreign, open_end=True)
      for words in (TRAIN, "weights cells.zarr", "measure cells.zarr", "export cells.zarr",
                    "eval cells.zarr cells.zarr")),
    Case("labels must be a name such as", "measure cells.zarr --labels a=b",
         instead={"a=b": "instances"}),
    Case("rim must be that of regions", "measure slide.prediction.zarr --csv x.csv --rim touch",
         values={"--region": "slide.zarr"}),
    Case("rim must be that of instances", "measure t.zarr --region cells.zarr --rim touch",
         lambda: run("import images t.zarr --labels masks --kind classes --classes a,b,c,d -q")),
    Case("samples of {} must be among", "remove cells.zarr nobody",
         instead={"nobody": "a"}),
    *(Case("unetkit remove {}", words, lambda: shutil.rmtree("cells.zarr/a"))
      for words in (TRAIN, "measure cells.zarr", "info cells.zarr")),
    Case("output must end with", "export slide.prediction.zarr --to tiff -o x.png"),
    Case("use --layer {}", "export cells.zarr --layer probabilities"),
    Case("probabilities must be exported to tiff",
         "export slide.prediction.zarr --layer probabilities --to png"),
    Case("a {} must hold one plane", "export deep.zarr --to png",
         lambda: run("import deep.tif deep.zarr --labels deepmask.tif --axes zyx -q")
         if [tifffile.imwrite(n, np.stack([a, a])) for n, a in (
             ("deep.tif", IMAGE), ("deepmask.tif", LABELS))] else None),
    Case("must come with a card", "info model.safetensors --license MIT"),
    Case("a card must be of a model", "info slide.zarr --card"),
    # stores that are none
    Case("unetkit import {}", "augment images out.zarr --copies 1"),
    Case("unetkit import {}", "tile-predict 'images/a b.png'",
         lambda: picture("images/a b.png", IMAGE)),
    Case("got a file; run 'unetkit import' with an image", "info notes.txt",
         lambda: Path("notes.txt").write_text("x"), then="import images/a.png out.zarr"),
    Case("name what lies inside it, or run", "tile-predict group.zarr",
         lambda: zarr.create_group("group.zarr").create_array("x", data=IMAGE),
         then="tile-predict group.zarr/x -o out.zarr"),
    Case("whose axes are described otherwise", "tile-predict slide.zarr -o out.zarr",
         lambda: attributes("slide.zarr", lambda a: (
             a["ome"].update(version="0.6"), a["ome"]["multiscales"][0].pop("axes"))),
         instead={"slide.zarr": "slide.zarr/0"}, values={"--axes": "yx"}),
    Case("name the array inside it, with --axes", "tile-predict slide.zarr -o out.zarr",
         lambda: attributes("slide.zarr", lambda a: a["ome"]["multiscales"][0].update(axes=7)),
         instead={"slide.zarr": "slide.zarr/0"}, values={"--axes": "yx"}),
    Case("seed-level must be above the threshold", f"{PREDICT} -o out.zarr --separate watershed"
         " --seed-level 0.5", values={"--seed-level": "0.8", "--threshold": "0.4"}),
    Case("where what touches is one object", f"{PREDICT} -o out.zarr --seed-level 0.8"),
    Case("tune must get a model file", "tune model.safetensors", open_end=True),
    Case("model {} takes, got {}; choose", "tune model.safetensors stained.zarr --device cpu",
         two_channels, values={"--channels": "1"}),
    Case("lists what there is", "train cells.zarr --stepz 3", open_end=True),
]


# fmt: on
# Messages whose advice no small test can follow, and why.
EXCUSED = {
    "--object-classes must come with --kind instances+classes": "masks with class maps;"
    " tests/commands/import_images/test_class_maps.py",
    "--object-classes must come with masks": "the same",
    "classes must name every value of the class maps": "the same",
    "objects must be of a class, got": "the same",
    "are these maps of classes? join values by --classes": "the same",
    "kind must be instances or classes where labels are masks": "the same",
    "--connected-components must be left out where objects have classes": "a store whose objects"
    " have classes; tests/commands/import_images/test_stored.py",
    "objects must be of the classes {}, got the class {}": "the same",
    "output must be probabilities, classes or uncertainty for a Dask array": "said from Python"
    " alone; tests/commands/tile_predict/test_arrays.py",
    "outputs must be different files": "a name again; tests/commands/test_suggest.py",
    "a rectangle that was judged must be of a single image": "several images;"
    " tests/commands/test_suggest.py",
    "geojson must be of a single image": "the same",
    "keep-old must compare with a model": "a model of others; tests/commands/train/test_mixing.py",
    "hold out others with another --seed": "windows of what is held out; the same",
    "has learned from {} of the {} samples": "a warning of what was trained otherwise; the same",
    "must not have been begun, got the trainings of a run": "a run that was stopped;"
    " tests/commands/train/test_curve.py",
    "'unetkit tile-predict {}'": "what it writes is named instead of the image;"
    " tests/commands/test_suggest.py",
    "'unetkit tile-predict --min-size' with fewer may find them": "what misses small objects;"
    " tests/commands/evaluate/test_object_errors.py",
    "unetkit review {}": "a browser saves the file; tests/views/test_review_page.py follows it",
    "must be what a page of 'unetkit review' saved": "the same",
    "Start with: unetkit demo": "minutes; tests/commands/demo walks it, and what it proposes",
    "'unetkit demo {}'": "tests/commands/demo/test_command.py follows it",
    "unetkit weights {}": "the same",
    "keeps them apart": "images of such names; tests/training/test_split.py",
    "unetkit info {}": "the demo's proposals, which are the README's path",
    "unetkit eval {} {}": "the same",
    "unetkit measure {} {} --csv": "the same",
    "unetkit import images/ --labels": "the same",
    "unetkit train data.zarr": "the same",
    "unetkit import slide.tif": "the same",
    "unetkit tile-predict slide.zarr": "the same",
    "must be one scene, got": "a reader of scenes; tests/commands/import_images/test_scenes.py",
    "got none; use fewer --workers": "a system without threads",
    "{}, or --max-memory": "other ends of one sentence",
    "use fewer --workers": "the same",
    "use a lower --batch": "several tiles at once, on a GPU",
    "use a smaller --tile, a lower": "a GPU without memory",
    "must hold and list what a run": "tests/commands/tile_predict/test_resume.py takes parts away",
    "memory must hold the work": "a machine whose memory ends in the middle of the work",
    "every worker of scheduler": "workers that are killed; tests/engine/test_schedulers.py",
    "scheduler '{}' must answer": "ten seconds of waiting",
    "an unfinished evaluation is": "tests/commands/evaluate/test_resume.py cuts evaluations short",
    "eval must go on to its end": "the same",
    "leave --resume out to start": "the same",
    "stored pixels must be what": "a network that says something else again",
    "the network's output must be finite": "a network that overflows",
    "the loss must be finite": "a training that diverges",
    "must list its chunks": "a server that lists nothing; tests/commands/tile_predict/test_input",
    "tiles or strips, got": "tests/storage/test_tiff.py makes such files",
    "give the same command with --resume": "a signal; test_reliability.py goes on after it",
    "{}; {}, or take the best model": "the same",
    "the tiles that are done are kept": "a bug",
    "A narrower network is quicker": "a training of hours",
    "tensorboard must be installed": "an environment without it",
    "weights of a loss must be": "weights of an earlier version",
    "must have its log beside it": "two trainings",
    "must be the best model as it": "a stopped training with a damaged model; test_run_folder.py",
    "choose those that mean": "samples that import refuses to put into one dataset",
    "have equally many channels, got {} in {}": "the same",
    "the same names of classes": "the same",
    "classes must have a name each": "the same",
    "ids must be": "ids that no small image holds; tests/commands/test_export_prediction.py",
    "must be one plane to be written": "refused by the command before",
    "{} must not exist yet, got something": "a folder that appears meanwhile",
    "must be an OME-Zarr image to get": "Python alone",
    "run 'unetkit import' first": "a dataset without samples, which nothing writes",
    "scheduler file must be": "needs dask at work; tests/engine/test_clusters.py",
    "must look like those that": "a model with a memory of its images; test_input_shift.py",
    "say it with --pixel-size": "the same",
    "channels must be known by the names": "a model of two channels; tile_predict/test_input.py",
    "have no names and are taken in their order": "the same",
    "times as large as": "a model that knows its pixel size; test_magnification.py",
    "say how large they are with --pixel-size": "the end of the same sentence",
    "to be read at {} micrometres": "images that have none; train/test_pixel_size.py",
    "must have one job at a time": "two jobs; tests/storage/test_lock.py",
    "must name the job that is at": "the same",
    "must be readable, got '{}'": "a disk that fails; tests/storage/test_retry.py",
    "nproc-per-node must": "several GPUs",
    "all processes of a training": "several processes; tests/commands/train/test_run.py",
    "batch must be at least {} for": "the same",
    "roifile must be installed": "an environment without a package",
    "as the model finds, got": "labels of two kinds in one dataset, which import does not write",
    "objects to train on must have classes": "outlines of classes; commands/train",
    "objects must be of one of at most": "the same",
    "objects must have {} as those of": "outlines of classes; commands/test_object_classes.py",
    "shapes must come without --ignore,": "what is to be left out is named; test_shapes.py",
    "lay in several shapes": "a rule that is chosen is told of likewise",
    "NaN or Inf around row": "an image that changes while it is read",
    "pip install 'unetkit[": "an environment without a package",
    "napari must be installed": "the same",
    "a browser must be installed": "a machine without a browser; tests/commands/test_view.py",
    "the browser must draw the page": "the same",
    "name a table that 'unetkit measure'": "another command's table; storage/test_marks.py",
    "the models' own decisions differ": "models that were tuned apart",
    "must come with a package, got": "the extra onnx, and seconds; commands/test_export_model.py",
    "a package must take any size": "the same",
    "or a name and an affiliation": "the same",
    "must be one whose tiles equal": "the same",
    "name other images with --sample": "the same",
    "so the package has no cover": "the same",
    "for one size alone, or": "a network that torch can't trace; tests/models/test_export.py",
    "that 'unetkit models export' puts": "a package of another program; test_export_model.py",
    "since this file keeps no intervals": "a model card, no refusal",
    "use --tile {}": "the other end of a sentence that has a case",
}


def test_every_message_has_a_case_or_an_excuse():
    known = {*(case.said for case in CASES), *EXCUSED}
    texts = {m.text for m in messages()}
    assert {t for t in texts if not any(part in t for part in known)} == set()
    assert {part for part in known if not any(part in t for t in texts)} == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_advice_that_is_followed_works(case, lab, capsys):
    found = [m for m in messages() if case.said in m.text]
    assert found, case.said
    lab("first")
    (case.prepare or (lambda: None))()
    capsys.readouterr()
    run(case.words)
    said = " ".join(capsys.readouterr())
    lines = [t for m in found for t in re.findall(f"[^\n]*{pattern(m.text)}[^\n]*", said)]
    assert lines, said
    text = lines[0]
    todo = list(remedies(case, text))
    assert todo, f"no advice is found in {text}"
    for number, commands in enumerate(todo):
        lab(number)
        (case.prepare or (lambda: None))()
        capsys.readouterr()
        codes = [run(words) for words in commands]
        after = " ".join(capsys.readouterr())
        assert not any(re.search(pattern(m.text), after) for m in found), (commands, after)
        assert case.open_end or codes[-1] == 0, (commands, after)
