"""What a user meets with: disks that fill up, halves that look finished, names and places.

Each test goes through the command line, in a process of its own where the whole process counts.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from unetkit.cli.app import main
from unetkit.commands.import_images.command import import_images
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import StoppedError
from unetkit.progress import Silent
from unetkit.storage.image_writer import create_image
from unetkit.storage.outputs import partial_url

PLAIN = ["--device", "cpu", "--precision", "float32", "--tile", "64", "--scheduler", "sync"]
UNETKIT = [sys.executable, "-m", "unetkit"]


@pytest.fixture
def desk(lab, small_model, monkeypatch):
    """Work in a folder with slide.zarr and model.safetensors."""
    monkeypatch.chdir(lab)
    import_images("big.tif", "slide.zarr")
    small_model.rename("model.safetensors")
    return lab


def contents(folder):
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def run(words, **more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | more.pop("env", {})
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(words, env=environment, text=True, timeout=300, check=False, **streams)


def stop_after(tiles):
    """Return a progress that ends the run by SIGTERM once some tiles are done."""

    class Progress(Silent):
        left = tiles

        def advance(self, parts=1, *, status=""):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    return Progress()


def interrupt(output="slide.prediction.zarr", *, after=3):
    with pytest.raises(StoppedError):
        tile_predict(
            "slide.zarr",
            output=output,
            tile=64,
            device="cpu",
            precision="float32",
            scheduler="sync",
            progress=stop_after(after),
        )


FULL = """
set -e
mount -t tmpfs -o size={size} none small
set +e
{command} > first 2>&1; echo $? > code1
ls -A small > left1
set -e
mount -o remount,size=64m small
{command} --resume --json > report; echo $? > code2
cp -r small/{output} found
"""


def on_a_small_disk(command, output, *, size):
    """Run a command on a disk of so many bytes, then resume it there with room enough.

    Returns what was said first. Left are the files of the script above.
    """
    Path("small").mkdir(exist_ok=True)
    words = " ".join([*UNETKIT, *command, "-o", f"small/{output}"])
    script = FULL.format(size=size, command=words, output=output)
    done = run(["unshare", "-rm", "sh", "-c", script])
    said = Path("first").read_text()
    assert done.returncode == 0, done.stderr + said
    assert Path("code1").read_text().strip() == "5", said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "No space left on device" in last
    assert Path("code2").read_text().strip() == "0"
    return said


def namespaces_work():
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces_work(), reason="no small disk can be mounted here")
def test_a_full_disk_ends_with_code_5_and_nothing_is_lost(desk):
    assert main(["tile-predict", "slide.zarr", *PLAIN, "-q", "-o", "whole.zarr"]) == 0
    needed = sum(map(len, contents("whole.zarr").values()))
    said = on_a_small_disk(["tile-predict", "slide.zarr", *PLAIN], "out.zarr", size=needed // 2)
    assert "--resume" in said
    assert "are free on its disk" in said  # it was said before that this might not fit
    assert "out.zarr\n" not in Path("left1").read_text().replace(".out.zarr.unetkit-partial", "")
    report = json.loads(Path("report").read_text())
    assert 0 < report["tiles_reused"] < report["tiles_total"]
    assert contents("found") == contents("whole.zarr")


@pytest.mark.skipif(not namespaces_work(), reason="no small disk can be mounted here")
@pytest.mark.parametrize("share", [0.1, 0.5, 1.2])
def test_a_training_survives_a_full_disk(desk, lab, share):
    import_images("images", "data.zarr", labels="masks")
    options = ["--steps", "4", "--device", "cpu", "--precision", "float32"]
    options += ["--set", "depth=2", "--set", "width=8", "--recipe-set", "tile=32"]
    assert main(["train", "data.zarr", *options, "-q", "-o", "whole.safetensors"]) == 0
    whole = Path("whole.safetensors").read_bytes()
    # Besides the model there are the best one so far, a state, a log and a page.
    said = on_a_small_disk(
        ["train", "data.zarr", *options], "model.safetensors", size=int(share * len(whole))
    )
    assert "small" in said
    assert "model.safetensors\n" not in Path("left1").read_text()
    assert Path("found").read_bytes() == whole


MOUNTED = """
mkdir shown beside
mount --bind slide.zarr/0 shown
mount --bind other beside
{command} -o shown/out.zarr > first 2>&1; echo $? > code1
{command} -o beside/out.zarr -q > second 2>&1; echo $? > code2
"""


@pytest.mark.skipif(not namespaces_work(), reason="no folder can be mounted here")
def test_an_output_inside_of_its_input_is_refused_where_a_mount_hides_that(desk):
    Path("other").mkdir()
    before = contents("slide.zarr")
    script = MOUNTED.format(command=" ".join([*UNETKIT, "tile-predict", "slide.zarr", *PLAIN]))
    assert run(["unshare", "-rm", "sh", "-c", script]).returncode == 0
    said = Path("first").read_text()
    assert Path("code1").read_text().strip() == "4", said
    assert "must lie apart from its input" in said
    assert contents("slide.zarr") == before
    # Beside another mount nothing is wrong.
    assert Path("code2").read_text().strip() == "0", Path("second").read_text()
    assert Path("other", "out.zarr").is_dir()


def test_what_is_unfinished_does_not_look_finished(desk, capsys):
    interrupt()
    assert not Path("slide.prediction.zarr").exists()
    with pytest.raises(FileNotFoundError):
        zarr.open("slide.prediction.zarr", mode="r")
    partial = partial_url("slide.prediction.zarr")
    for words in (["eval", partial, "slide.zarr"], ["measure", partial], ["info", partial]):
        assert main(words) == 3, words
        assert "incomplete" in capsys.readouterr().err
    # Once it is finished, the same name is read.
    assert main(["tile-predict", "slide.zarr", *PLAIN, "-q", "--resume"]) == 0
    assert main(["info", "slide.prediction.zarr"]) == 0


def test_the_same_command_twice_gives_the_same_bytes(desk):
    for name in ("a.zarr", "b.zarr"):
        assert main(["tile-predict", "slide.zarr", *PLAIN, "-q", "-o", name]) == 0
    assert contents("a.zarr") == contents("b.zarr")
    # And another threshold does not.
    more = ["--threshold", "0.6"]
    assert main(["tile-predict", "slide.zarr", *PLAIN, "-q", "-o", "c.zarr", *more]) == 0
    assert contents("c.zarr") != contents("a.zarr")


NAMES = ["exp[control].zarr", "img[x].zarr", "two words.zarr", "-rf.zarr"]
NAMES += ["new\nline.zarr", "🔬.zarr", "esc\x1b]0;x\x07.zarr", "c1\x9b2J.zarr", "\u202ebidi.zarr"]
NAMES += ["n" * 190 + ".zarr", "[link=file:x]y.zarr"]
SHOWN = [name for name in NAMES if name.isprintable()]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SHOWN)), ids=ascii)
def test_names_that_could_command_a_terminal_are_refused_and_escaped(desk, name, capfd):
    Path("slide.zarr").rename(name)
    code = main(["tile-predict", f"./{name}", *PLAIN, "-o", "./out.zarr"])
    out, err = capfd.readouterr()
    assert code in (0, 3)
    assert ("error: " in err) == (code == 3)
    assert all(c in "\n\t" or c.isprintable() for c in out + err)
    assert Path(name).exists()


@pytest.mark.parametrize("name", SHOWN, ids=ascii)
def test_strange_names_work_and_print_no_control_characters(desk, name, capfd):
    Path("slide.zarr").rename(name)
    assert main(["tile-predict", f"./{name}", *PLAIN, "-o", "./out.zarr"]) == 0
    assert main(["info", f"./{name}"]) == 0
    Path(name).rename("back.zarr")
    assert main(["tile-predict", "back.zarr", *PLAIN, "-o", f"./{name}"]) == 0
    assert main(["tile-predict", "back.zarr", *PLAIN, "-o", f"./{name}"]) == 4
    out, err = capfd.readouterr()
    assert all(c in "\n\t" or c.isprintable() for c in out + err)
    if name.isascii() and name.isprintable():
        assert name in " ".join(err.split()) or name in "".join(err.split())


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_every_file_has_the_mode_of_the_umask(desk, mask):
    before = os.umask(mask)
    try:
        assert main(["tile-predict", "slide.zarr", *PLAIN, "-q"]) == 0
    finally:
        os.umask(before)
    place = Path("slide.prediction.zarr")
    for path in (place, *place.rglob("*")):
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert path.stat().st_mode & 0o777 == wanted, path


def test_nothing_is_written_elsewhere(desk, tmp_path_factory):
    """An audit hook sees every file that is opened for writing, wherever it lies."""
    program = """
import sys
from pathlib import Path
written = set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.add(str(arguments[0]))
    elif event in ("os.rename", "os.link"):
        written.add(str(arguments[1]))
    elif event == "os.mkdir":
        written.add(str(arguments[0]))
from unetkit.cli.app import main
main(["--version"])
sys.addaudithook(hook)
code = main(sys.argv[1:])
here = Path.cwd().resolve()
outside = [p for p in written if not (here / p).resolve().is_relative_to(here)]
print(code, len(written), [p for p in outside if not p.startswith(("/dev/", "/proc/"))])
"""
    nowhere = tmp_path_factory.mktemp("nowhere")
    nowhere.chmod(0o500)
    cache = tmp_path_factory.mktemp("cache")
    words = ["tile-predict", "slide.zarr", *PLAIN, "-q"]
    places = {"TMPDIR": str(nowhere), "HOME": str(nowhere), "NUMBA_CACHE_DIR": str(cache)}
    places["UNETKIT_CACHE_DIR"] = str(cache)
    done = run([sys.executable, "-B", "-c", program, *words], env=places)
    assert done.returncode == 0, done.stderr
    code, count, outside = done.stdout.splitlines()[-1].split(" ", 2)
    assert (code, int(count) > 10) == ("0", True)
    strays = [path for path in json.loads(outside.replace("'", '"')) if str(cache) not in path]
    assert strays == []
    assert list(nowhere.iterdir()) == []


def test_results_do_not_hang_on_where_output_goes(desk):
    words = [*UNETKIT, "tile-predict", "slide.zarr", *PLAIN]
    with Path("/dev/full").open("w") as full:
        assert "Traceback" not in run([*words, "-o", "a.zarr"], stdout=full).stderr
    done = run(["bash", "-c", f"{' '.join(words)} -o b.zarr | head -c 0"])
    assert "Traceback" not in done.stderr
    more = {"NO_COLOR": "1", "LANG": "C", "LC_ALL": "C", "COLUMNS": "1"}
    done = run([*words, "-o", "c.zarr"], env=more)
    assert (done.returncode, done.stdout) == (0, "c.zarr\n")
    assert "\x1b" not in done.stderr
    assert contents("a.zarr") == contents("b.zarr") == contents("c.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["processes", "local:2"])
def test_ctrl_c_leaves_no_process_behind(desk, scheduler):
    data = create_image("large.zarr", shape=(4000, 4000), axes="yx", dtype="u1")
    data.write(0, 0, 0, np.random.default_rng(0).integers(0, 255, (1, 4000, 4000), np.uint8))
    words = ["tile-predict", "large.zarr", *PLAIN[:6], "--scheduler", scheduler, "--workers", "2"]
    process = subprocess.Popen(
        [*UNETKIT, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    journal = Path(partial_url("large.prediction.zarr"), ".unetkit", "journal.txt")
    for _ in range(1200):
        if journal.exists() and journal.stat().st_size:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "--resume" in err.strip().splitlines()[-1]
    for _ in range(100):
        if not group_members(process.pid):
            return
        time.sleep(0.1)
    pytest.fail("workers outlived the command")


def group_members(group):
    """List the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(owner) == group and state != "Z":
            found.append(int(path.parent.name))
    return found
