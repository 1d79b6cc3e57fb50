"""What goes wrong ends in one sentence and the right exit code; nothing is created or lost."""

import hashlib
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetkit.cli.app import main
from unetkit.commands.import_images.command import import_images
from unetkit.commands.train.command import train


def snapshot(folder):
    """Return every file below a folder with its hash, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a dataset, a slide, a model, a prediction's truth and odd things, once."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks", "larger_masks", "foreign.zarr", "empty"):
        (folder / kind).mkdir()
    labels = np.zeros((64, 72), np.uint8)
    for k in range(6):
        labels[8 + 20 * (k // 2) : 20 + 20 * (k // 2), 8 + 30 * (k % 2) : 22 + 30 * (k % 2)] = k + 1
    picture = (40 + 120 * (labels > 0) + rng.integers(0, 30, labels.shape)).astype(np.uint8)
    for name in ("a", "b"):
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{name}.png")
    Image.fromarray(np.pad(labels, 3)).save(folder / "larger_masks" / "a.png")
    Image.fromarray(np.pad(labels, 3)).save(folder / "larger_masks" / "b.png")
    (folder / "foreign.zarr" / "thesis.docx").write_text("three years of work")
    (folder / "not_a_model.safetensors").write_bytes(b"PK\x03\x04 something else")

    def at(name):
        return str(folder / name)

    import_images(at("images"), at("data.zarr"), labels=at("masks"))
    import_images(at("images/a.png"), at("slide.zarr"))
    hole = picture.astype(np.float32)
    hole[30, 40] = np.nan
    tifffile.imwrite(folder / "hole.tif", hole)
    import_images(at("hole.tif"), at("hole.zarr"))
    Image.fromarray(np.pad(picture, 3)).save(folder / "padded.png")
    import_images(at("padded.png"), at("padded.zarr"), labels=at("larger_masks/a.png"))
    train(
        at("data.zarr"),
        output=at("model.safetensors"),
        options=("width=2", "depth=4"),
        steps=1,
        device="cpu",
        precision="float32",
    )
    return folder


@pytest.fixture
def lab(made, tmp_path, monkeypatch):
    """Work in a copy that each test may break."""
    folder = tmp_path / "lab"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


FAILURES = [
    ("import nowhere/ out.zarr", 3, "nowhere"),
    ("import empty/ out.zarr", 3, "empty"),
    ("import images/ --labels larger_masks/ out.zarr", 3, "70 x 78|64 x 72"),
    ("import images/ --labels masks/ data.zarr", 4, "--overwrite"),
    ("import images/ --labels masks/ foreign.zarr --overwrite", 4, "foreign.zarr"),
    ("import images/ --kind shapes out.zarr", 2, "shapes"),
    ("augment nowhere.zarr out.zarr", 3, "nowhere.zarr"),
    ("augment data.zarr data.zarr", 4, "data.zarr"),
    ("augment data.zarr data.zarr --overwrite", 4, "data.zarr"),
    ("augment data.zarr ./images/../data.zarr/ --overwrite", 4, "data.zarr"),
    ("weights nowhere.zarr", 3, "nowhere.zarr"),
    ("weights empty", 3, "empty"),
    ("weights slide.zarr", 3, "label"),
    ("train nowhere.zarr", 3, "nowhere.zarr"),
    ("train slide.zarr -o out.safetensors", 3, "--labels"),
    ("train data.zarr", 4, "model.safetensors"),
    ("train data.zarr -o out.safetensors --model unett", 2, "did you mean 'unet'"),
    ("train data.zarr -o out.safetensors --set wide=3", 2, "width"),
    ("train data.zarr -o out.safetensors --set width=broad", 2, "width"),
    ("train data.zarr -o out.safetensors --time-budget soon", 2, "soon"),
    ("train data.zarr -o out.safetensors --device abacus", 2, "abacus"),
    ("tile-predict nowhere.zarr", 3, "nowhere.zarr"),
    ("tile-predict empty", 3, "empty"),
    ("tile-predict images/a.png", 3, "unetkit import"),
    ("tile-predict slide.zarr --model unet", 3, "unet"),
    ("tile-predict slide.zarr --model not_a_model.safetensors", 3, "not_a_model"),
    ("tile-predict slide.zarr --overlap 91", 2, "overlap must be at least 92"),
    ("tile-predict slide.zarr --tile 500", 2, "tile must be a multiple of 16 .* 496 or 512"),
    ("tile-predict slide.zarr -o slide.zarr", 4, "slide.zarr"),
    ("tile-predict slide.zarr -o slide.zarr --overwrite", 4, "slide.zarr"),
    ("tile-predict slide.zarr -o data.zarr", 4, "--overwrite"),
    ("tile-predict slide.zarr -o foreign.zarr --overwrite", 4, "foreign.zarr"),
    ("tile-predict slide.zarr --channels 3", 2, "3"),
    ("tile-predict hole.zarr", 6, "NaN"),
    ("eval nowhere.zarr data.zarr", 3, "nowhere.zarr"),
    ("eval data.zarr slide.zarr", 3, "label|truth|sample"),
    ("eval slide.zarr padded.zarr", 3, "70|label"),
    ("info nowhere.zarr", 3, "nowhere.zarr"),
    ("info empty", 3, "empty"),
    ("info images/a.png", 3, "unetkit import"),
    ("models show unett", 2, "did you mean 'unet'"),
    ("models show nothing.safetensors", 3, "nothing.safetensors"),
    ("models check unet --set wide=3", 2, "width"),
    ("models check not_a_model.safetensors -q", 3, "a zip file"),
    ("models export not_a_model.safetensors -q", 3, "a zip file"),
    ("models export model.safetensors -o foreign.zarr -q", 4, "foreign.zarr"),
    ("plugins new data.zarr", 4, "data.zarr"),
    ("plugins new 3nets", 2, "3nets"),
    ("bake data.zarr", 2, "bake"),
    ("train data.zarr --temperature 180", 2, "temperature"),
]


@pytest.mark.parametrize(("command", "code", "words"), FAILURES, ids=[f[0] for f in FAILURES])
def test_one_sentence_the_right_code_nothing_created_nothing_lost(
    command, code, words, lab, capsys
):
    before = snapshot(lab)
    assert main(command.split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert "Traceback" not in captured.err
    assert re.search(words, captured.err), captured.err
    assert last.startswith("error: ")
    assert snapshot(lab) == before


class _Ending:
    """Sends a signal to this process when a file is opened while something is held in a folder."""

    folder: Path | None = None

    def __call__(self, event, arguments):
        if event != "open" or self.folder is None:
            return
        if any(
            path.name.endswith((".lock", ".unetkit-partial")) for path in self.folder.rglob("*")
        ):
            self.folder = None
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def ending():
    """Return what ends a command; a hook can't be taken away again."""
    hook = _Ending()
    sys.addaudithook(hook)
    return hook


@pytest.mark.parametrize(
    "command",
    [
        "import images/ --labels masks/ out.zarr",
        "augment data.zarr more.zarr --copies 1",
        "tile-predict slide.zarr --precision float32",
        "weights data.zarr",
        "train data.zarr -o new.safetensors --set width=2 --set depth=4 --steps 1",
        "eval data.zarr data.zarr --resume",
    ],
)
def test_a_signal_before_the_work_begins_lets_go_of_what_is_held(command, lab, capsys, ending):
    before = snapshot(lab)
    ending.folder = lab
    assert main([*command.split(), "-q"]) == 143
    assert ending.folder is None
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch("error: .*got (SIGTERM|a signal).*", line)
    left = snapshot(lab)
    assert not [name for name in left if name.endswith(".lock")]
    assert {name: left[name] for name in before} == before
    resume = ["--resume"] * ("--resume" in line and "--resume" not in command)
    assert main([*command.split(), "-q", *resume]) == 0


def test_without_a_model_file_the_option_is_named(lab, capsys):
    (lab / "model.safetensors").unlink()
    before = snapshot(lab)
    assert main(["tile-predict", "slide.zarr"]) == 3
    assert "--model" in capsys.readouterr().err
    assert snapshot(lab) == before


def test_the_same_commands_succeed_where_nothing_is_wrong(lab):
    """Show that the failures above are not those of a lab in which nothing works."""
    for command in (
        "import images/ --labels masks/ out.zarr",
        "augment data.zarr more.zarr --copies 1",
        "weights data.zarr",
        "tile-predict slide.zarr --overlap 92 --precision float32",
        "tile-predict hole.zarr --nonfinite fill --precision float32",
        "eval data.zarr data.zarr",
        "info slide.prediction.zarr",
    ):
        assert main(command.split()) == 0, command
