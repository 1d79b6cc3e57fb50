import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from unetkit.arrays.intensities import Typical
from unetkit.commands.augment.command import augment
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import FoldsReport, train
from unetkit.commands.weights.command import weights
from unetkit.errors import InputError, NonFiniteError, OutputError, UnetkitError, UsageError
from unetkit.models.model_file import load
from unetkit.storage.datasets import DatasetWriter
from unetkit.storage.images import open_image

TINY = ("depth=1", "width=2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(source="data.zarr", **changes):
    return train(
        source, **{"options": TINY, "steps": 3, "device": "cpu", "precision": "float32"} | changes
    )


def log(path="model.log.jsonl"):
    def refuse(constant):
        raise ValueError(constant)

    lines = Path(path).read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_instances_are_learned(kit, here):
    kit.cells(here / "data.zarr", count=3)
    report = run(steps=50, options=("depth=1", "width=8", "dropout=0"))
    assert report.scores["dice"] > 0.7
    # It is judged with a decision that suits it.
    assert report.score >= report.scores["average_precision"]
    assert (report.output, report.log) == ("model.safetensors", "model.log.jsonl")
    assert (report.trained_on, report.validated_on, report.skipped_unlabelled) == (2, 1, 0)
    assert sorted(path.name for path in here.iterdir()) == [
        "data.zarr",
        "model.log.jsonl",
        "model.safetensors",
        "model.training.html",
    ]
    json.dumps(report.to_dict(), allow_nan=False)
    header = load("model.safetensors").header
    assert header.scores == report.scores
    assert header.provenance["best_step"] == report.best_step
    assert header.provenance["validated_on"][0] not in header.provenance["trained_on"]


def test_the_log_is_strict_and_its_steps_go_up(kit, here):
    kit.cells(here / "data.zarr")
    report = run(steps=12, workers=1)
    rows = log()
    assert rows[0]["event"] == "start"
    assert (rows[0]["seed"], rows[0]["recipe"], rows[0]["data"]) == (0, "default", "data.zarr")
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, 13))
    checks = [row for row in rows if row["event"] == "validation"]
    assert checks
    assert [row["step"] for row in checks] == sorted({row["step"] for row in checks})
    best = [row for row in checks if row["best"]][-1]
    assert (best["step"], best["loss"]) == (report.best_step, report.scores["loss"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(kit, here, precision):
    kit.cells(here / "data.zarr", count=3)
    same = {"steps": 4, "options": (*TINY, "dropout=0.5"), "precision": precision}
    for name, workers in (("a", 1), ("b", 3)):
        run(output=f"{name}.safetensors", workers=workers, **same)
    run(output="c.safetensors", seed=1, **same)
    first, second, other = (Path(f"{name}.safetensors").read_bytes() for name in "abc")
    assert first == second
    assert first != other


def test_class_maps_are_learned_under_their_names(kit, here):
    names = ("background", "myelin", "axon")
    kit.cells(here / "data.zarr", kind="classes", class_names=names)
    report = run()
    assert (report.score_name, report.score) == ("Dice", report.scores["dice"])
    header = load(report.output).header
    assert (header.class_names, header.target) == (names, "classes")
    with safe_open(report.output, "np") as file:
        assert any(file.get_tensor(key).shape[:1] == (3,) for key in file.keys())  # noqa: SIM118


def test_other_targets_are_learned(kit, here):
    kit.cells(here / "data.zarr")
    report = run(target="foreground+boundary", steps=1)
    header = load(report.output).header
    assert (header.target, len(header.class_names)) == ("foreground+boundary", 3)
    assert "average_precision" in report.scores


def test_one_image_is_parted(kit, here):
    kit.cells(here / "data.zarr", count=1, shape=(50, 120))
    watching = kit.watching()
    report = run(progress=watching)
    assert (report.trained_on, report.validated_on) == (1, 1)
    assert any("One image, of which the last 24 pixels" in note for note in watching.notes)


def test_unlabelled_samples_are_skipped_and_counted(kit, here):
    kit.cells(here / "data.zarr", unlabelled=2)
    watching = kit.watching()
    assert run(progress=watching).skipped_unlabelled == 2
    assert "2 of 4 samples have no labels; left out." in watching.notes


def test_copies_never_validate(kit, here):
    kit.cells(here / "data.zarr", count=3)
    augment("data.zarr", "more.zarr", copies=2)
    report = run("more.zarr")
    assert (report.trained_on, report.validated_on) == (6, 1)
    provenance = load(report.output).header.provenance
    (held,) = provenance["validated_on"]
    assert "aug" not in held
    assert not any(name.startswith(held) for name in provenance["trained_on"])


def test_stored_weights_are_used(kit, here):
    for name, preset in (("a", None), ("b", "paper2015"), ("c", "freiburg2019")):
        kit.cells(here / f"{name}.zarr")
        if preset:
            weights(f"{name}.zarr", preset=preset)
        run(f"{name}.zarr", output=f"{name}.safetensors")
    watched = kit.watching()
    run("b.zarr", output="again.safetensors", progress=watched)
    assert not any("no stored weights" in note for note in watched.notes)
    losses = [[row["loss"] for row in log(f"{n}.log.jsonl") if "loss" in row] for n in "abc"]
    # The first is computed as the second was; both sums are rounded apart.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-2)


def test_the_recipe_of_the_paper_makes_a_step(kit, here):
    kit.cells(here / "data.zarr")
    assert run(recipe="paper", steps=1).steps == 1
    assert log()[0]["recipe"] == "paper"


def test_the_loss_and_the_recipe_that_were_used_stand_in_the_model(kit, here):
    kit.cells(here / "data.zarr")
    report = run(loss="unet + 0.5*dice", recipe_set=("batch=3", "optimizer=sgd"))
    provenance = load(report.output).header.provenance
    assert provenance["loss_function"] == "unet+0.5*dice"
    assert provenance["recipe_changed"] == {"batch": 3, "optimizer": "sgd"}
    plain = run(output="plain.safetensors", recipe_set=("batch=3", "optimizer=sgd"))
    assert Path(plain.output).read_bytes() != Path(report.output).read_bytes()


def test_a_budget_replaces_the_steps(kit, here):
    kit.cells(here / "data.zarr")
    report = run(steps=10**7, time_budget="3s")
    planned = [row["steps"] for row in log() if row["event"] == "planned"]
    assert report.steps == planned[-1] or report.stopped_early
    assert planned
    # What was made in the end, and not what was planned when the best network was kept.
    assert load(report.output).header.provenance["steps"] == report.steps


@pytest.mark.parametrize("precision", ["float32", "exact"])
def test_steps_beside_a_budget_are_the_most_that_are_made(kit, here, precision):
    kit.cells(here / "data.zarr")
    steps = run(output="steps.safetensors", steps=25, precision=precision)
    both = run(output="both.safetensors", steps=25, time_budget="1h", precision=precision)
    assert steps.steps == both.steps == 25
    assert not [row for row in log("both.log.jsonl") if "warning" in row]
    losses = [
        [row["loss"] for row in log(f"{n}.log.jsonl") if "loss" in row] for n in ("steps", "both")
    ]
    assert losses[0] == losses[1]


def test_channels_are_chosen_and_remembered(here):
    writer = DatasetWriter("data.zarr")
    labels = np.zeros((30, 30), np.uint8)
    labels[5:15, 5:15] = 1
    for name in ("a", "b"):
        image = np.random.default_rng(0).integers(0, 255, (3, 30, 30)).astype(np.uint8)
        writer.add(name, image, axes="cyx", labels=labels)
    writer.finish()
    header = load(run(channels="2,0").output).header
    assert (header.in_channels, header.channels) == (2, "2,0")


@pytest.fixture
def seen(here):
    """Hold the folder to be as it was."""
    before = files(here)
    yield here
    assert files(here) == before


@pytest.fixture
def data(kit, here):
    return str(kit.cells(here / "data.zarr"))


@pytest.mark.usefixtures("data", "seen")
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "unett"}, UsageError, "did you mean 'unet'"),
        ({"options": ("wide=3",)}, UsageError, "width"),
        ({"recipe": "papre"}, UsageError, "default, paper"),
        ({"recipe_set": ("bach=4",)}, UsageError, "batch"),
        ({"loss": "dise"}, UsageError, "dice"),
        ({"normalization": "median"}, UsageError, "percentile, zscore, range, none"),
        ({"folds": 0}, UsageError, "at least 1"),
        ({"init": "lost.safetensors"}, InputError, "lost.safetensors"),
        ({"target": "classes"}, UsageError, "for labels of instances"),
        ({"steps": 0}, UsageError, "at least 1"),
        ({"time_budget": "soon"}, UsageError, "such as 90s"),
        ({"channels": "7"}, UsageError, "7"),
        ({"output": "nowhere/model.safetensors"}, UnetkitError, "nowhere"),
        ({"output": "data.zarr"}, OutputError, "apart from its input"),
        ({"source": "lost.zarr"}, InputError, "lost.zarr"),
    ],
    ids=str,
)
def test_what_cannot_be_done_leaves_nothing(changes, error, words):
    with pytest.raises(error, match=words):
        run(**changes)


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize("there", ["model.safetensors", "model.log.jsonl", "model.train"])
def test_what_is_there_already_is_left_alone(here, there):
    (here / there).write_text("three years of work")
    before = files(here)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=there) as caught:
            run(overwrite=overwrite)
        assert caught.value.exit_code == 4
    assert files(here) == before


@pytest.mark.usefixtures("data")
def test_an_earlier_model_is_replaced_only_where_asked_for(here):
    run()
    first = files(here)
    with pytest.raises(OutputError, match="--overwrite"):
        run(seed=1)
    assert files(here) == first
    run(seed=1, overwrite=True)
    assert files(here)["model.safetensors"] != first["model.safetensors"]


def test_images_with_nan_are_refused_and_leave_nothing(here):
    writer = DatasetWriter("data.zarr")
    for name in ("a", "b"):
        image = np.random.default_rng(0).random((30, 30), dtype=np.float32)
        image[3, 3] = np.nan
        writer.add(name, image, axes="yx", labels=np.eye(30, dtype=np.uint8))
    writer.finish()
    before = files(here)
    with pytest.raises(NonFiniteError, match="sample 'a'"):
        run()
    assert files(here) == before
    assert run(nonfinite="fill").steps == 3


def start(folder, *words):
    """Begin a training of many steps in a process of its own."""
    line = [sys.executable, "-m", "unetkit", "train", "data.zarr", "--steps", "500", *words]
    options = [word for option in TINY for word in ("--set", option)]
    return subprocess.Popen(
        [*line, *options, "--device", "cpu", "--precision", "float32"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(folder, event, process):
    place = folder / "model.train" / "log.jsonl"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if place.exists() and f'"event": "{event}"' in place.read_text():
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"no {event} came: {process.communicate()}")


@pytest.mark.usefixtures("data")
@pytest.mark.parametrize(
    ("number", "event", "kept"),
    [(signal.SIGTERM, "validation", True), (signal.SIGINT, "step", False)],
)
def test_a_signal_ends_it_and_keeps_the_best_model(here, *, number, event, kept):
    with start(here) as process:
        wait_for(here, event, process)
        process.send_signal(number)
        printed, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert printed == ""
    assert "Traceback" not in said
    assert not (here / "model.safetensors").exists()
    if kept:
        assert "--resume to go on" in said.splitlines()[-1]
        assert "best model so far, model.train/best.safetensors" in said.splitlines()[-1]
        assert load(str(here / "model.train" / "best.safetensors")).header.model == "unet"
        assert log("model.train/log.jsonl")[0]["event"] == "start"
        with pytest.raises(OutputError, match="--overwrite"):
            run()
        run(overwrite=True)
        assert not (here / "model.train").exists()
    else:
        assert "before the first validation" in said.splitlines()[-1]
        assert sorted(path.name for path in here.iterdir()) == ["data.zarr", "model.train"]
        left = sorted(path.name for path in (here / "model.train").iterdir())
        assert left == [".unetkit", "last.safetensors", "log.jsonl"]


@pytest.mark.usefixtures("data")
def test_a_killed_training_leaves_the_earlier_model_alone(here):
    run()
    before = (here / "model.safetensors").read_bytes()
    with start(here, "--overwrite") as process:
        wait_for(here, "validation", process)
        process.kill()
        process.wait(timeout=60)
    assert (here / "model.safetensors").read_bytes() == before
    # What it left can be replaced, and only by --overwrite.
    with pytest.raises(OutputError, match="--overwrite"):
        run()
    assert run(overwrite=True).steps == 3


def test_a_frozen_encoder_learns_only_after_its_steps(kit, here):
    kit.cells(here / "data.zarr")
    same = {"model": "smp-linknet", "options": ("encoder=tu-test_resnet",), "steps": 2}

    def encoder(name, **changes):
        run(output=f"{name}.safetensors", **{**same, **changes})
        state = load(f"{name}.safetensors").module.state_dict()
        return {key: value for key, value in state.items() if ".encoder." in key}

    frozen, longer = encoder("a", freeze_encoder=2), encoder("b", freeze_encoder=9, steps=1)
    assert all(value.equal(longer[key]) for key, value in frozen.items())
    learned = encoder("c", freeze_encoder=1)
    assert not all(value.equal(learned[key]) for key, value in frozen.items())
    with pytest.raises(UsageError, match="freeze-encoder must be 0 for model 'unet'"):
        run(output="d.safetensors", freeze_encoder=1)


def test_a_model_begins_where_another_ended(kit, here):
    kit.cells(here / "data.zarr")
    run(target="foreground+boundary", normalization="zscore", output="first.safetensors")
    first = load("first.safetensors")
    watching = kit.watching()
    # Neither the network nor what it learns is said again.
    report = run(
        init="first.safetensors",
        options=(),
        steps=1,
        recipe_set=("learning_rate=1e-12", "averaging=0"),
        progress=watching,
    )
    assert any("Begun with the weights of first.safetensors" in note for note in watching.notes)
    second = load(str(report.output))
    assert second.header.options == first.header.options
    assert second.header.target == "foreground+boundary"
    assert second.header.normalization == "zscore"
    assert second.header.provenance["init"] == {
        "file": "first.safetensors",
        "sha256": first.sha256,
    }
    state = second.module.state_dict()
    for name, value in first.module.state_dict().items():
        np.testing.assert_allclose(state[name], value, atol=1e-6)
    fresh = load(str(run(output="fresh.safetensors", target="foreground+boundary").output))
    assert not np.allclose(fresh.module.state_dict()["head.weight"], state["head.weight"])
    with pytest.raises(UsageError, match="model must be that of init, 'unet'"):
        run(output="c.safetensors", init="first.safetensors", model="keras-unet")


def test_folds_hold_out_every_image_once(kit, here):
    kit.cells(here / "data.zarr", count=3)
    watching, refused = kit.watching(), kit.watching()
    report = run(folds=3, steps=2, progress=watching)
    assert [note for note in watching.notes if "Fold" in note] == [
        f"Fold {k} of 3." for k in (1, 2, 3)
    ]
    assert isinstance(report, FoldsReport)
    held = []
    for k, (path, row) in enumerate(zip(report.outputs, report.report, strict=True), start=1):
        assert path == f"model.fold{k}.safetensors" == row["output"]
        provenance = load(path).header.provenance
        assert provenance["fold"] == {"number": k, "count": 3}
        assert len(provenance["trained_on"]) == 2
        held += provenance["validated_on"]
    assert sorted(held) == ["s0", "s1", "s2"]
    assert report.score == pytest.approx(sum(row["score"] for row in report.report) / 3)
    with pytest.raises(UsageError, match="folds must be at most"):
        run(output="more.safetensors", folds=4, progress=refused)
    assert refused.notes == []


@pytest.mark.usefixtures("data")
def test_folds_find_a_place_that_is_taken_before_the_first_step(here):
    (here / "model.fold2.safetensors").write_text("three years of work")
    before = files(here)
    with pytest.raises(OutputError, match=r"model\.fold2"):
        run(folds=2)
    assert files(here) == before


def test_the_model_knows_what_its_images_looked_like(kit, here):
    kit.cells(here / "data.zarr", count=2)
    header = load(str(run(normalization="range").output)).header
    assert header.normalization == "range"
    assert header.intensities is not None
    known = Typical.from_dict(header.intensities)
    assert 0 <= known.quantiles[0][0] < known.quantiles[0][-1] <= 1


def store_channels(url, *orders, shape=(40, 44)):
    """Store samples, or an image, whose two channels come in other orders."""
    pictures = {}
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    labels[5:20, 5:20], labels[24:36, 22:40] = 1, 2
    pictures["DAPI"] = (200 * (labels > 0) + rng.integers(0, 20, shape)).astype(np.uint8)
    pictures["Tubulin"] = rng.integers(0, 255, shape).astype(np.uint8)
    writer = DatasetWriter(str(url))
    for number, order in enumerate(orders):
        image = np.stack([pictures[name.split("/")[-1]] for name in order])
        names = tuple(name.split("/")[0] for name in order)
        named = names if all(names) else ()
        writer.add(f"s{number}", image, axes="cyx", channel_names=named, labels=labels)
    writer.finish()
    return str(url)


ONE, OTHER = ("DAPI", "Tubulin"), ("Tubulin", "DAPI")
PREDICT = {"precision": "exact", "scheduler": "sync", "device": "cpu"}


@pytest.mark.parametrize(("channels", "told"), [("0", True), ("DAPI", False), ("1,0", False)])
def test_channels_of_other_names_that_are_chosen_by_number_are_told_of(kit, here, channels, told):
    first = store_channels("data.zarr", ONE, ONE)
    other = store_channels("more.zarr", OTHER, OTHER)
    asked = {"options": TINY, "steps": 2, "device": "cpu", "precision": "float32"}
    report = train(first, other, channels=channels, **asked)
    words = "Channels are chosen by number, and are called otherwise: DAPI"
    found = any(text.startswith(words) for text in report.warnings)
    # Two that are the same in another order are brought into one.
    assert found == told


@pytest.mark.parametrize("channels", [None, "dapi", "Tubulin,DAPI"])
def test_channels_are_found_by_name(kit, here, channels):
    store_channels("data.zarr", ONE, OTHER, ONE)
    store_channels("same.zarr", ONE, ONE, ONE)
    watching = kit.watching()
    run(channels=channels, progress=watching)
    assert any("taken by name, as" in note for note in watching.notes)
    run("same.zarr", channels=channels, output="same.safetensors")
    one, same = (load(path) for path in ("model.safetensors", "same.safetensors"))
    kept = {None: "DAPI,Tubulin", "dapi": "DAPI"}.get(channels, channels)
    assert one.header.channels == same.header.channels == kept
    for name, tensor in one.module.state_dict().items():
        assert (tensor == same.module.state_dict()[name]).all()
    found = []
    others = ("dapi/DAPI", "TUBULIN/Tubulin"), ("/DAPI", "/Tubulin")
    for number, order in enumerate((ONE, OTHER, *others)):
        if order[0].startswith("/") and channels:
            continue  # its channels have no names that could be chosen from
        slide = store_channels(f"slide{number}.zarr", order)
        made = tile_predict(f"{slide}/s0", **PREDICT, output=f"p{number}.zarr").output
        found.append(kit.read(open_image(made).data))
    assert all((each == found[0]).all() for each in found)
    # The control: by position it is another image.
    swapped = {None: "1,0", "dapi": "1"}.get(channels, "0,1")
    tile_predict("slide0.zarr/s0", channels=swapped, **PREDICT, output="swapped.zarr")
    assert (kit.read(open_image("swapped.zarr").data) != found[0]).any()
    store_channels("actin.zarr", ("Actin/DAPI", "Tubulin"))
    words = rf"got Actin, Tubulin where it was trained on {kept};.*--channels"
    with pytest.raises(InputError, match=words):
        tile_predict("actin.zarr/s0", **PREDICT, output="actin.prediction.zarr")


def test_channels_that_mean_different_things_are_not_mixed(kit, here):
    # A number is that of the first sample, and means its name.
    store_channels("data.zarr", ONE, OTHER)
    store_channels("same.zarr", ONE, ONE)
    made = {}
    for source in ("data.zarr", "same.zarr"):
        run(source, channels="1", overwrite=True)
        made[source] = load("model.safetensors")
        assert made[source].header.channels == "Tubulin"
    one, same = (model.module.state_dict() for model in made.values())
    assert all((one[name] == same[name]).all() for name in one)
    store_channels("other.zarr", ONE, ("Actin/DAPI", "Tubulin"))
    with pytest.raises(InputError, match="the same channels, got DAPI, Tubulin in 's0' and Actin"):
        run("other.zarr")
    run("other.zarr", channels="Tubulin", overwrite=True)
    # Who says by number what has other names means the numbers.
    run("other.zarr", channels="0", overwrite=True)
    assert load("model.safetensors").header.channels == "0"
    store_channels("some.zarr", ONE, ("/DAPI", "/Tubulin"))
    watching = kit.watching()
    run("some.zarr", overwrite=True, progress=watching)
    assert any("taken by their order" in note for note in watching.notes)
    assert load("model.safetensors").header.channels is None


def test_a_start_that_no_step_improves_is_kept(kit, here):
    kit.cells(here / "data.zarr", count=3)
    first = run(steps=40, options=("depth=1", "width=8", "dropout=0"), output="first.safetensors")
    assert first.score > 0
    ruin = {"init": "first.safetensors", "options": (), "recipe_set": ("learning_rate=10",)}
    watching = kit.watching()
    report = run(**ruin, progress=watching)
    assert (report.best_step, report.score) == (0, pytest.approx(first.score, abs=1e-3))
    kept = "No step did better than first.safetensors, which is kept: nothing was learned"
    assert sum(note.startswith(kept) for note in watching.notes) == 1
    one, other = (load(path).module.state_dict() for path in ("first.safetensors", report.output))
    assert all((one[name] == other[name]).all() for name in one)
    # A training that is stopped still knows its start.
    with pytest.raises(KeyboardInterrupt):
        run(**ruin, output="again.safetensors", progress=kit.watching(at=12, act=interrupt))
    run(**ruin, output="again.safetensors", resume=True)
    assert Path("again.safetensors").read_bytes() == Path(report.output).read_bytes()


def interrupt():
    raise KeyboardInterrupt
