"""Labels that `tile-predict --in-place` writes beside the images of a plate, whatever happens."""

import errno
import os
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from tests.commands.tile_predict.test_killed import PROGRAM
from unetkit.cli.app import main
from unetkit.commands.measure import measure
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import OutputError, StoppedError, UsageError
from unetkit.storage.datasets import open_dataset
from unetkit.storage.pyramids import add_pyramid

ASKED = {"tile": 32, "scheduler": "sync", "device": "cpu", "precision": "exact"}


@pytest.fixture
def screen(kit, slide):
    """Return a plate of 2 wells with 2 fields, beside a model."""
    return kit.plate("plate.zarr", rows="B", fields=2, labels="nuclei")


def beside():
    return sorted(path.name for path in Path().iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_land_in_every_field_and_nothing_else_changes(kit, slide, version):
    url = kit.plate("plate.zarr", rows="B", fields=2, version=version, labels="nuclei")
    before = kit.contents(url)
    report = tile_predict(url, in_place=True, **ASKED)
    assert (report.output, report.samples, beside()) == (url, 4, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yaozarrs.validate_zarr_store(url)
    apart = tile_predict(url, output="apart.zarr", **ASKED)
    for here, there in zip(
        open_dataset(url).samples, open_dataset(apart.output).samples, strict=True
    ):
        assert here.image.other_labels == ("nuclei",)
        found, wanted = (kit.read(one.image.labels["classes"]) for one in (here, there))
        np.testing.assert_array_equal(found, wanted)
        assert here.image.label_attributes["classes"]["prediction"]["source"] == "plate.zarr"
    after = kit.contents(url)
    new = {n for n in after if "/labels/classes/" in n or "/labels/instances/" in n}
    changed = {name for name in after.keys() - new if after[name] != before.get(name)}
    listed = {f"B/{column}/{field}/labels" for column in "12" for field in "01"}
    assert {name.rpartition("/")[0] for name in changed} == listed
    assert before.keys() <= after.keys()
    again = tile_predict(url, in_place=True, resume=True, **ASKED)
    assert again.status == "nothing to do"
    with pytest.raises(OutputError, match=r"labels/classes must not exist yet.*--overwrite"):
        tile_predict(url, in_place=True, **ASKED)
    stored = [p for p in Path(url, "B/1/0/labels/classes/0").rglob("*") if p.name.isdecimal()]
    next(path for path in stored if path.is_file()).unlink()
    tile_predict(url, in_place=True, overwrite=True, **ASKED)
    assert kit.contents(url) == after


def test_labels_of_others_are_never_replaced(kit, slide):
    url = kit.plate("plate.zarr", labels="classes")
    before = kit.contents(url)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="A/1/0/labels/classes must not exist yet"):
            tile_predict(url, in_place=True, overwrite=overwrite, **ASKED)
    assert kit.contents(url) == before


def test_what_has_no_labels_of_its_own_to_write_is_refused(kit, slide):
    kit.cells("data.zarr")
    with pytest.raises(UsageError, match=r"got the dataset data\.zarr; leave out"):
        tile_predict("data.zarr", in_place=True, **ASKED)
    with pytest.raises(UsageError, match="--in-place must come without --output"):
        tile_predict(slide, output="a.zarr", in_place=True, **ASKED)


def test_labels_have_the_levels_of_their_image(kit, slide):
    kit.image(Path("image.zarr"), (64, 60))
    add_pyramid("image.zarr", steps=[(2, 2), (4, 2)])
    tile_predict("image.zarr", in_place=True, **ASKED)
    group = zarr.open_group("image.zarr/labels/classes", mode="r")
    assert [group[name].shape for name in "012"] == [(64, 60), (32, 30), (8, 15)]
    yaozarrs.validate_zarr_store("image.zarr")


@pytest.mark.parametrize("own", [{}, {"overwrite": True}])
def test_one_that_is_stopped_goes_on_to_the_same_bytes(kit, screen, own, faults):
    whole = "whole/plate.zarr"
    shutil.copytree(screen, whole)
    if own:
        for url in (screen, whole):
            tile_predict(url, in_place=True, **(ASKED | {"tile": 48}))
    tile_predict(whole, in_place=True, **own, **ASKED)
    before = kit.contents(screen)
    watch = kit.watching(at=12, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError, match="--resume"):
        tile_predict(screen, in_place=True, progress=watch, **own, **ASKED)
    assert kit.contents(screen) == before
    assert beside() == [".plate.zarr.unetkit-partial"]
    # Then the disk refuses while labels come to their places.
    place = "plate.zarr/B/2/0/labels"
    with faults.at("os.scandir", place, errno.EIO), pytest.raises(OSError, match=place):
        tile_predict(screen, in_place=True, resume=True, **ASKED)
    assert Path(screen, "B/1/0/labels/instances").exists()
    report = tile_predict(screen, in_place=True, resume=True, **ASKED)
    assert report.tiles_reused == report.tiles_total
    assert kit.differing(screen, whole) == []
    assert beside() == []


# Killed before some of the last steps, when labels come to their places.
KILLED = """
url = sys.argv[1]
options["in_place"] = True

def fresh():
    os.system(f"rm -rf {url} && cp -a plain.zarr {url}")

os.system(f"cp -a {url} plain.zarr")
assert end(start(None, step=10**9)) == 0
whole, steps = contents(url), int(Path("steps").read_text())
bad, killed = [], 0
for step in range(steps - 60, steps, 11):
    fresh()
    if end(start(None, step=step)) == 0:
        break
    killed += 1
    if end(start(None, resume=True)) != 0:
        bad.append((step, "can't be resumed"))
    elif contents(url) != whole or beside():
        bad.append((step, f"other bytes, or {beside()}"))
    os.system("rm -rf .plate.zarr.*")
print(killed)
print(bad)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork to start runs with")
def test_one_that_is_killed_while_labels_come_to_their_places_goes_on(screen, run_program):
    done = run_program(PROGRAM + KILLED, screen)
    killed, bad = done.stdout.splitlines()[-2:]
    assert (bad, int(killed) > 3) == ("[]", True), f"{bad}\n{done.stderr[-4000:]}"


def test_a_broken_field_gets_no_labels_and_the_rest_is_measured(kit, slide, capsys):
    url = kit.plate("plate.zarr", labels="nuclei")
    Path(url, "B/1/0/0/0.0").write_bytes(b"no chunk")
    shutil.rmtree(f"{url}/B/1/0/labels")
    assert main(["tile-predict", url, "--in-place", "--tile", "48", "-q"]) == 3
    assert "got 1 left out: B/1/0; the 3 others are in plate.zarr" in capsys.readouterr().err
    assert not Path(url, "B/1/0/labels").exists()
    assert main(["tile-predict", url, "--in-place", "--tile", "48", "-q", "--resume"]) == 3
    report = measure(url)
    assert report.samples == 3
    assert report.warnings[0].startswith("'B-1-0' of plate.zarr have no instances")
