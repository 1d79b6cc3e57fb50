"""Old and new data are learned from together, held out apart, and compared with before."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from unetkit.commands.train import command
from unetkit.commands.train.command import train
from unetkit.commands.train.comparison import Comparison, compare
from unetkit.commands.train.mixing import Mix, join_datasets, split_sides
from unetkit.engine.rescaling import at_pixel_size
from unetkit.errors import CheckError, InputError, OutputError, StoppedError, UsageError
from unetkit.models.decision import default_decision
from unetkit.models.model_file import load
from unetkit.progress import Silent
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.training.split import Origin, split
from unetkit.training.trainer import Trainer
from unetkit.training.tuning import HeldOutMap, score_decision, score_places

TINY = {"options": ("depth=1", "width=4"), "device": "cpu", "precision": "exact", "workers": 0}


def cells(path, *, count, seed, bright=True, size=64, prefix="s", windows=False):
    """Store discs that are brighter or darker than what is around them."""
    rng = np.random.default_rng(seed)
    writer = DatasetWriter(str(path))
    y, x = np.indices((size, size))
    for number in range(count):
        labels = np.zeros((size, size), np.uint8)
        for one in range(1, 6):
            cy, cx = rng.integers(6, size - 6, 2)
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 30] = one
        image = 100 + 60 * ((labels > 0) == bright) + rng.integers(0, 40, labels.shape)
        told = {"ignore": np.zeros(labels.shape, bool)} if windows else {}
        if windows:
            told["ignore"][:16] = True
        writer.add(f"{prefix}{number}", image.astype(np.uint16), axes="yx", labels=labels, **told)
    writer.finish()
    return str(path)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Train on old data, and make some that look otherwise."""
    folder = tmp_path_factory.mktemp("begun")
    cells(folder / "old.zarr", count=10, seed=0)
    cells(folder / "new.zarr", count=5, seed=1, bright=False, prefix="n", windows=True)
    start = str(folder / "start.safetensors")
    train(str(folder / "old.zarr"), output=start, steps=60, **TINY)
    return folder


@pytest.fixture
def lab(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [str(begun / name) for name in ("old.zarr", "new.zarr")], str(
        begun / "start.safetensors"
    )


def run(data, start, **changes):
    return train(*data, init=start, **{"steps": 20, **TINY, **changes})


def origin(name, source=None, **told):
    return Origin(name, source or name, False, 64, 64, **told)


def names(regions):
    return sorted({region.sample for region in regions})


def mix_of(*new, share=0.5, boxes=None, places=None):
    return Mix(share, frozenset(new), ("old.zarr", "new.zarr"), boxes or {}, places or {})


def parted(old, new, **told):
    asked = {"gap": 4, "seed": 0, "has_foreground": lambda region: True}
    found = split_sides([*old, *new], mix_of(*(one.name for one in new), **told), **asked)
    return found, split(old, **asked)


def test_the_old_data_are_held_out_as_if_they_were_alone():
    old = [origin(f"a{n}") for n in range(10)]
    found, alone = parted(old, [origin(f"b{n}", f"slide {n // 2}") for n in range(8)])
    assert set(alone.validation) <= set(found.validation)
    assert set(alone.train) <= set(found.train)
    held = {name for name in names(found.validation) if name.startswith("b")}
    assert held
    # Windows of one slide are on one side.
    sources = [
        {int(name[1:]) // 2 for name in side}
        for side in (held, {n for n in names(found.train) if n[0] == "b"})
    ]
    assert sources[0].isdisjoint(sources[1])


def test_what_is_said_of_a_split_is_said_of_its_dataset():
    found, _ = parted([origin("a")], [origin("b")])
    begins = [f"{name}.zarr: one image, of which the last " for name in ("old", "new")]
    assert len(found.notes) == 2
    assert all(note.startswith(one) for note, one in zip(found.notes, begins, strict=True))


def test_a_source_of_both_is_on_one_side():
    old = [origin(f"a{n}") for n in range(10)]
    (held, *_), learned = (
        names(split(old, gap=4, seed=0).validation),
        names(split(old, gap=4, seed=0).train),
    )
    new = [origin("w0", held), origin("w1", learned[0]), origin("w2", learned[1])]
    found, _ = parted(old, new)
    assert {"w0"} == set(names(found.validation)) & {"w0", "w1", "w2"}
    found, _ = parted(old, new[1:])
    assert len(set(names(found.validation)) & {"w1", "w2"}) == 1
    assert "learned from" in found.notes[0]
    found, _ = parted(old, [*new[1:], origin("w3")])
    assert "w3" in names(found.validation)
    with pytest.raises(InputError, match="must be of other images than those that are held out"):
        parted(old, new[:1])


def test_a_source_is_known_also_where_one_side_names_its_group():
    grouped = [origin(f"a{n}", group=f"mouse {n // 2}") for n in range(10)]
    alone = [origin(f"a{n}") for n in range(10)]
    for old, group in ((grouped, None), (alone, "mouse")):
        held = names(split(old, gap=4, seed=0).validation)[0]
        new = [origin("w0", held, group=group), origin("w1"), origin("w2")]
        found, _ = parted(old, new)
        assert "w0" in names(found.validation)
        assert "w0" not in names(found.train)


def test_a_window_in_what_is_held_out_of_one_image_is_not_learned_from():
    old = [Origin("a", "a", False, 64, 160)]
    places = {"w0": (0, 20, 0, 30), "w1": (8, 30, 100, 140), "w2": (0, 20, 40, 60)}
    new = [origin(name, "a") for name in places]
    found, alone = parted(old, new, places=places)
    (held,) = alone.validation
    assert held.x0 == 128
    assert names(found.validation) == ["a", "w1"]
    assert names(found.train) == ["a", "w0", "w2"]
    found, _ = parted(old, new[1:2], places=places)
    assert any("w1 of new.zarr meet what is held out of old.zarr" in note for note in found.notes)


def test_what_was_judged_is_of_the_pixels_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, told in (("old", {}), ("new", {"command": "correct"})):
        if told:
            told |= {
                "stored": {"y": [8, 72], "x": [0, 64]},
                "window": {"y": [24, 56], "x": [4, 64]},
            }
        pixels = np.zeros((64, 64), np.uint8)
        size = {"y": 0.25, "x": 0.25}
        writer = DatasetWriter(f"{name}.zarr")
        writer.add(name, pixels, axes="yx", labels=pixels, pixel_size=size, attributes=told)
        writer.finish()
    opened = [open_dataset(f"{name}.zarr") for name in ("old", "new")]
    for size, box, place in (
        (0.25, (16, 48, 4, 64), (24, 56, 4, 64)),
        (0.5, (8, 24, 2, 32), (12, 28, 2, 32)),
    ):
        wanted = {"y": size, "x": size}
        _, mix = join_datasets([at_pixel_size(one, wanted) for one in opened], None)
        assert mix.boxes == {"new": box}
        assert mix.places == {"new": place}


def test_a_corrected_window_is_parted_at_another_pixel_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = {"y": 0.5, "x": 0.5}
    rng = np.random.default_rng(0)
    for name in ("old", "new"):
        told = {"stored": {"y": [0, 64], "x": [0, 96]}, "window": {"y": [4, 60], "x": [40, 90]}}
        labels = np.zeros((64, 96), np.uint8)
        for number, (y, x) in enumerate(np.ndindex(4, 6), start=1):
            labels[16 * y + 4 : 16 * y + 12, 16 * x + 4 : 16 * x + 12] = number
        image = (labels > 0) * np.uint8(90) + rng.integers(0, 30, labels.shape, np.uint8)
        asked = {} if name == "old" else {"attributes": {"command": "correct", **told}}
        writer = DatasetWriter(f"{name}.zarr")
        writer.add(name, image, axes="yx", labels=labels, pixel_size=size, **asked)
        writer.finish()
    found = []
    monkeypatch.setattr(
        command, "split_sides", lambda *a, **k: found.append(split_sides(*a, **k)) or found[0]
    )
    train("old.zarr", "new.zarr", pixel_size="1", steps=2, **TINY)
    for region in (*found[0].train, *found[0].validation):
        assert 0 <= region.y0 < region.y1 <= 32
        assert 0 <= region.x0 < region.x1 <= 48


def test_a_single_window_is_parted_where_it_was_judged():
    old = [origin(f"a{n}") for n in range(3)]
    found, _ = parted(old, [origin("w", group="mouse")], boxes={"w": (20, 40, 8, 56)})
    (held,) = [region for region in found.validation if region.sample == "w"]
    learned = [region for region in found.train if region.sample == "w"]
    judged = np.zeros((64, 64), bool)
    judged[20:40, 8:56] = True
    for region in (held, *learned):
        assert judged[region.y0 : region.y1, region.x0 : region.x1].any()
        assert (region.y0, region.y1) == (0, 64)
    # A fifth of what was judged, and a gap of 4 pixels.
    assert (held.x0 if held.x1 == 64 else 64 - held.x1) in (56 - 48 // 5, 64 - 8 - 48 // 5)
    assert min(abs(held.x0 - learned[0].x1), abs(learned[0].x0 - held.x1)) == 4


def test_samples_of_one_name_are_called_after_their_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = [open_dataset(cells(f"{n}.zarr", count=2, seed=n)) for n in range(2)]
    dataset, mix = join_datasets(opened, None)
    assert dataset.names == ("s0", "s1", "1.zarr/s0", "1.zarr/s1")
    assert mix.new == {"1.zarr/s0", "1.zarr/s1"}
    assert mix.share == 0.5
    assert [sample.source for sample in dataset.samples] == ["s0", "s1"] * 2
    with pytest.raises(UsageError, match=r"must be different ones, got '1\.zarr' twice"):
        join_datasets([opened[0], opened[1], opened[1]], None)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_tiles_come_from_the_new_data_as_often_as_asked(lab, monkeypatch, share):
    seen = []
    learn = Trainer.learn

    def heard(self, batch, **told):
        seen.extend(batch.samples)
        return learn(self, batch, **told)

    monkeypatch.setattr(Trainer, "learn", heard)
    run(*lab, mix=share, steps=40, recipe_set=("batch=8",))
    new = sum(name.startswith("n") for name in seen)
    spread = 4 * (share * (1 - share) * len(seen)) ** 0.5
    assert len(seen) == 320
    assert abs(new - share * len(seen)) <= spread


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_each_step_sees_both_sides_as_nearly_as_asked(lab, monkeypatch, share):
    steps = []
    learn = Trainer.learn

    def heard(self, batch, **told):
        steps.append([name.startswith("n") for name in batch.samples])
        return learn(self, batch, **told)

    monkeypatch.setattr(Trainer, "learn", heard)
    run(*lab, mix=share, steps=20)
    assert {len(step) for step in steps} == {2}
    assert {sum(step) for step in steps} == ({1} if share == 0.5 else {0, 1})
    # Neither side has its place in the batch, which processes may share.
    assert len({tuple(step) for step in steps}) > 1
    steps.clear()
    run(*lab, mix=share, steps=20, recipe_set=("batch=1",), output="one.safetensors")
    assert {len(step) for step in steps} == {1}
    steps.clear()
    run(*lab, mix=1, steps=2, output="alone.safetensors")
    assert steps == [[True]] * 2


def test_windows_of_one_image_that_are_parted_are_told_of():
    old = [origin(f"a{n}") for n in range(5)]
    words = "Windows of slide are learned from and held out of new.zarr"
    found, _ = parted(old, [origin("w0", "slide"), origin("w1", "slide")])
    assert any(words in note for note in found.notes)
    found, _ = parted(old, [origin("w0", "slide"), origin("w1", "slide"), origin("w2", "other")])
    assert not any("Windows of" in note for note in found.notes)


def test_both_scores_are_reported_and_logged(lab):
    report = run(*lab)
    told = report.to_dict()
    json.dumps(told, allow_nan=False)
    old, new = told["comparison"]["sides"]
    assert (old["side"], old["data"], old["images"]) == ("old", "old.zarr", 2)
    assert (new["side"], new["data"], new["images"]) == ("new", "new.zarr", 1)
    assert old["change"] == pytest.approx(old["score"] - old["before"])
    rows = [json.loads(line) for line in Path("model.log.jsonl").read_text().splitlines()]
    assert rows[0]["mix"] == 0.5
    assert rows[-1]["comparison"] == json.loads(json.dumps(told["comparison"]))
    for row in rows:
        if row["event"] == "validation":
            assert row["score"] == pytest.approx((row["old_score"] + row["new_score"]) / 2)
    page = Path("model.training.html").read_text()
    assert "old.zarr, held out: AP" in page
    assert "Training on old.zarr + new.zarr" in page
    header = load("model.safetensors").header
    assert header.provenance["mix"] == 0.5
    kept = header.provenance["held_out"]
    assert [each["score"] for each in kept["datasets"]] == [old["score"], new["score"]]
    assert sum(each["objects"] for each in kept["datasets"]) == kept["objects"]
    # The score before is what the model at the start gets, with its own decision.
    again = run(*lab, resume=True)
    assert again.comparison == report.comparison


class Stopping(Silent):
    """Stops a training after some steps as a signal does."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps
        self.what = ""

    def start(self, what, *, total):
        self.what = what

    def advance(self, *_, **told):
        self.left -= self.what == "training"
        if self.left == 0:
            self.left = -1
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_training_that_goes_on_gives_the_same_bytes(lab):
    run(*lab, output="whole.safetensors")
    with pytest.raises(StoppedError):
        run(*lab, output="parts.safetensors", progress=Stopping(12))
    with pytest.raises(OutputError, match="mix"):
        run(*lab, output="parts.safetensors", resume=True, mix=0.4)
    report = run(*lab, output="parts.safetensors", resume=True)
    assert report.resumed_at_step is not None
    assert Path("parts.safetensors").read_bytes() == Path("whole.safetensors").read_bytes()


def test_what_has_unlearned_is_refused_and_can_be_taken_all_the_same(lab):
    # Nothing but the opposite is learned.
    told = {"mix": 1.0, "steps": 120}
    with pytest.raises(CheckError, match="must not fall beyond its interval with --keep-old") as no:
        run(*lab, keep_old=True, **told)
    assert no.value.exit_code == 7
    assert sorted(path.name for path in Path().iterdir()) == ["model.train"]
    report = run(*lab, resume=True, **told)
    assert report.resumed_at_step == report.steps
    assert any("The network has unlearned" in text for text in report.warnings)
    assert report.comparison["sides"][0]["fell"]
    assert sorted(path.name for path in Path().iterdir()) == [
        "model.log.jsonl",
        "model.safetensors",
        "model.training.html",
    ]
    run(*lab, output="once.safetensors", **told)
    assert Path("model.safetensors").read_bytes() == Path("once.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mix": 0.0}, "mix must be above 0 and at most 1"),
        ({"folds": 2}, "folds must be 1 for several datasets"),
        ({"init": None, "keep_old": True}, "keep-old must come with a model"),
        ({"keep_old": True, "normalization": "zscore"}, "keep-old must compare with a model of"),
    ],
)
def test_what_does_not_fit_is_refused(lab, changes, words):
    data, start = lab
    with pytest.raises(UsageError, match=words):
        train(*data, **{"init": start, "steps": 2, **TINY, **changes})
    assert not list(Path().iterdir())


def test_a_share_of_one_dataset_is_refused(lab):
    with pytest.raises(UsageError, match=r"mix must come with two datasets or more, got 0\.3 "):
        run(lab[0][:1], lab[1], mix=0.3)


def test_datasets_of_other_channels_are_refused(lab):
    writer = DatasetWriter("two.zarr")
    labels = np.eye(64, dtype=np.uint8)
    writer.add("a", np.zeros((2, 64, 64), np.uint16), axes="cyx", labels=labels)
    writer.finish()
    with pytest.raises(InputError, match=r"equally many channels, got 1 in .* and 2 in two\.z"):
        run([lab[0][0], "two.zarr"], lab[1])


def discs(seed, size=96):
    """Draw objects that lie apart."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    for one in range(16):
        cy, cx = np.array(divmod(one, 4)) * 24 + rng.integers(8, 16, 2)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 30] = one + 1
    return labels


def maps(seed, *, lost=0.0, count=3):
    """Return what a network says that misses a share of the objects."""
    found = []
    for number in range(count):
        truth = discs(seed + number)
        rng = np.random.default_rng([seed, number])
        gone = rng.permutation(np.unique(truth)[1:])[: round(lost * 16)]
        seen = (truth > 0) & ~np.isin(truth, gone)
        chance = np.where(seen, 0.9, 0.1).astype(np.float32)
        found.append(HeldOutMap.of(np.stack([1 - chance, chance]), truth))
    return found


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("target", ["foreground", "classes"])
def test_places_add_up_to_the_score_of_the_whole(count, target):
    some = maps(3, lost=0.3, count=count)
    decision = default_decision(target, classes=2)
    parts, wholes = score_places(some, decision, target=target)
    assert len(parts) == (count if count >= 8 else 16 * count)
    told = (parts.sum(axis=0) / wholes.sum(axis=0)).mean()
    assert told == pytest.approx(score_decision(some, decision, target=target))


def test_mean_dice_of_several_classes_is_that_of_numpy():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, (2, 30, 40))
    chances = np.eye(3, dtype=np.float32)[said].transpose(2, 0, 1)
    decision = default_decision("classes", classes=3)
    parts, wholes = score_places([HeldOutMap(chances, truth)], decision, target="classes")
    dice = [
        2 * ((said == k) & (truth == k)).sum() / ((said == k).sum() + (truth == k).sum())
        for k in (1, 2)
    ]
    assert np.allclose(parts.sum(axis=0) / wholes.sum(axis=0), dice)


@pytest.mark.parametrize(("lost", "fell"), [(0.0, False), (0.02, False), (0.5, True)])
def test_a_fall_is_told_from_chance(lost, fell):
    before = {"old": maps(5, lost=0.1), "new": maps(50, lost=0.5)}
    after = {"old": maps(5, lost=0.1 + lost), "new": maps(50, lost=0.2)}
    found = compare(
        mix_of("n"),
        after,
        before,
        decisions=(None, None),
        target="foreground",
        score_name="AP",
        seed=0,
    )
    old, new = found.sides
    assert old.fell == fell == (found.warning is not None)
    assert new.change > 0.1
    assert not new.fell
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    low, high = new.change_interval
    assert low <= new.change <= high
    if fell:
        with pytest.raises(CheckError):
            found.check()
    else:
        found.check()


def test_without_a_score_before_nothing_is_compared():
    found = compare(
        mix_of("n"),
        {"old": maps(1)},
        None,
        decisions=(None, None),
        target="foreground",
        score_name="AP",
        seed=0,
    )
    (side,) = found.sides
    assert (side.before, side.change, side.fell) == (None, None, False)
    assert side.sentence("AP") == f"old.zarr, held out: AP {side.score:.3f} on 48 objects."
    # Logs of earlier versions don't count them.
    told = found.to_dict()
    del told["sides"][0]["objects"]
    (side,) = Comparison.from_dict(told).sides
    assert side.sentence("AP") == f"old.zarr, held out: AP {side.score:.3f}."


def test_objects_that_nobody_judged_are_not_counted():
    (one,) = maps(1, count=1)
    assert one.objects == 16
    ignore = np.ones(one.truth.shape, np.uint8)
    assert dataclasses.replace(one, ignore=ignore).objects == 0
    ignore[one.truth == 7] = 0
    assert dataclasses.replace(one, ignore=ignore).objects == 1
