import errno
import json
import signal
import sys
from functools import partial

import pytest

from tests.cli.conftest import python
from unetkit import errors
from unetkit.cli.app import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian", "x"], "Did you mean 'train'? 'unetkit --help' lists what there is"),
        (["train"], "Missing argument"),
        (["train", "data.zarr", "--steps", "many"], "--steps"),
        (["train", "data.zarr", "--steps", "0"], "--steps"),
        (["train", "data.zarr", "--overlp", "3"], "--overlp"),
        (
            ["import", "a", "b", "--kind", "cells"],
            "for '--kind': 'cells' is not one of 'instances', 'classes', 'instances+classes';"
            " 'unetkit import --help'",
        ),
        (["augment", "a", "b", "--grid", "1"], "for '--grid': "),
        (["tile-predict", "a", "--threshold", "2"], "for '--threshold': "),
        (["info", "a", "b"], "b"),
        (["--nothing"], "--nothing"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments, said, typed):
    out, err = typed(arguments, 2)
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "--help" in err
    assert err.count("\n") == 1


# What no data is needed to refuse, with the exit code; `here` is there, and a few of our outputs.
REFUSED = """
2 tile-predict here --threshold 1
2 tile-predict here --threshold 2
2 tile-predict here --max-memory much
2 tile-predict here --pixel-size wide
2 tile-predict here --axes q
2 tile-predict here --scheduler thread
2 tile-predict here --scheduler local:0
2 tile-predict here --scheduler tcp://host
2 tile-predict here --device gpu
2 tile-predict here --separate components --seed-size 3
2 tile-predict here --resume --overwrite
2 tile-predict here --overview a.jpg
3 tile-predict here
3 tile-predict here --model absent.safetensors
3 tile-predict absent.zarr --model here
2 train here --steps 0
2 train here --recipe fast
2 train here --recipe-set speed=2
2 train here --recipe-set batch=0
2 train here --recipe-set loss=ce --loss dice
2 train here --loss nice
2 train here --time-budget soon
2 train here --target cells
2 train here --normalization nice
2 train here --model nonet
2 train here --output model.pt
2 train here --device tpu
3 train absent.zarr
2 tune here
2 tune here here --output a.pt
2 tune here here --device cuda:x
3 tune here absent.zarr
2 eval here
2 eval here here here
2 eval here here --scheduler many
2 eval here here --truth here --objects a.csv
2 eval here here --truth here --report a.html
3 eval here absent.zarr
3 eval here --truth absent.zarr
2 measure here --pixel-size 0
2 measure here --scheduler many
3 measure absent.zarr
3 measure here absent.zarr
3 measure here --region absent.geojson
2 measure here --rim outside
2 curve here --draws 0
2 curve here --more 0
2 curve here --time-budget soon
2 curve here --set widht=3
2 curve here --resume --overwrite
3 curve absent.zarr
2 suggest here --count 0
2 suggest here --window 8
2 suggest here --scheduler many
2 suggest here --sheet a.jpg
3 suggest absent.zarr
3 suggest here --image absent.zarr
2 view here --png picture.jpg
2 view here --axes q
2 view here --annotations drawn.txt
2 view here --annotations drawn.geojson --napari
3 view absent.zarr
3 view here --image absent.zarr
3 view here --points absent.csv
2 train here --mix 0.5
2 train here here --mix 0
2 train here here --mix 2
2 train here here --keep-old
3 train here absent.zarr
2 correct here --from here --judged 9:0,0:9
2 correct here --from here --judged seen --context=-1
3 correct here --from absent.tif --judged seen
4 correct here --from here --judged seen -o made.zarr
2 review here --count 0
2 review here --seed=-1
2 review here --scheduler many
3 review absent.zarr
3 review here --score absent.json
3 review here --image absent.zarr
2 weights here --preset best
2 weights here --sigma wide
2 weights here --sigma=-1
2 weights here --w0=-1
2 weights here --target cells
2 weights here --resume --overwrite
3 weights absent.zarr
2 augment here out --sigma wide
2 augment here out --copies 1000
2 augment here out --grid 65
2 augment here out --grey 11
3 augment absent.zarr out
2 import here out --pixel-size wide
2 import here out --axes q
2 import here out --append --overwrite
2 import here out --require-complete-input --damaged fill
2 import here out --labels here --classes a,b
2 import here out --labels here --kind classes --classes a,a
2 import here out --labels here --kind classes --classes 0-3=a,2=b
2 import here out --labels here --kind classes --connected-components
2 import here out --labels here --judged 5:2,0:9
2 import here/*.png out --kind classes
2 import made.zarr out --ignore 255
3 export absent.zarr
3 verify absent.zarr
2 train here --set widht=3
2 train here --set width=many
2 train here --set width=2 --set width=3
2 train here --model keras-unet --set norm=batch
2 train here --model smp-unet --set widht=3
2 train here --model smp-dpt --set width=many
2 train here --model smp-linknet --set width=4
2 eval here here --fail-under dice=good
2 eval here here --fail-under dice
2 eval here here --fail-under dicee=0.9
4 import images here
4 import images here --overwrite
4 import images made.zarr
4 augment here made.zarr
4 train here -o made.safetensors
4 train here -o some.safetensors --folds 2
4 tile-predict here --model made.safetensors -o made.zarr
4 tile-predict slide.zarr --model made.safetensors
3 tile-predict absent.zarr --model made.safetensors -o made.zarr
4 export here -o made.zarr
4 models export made.safetensors -o made.zarr
4 models export some.safetensors
4 models export some.safetensors --to onnx
4 export slide.prediction.zarr
4 export slide.prediction.zarr --to geojson --overwrite
4 export made.zarr --to png
4 export made.zarr --to coco
4 export here --to coco
4 weights slide.zarr
4 weights made.zarr
4 curve here -o made.zarr
4 suggest here -o made.zarr
4 review here -o made.zarr
4 eval here here --objects made.zarr
4 eval here here --report made.zarr
"""
# How long each of them takes to load; a refusal is there before.
HEAVY = ("torch", "zarr", "dask", "distributed", "numba", "scipy", "skimage")


def test_what_needs_no_data_is_refused_before_anything_heavy_is_loaded(tmp_path):
    for name in ("here", "slide.zarr/weights", "slide.prediction.zarr", "made.zarr/one/weights"):
        (tmp_path / name).mkdir(parents=True)
    files = ["made.safetensors", "some.fold2.safetensors", "some.pt2", "some.onnx", "here.json"]
    files += ["slide.prediction.tif", "slide.prediction.geojson", "made-png", "made.json"]
    for name in files:
        (tmp_path / name).touch()
    marks = {"unetkit": {"kind": "dataset", "samples": [{"name": "two"}, {"name": "one"}]}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": marks}
    (tmp_path / "made.zarr" / "zarr.json").write_text(json.dumps(group))
    group["attributes"] = {"unetkit": {"kind": "image"}}
    (tmp_path / "slide.prediction.zarr" / "zarr.json").write_text(json.dumps(group))
    before = sorted(tmp_path.rglob("*"))
    program = (
        "import sys\n"
        "from unetkit.cli.app import main\n"
        "for line in sys.stdin.read().split('\\n'):\n"
        "    code, *words = line.split()\n"
        f"    got, loaded = main(words), sys.modules.keys() & {set(HEAVY)}\n"
        "    assert got == int(code) and not loaded, (line, got, loaded)"
    )
    run = python("-c", program, input=REFUSED.strip(), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("\n") == REFUSED.strip().count("\n") + 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.InputError, 3),
        (errors.MissingError, 3),
        (errors.LabelError, 3),
        (errors.OutputError, 4),
        (errors.ResourceError, 5),
        (errors.NonFiniteError, 6),
        (errors.CheckError, 7),
        (errors.UnavailableError, 75),
        (partial(errors.StoppedError, signal=signal.SIGTERM), 143),
    ],
)
def test_an_error_is_its_sentence_and_its_code(error, code, capsys, monkeypatch):
    fail_with(error("x must be y, got z"), monkeypatch)
    assert main(["info", "x"]) == code
    assert capsys.readouterr() == ("", "error: x must be y, got z\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.zarr"), 5, "No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "out.zarr"), 5, "Permission denied"),
        (MemoryError("Unable to allocate 3 TiB"), 5, "3 TiB"),
        (MemoryError(), 5, "got too little: this process holds "),
        (MemoryError(" "), 5, "iB are free; try a smaller --tile or fewer --workers"),
        (ImportError("x.so: failed to map segment from shared object"), 5, "memory must hold"),
        (RuntimeError("can't start new thread"), 5, "fewer --workers"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
        # A bug shows where it is.
        (RuntimeError("a bug"), 1, "a bug"),
        (ValueError("a bug"), 1, "a bug"),
        (OSError("a bug"), 1, "a bug"),
        (KeyError("a bug"), 1, "a bug"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, code, said, *, typed, monkeypatch):
    fail_with(error, monkeypatch)
    out, err = typed(["info", "x"], code)
    assert out == ""
    assert said in err
    assert err.startswith("Traceback") if code == 1 else err.count("\n") == 1


def fail_with(error, monkeypatch):
    def raises(source):
        raise error

    monkeypatch.setattr("unetkit.commands.info.info", raises)


def test_nothing_there_is_exit_3_and_creates_nothing(tmp_path):
    done = python("-m", "unetkit", "info", "nothing[/]\x1b[2J.zarr", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert "nothing[/]" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_libraries_are_not_for_the_user(typed, monkeypatch):
    def warns(source):
        import warnings

        warnings.warn("an old name", DeprecationWarning, stacklevel=2)
        return {"kind": source}

    monkeypatch.setattr("unetkit.commands.info.info", warns)
    monkeypatch.setattr(sys, "warnoptions", [])
    out, err = typed(["info", "x", "--json"])
    assert json.loads(out) == {"kind": "x"}
    assert err == ""
