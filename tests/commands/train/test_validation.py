from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unetkit.arrays.instances import instances
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.measure import measure
from unetkit.commands.train import validation
from unetkit.commands.train.plan import choose_task
from unetkit.commands.train.samples import training_samples
from unetkit.commands.train.validation import Validator
from unetkit.geometry.sizes import SizeContract
from unetkit.models.build import build_model
from unetkit.models.inference import predict_array, to_classes
from unetkit.progress import SILENT
from unetkit.scores.contingency import from_labels, pool
from unetkit.scores.table import score_classes, score_instances
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.training import held_out
from unetkit.training.block_cache import BlockCache
from unetkit.training.split import Region, Split
from unetkit.training.tuning import best_score


class Bright(torch.nn.Module):
    """A network that finds what is brighter than half, by its own margin of 2 pixels."""

    contract = SizeContract(step=2, minimum=6, margin=2)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, images):
        inner = self.scale * (images[:, :, 2:-2, 2:-2] - 0.5)
        return torch.cat([-inner, inner], dim=1)


def validator(
    url,
    *,
    regions=None,
    contract=Bright.contract,
    target=None,
    before_each=lambda: None,
):
    task = choose_task(open_dataset(url), target, SILENT)
    if regions is None:
        sizes = ((s.name, s.data.height, s.data.width) for s in task.samples)
        regions = [Region(name, 0, 0, height, width) for name, height, width in sizes]
    description = SimpleNamespace(
        task=task,
        contract=contract,
        parts=Split((), tuple(regions)),
        plan=SimpleNamespace(precision="float32"),
        mix=None,
    )
    known = training_samples(
        task,
        [region.sample for region in regions],
        balance=0,
        normalization="range",
        nonfinite="error",
        progress=SILENT,
    )
    return Validator(description, known, cache=BlockCache(), before_each=before_each)


def test_a_perfect_network_has_a_perfect_score(kit, tmp_path):
    url = kit.cells(tmp_path / "data.zarr")
    found = validator(url)(Bright())
    assert found.scores["average_precision_50"] == 1
    # Objects grow by a pixel, as in every prediction.
    labels = kit.read(open_dataset(url).samples[0].labels())
    grown = score_instances(from_labels(labels, instances((labels > 0) * 1, "foreground")))
    assert found.score == found.scores["average_precision"] == grown.average_precision
    assert found.scores["objects_true"] == found.scores["objects_predicted"] == 18
    assert 0 < found.loss < 0.05
    worse = Bright()
    torch.nn.init.constant_(worse.scale, 2.0)
    assert validator(kit.cells(tmp_path / "more.zarr"))(worse).loss > 2 * found.loss


def test_classes_are_scored_by_their_dice(kit, tmp_path):
    url = kit.cells(tmp_path / "data.zarr", kind="classes", class_names=("no", "yes"))
    found = validator(url)(Bright())
    assert found.score == found.scores["dice"] == 1
    assert "average_precision" not in found.scores
    inverted = Bright()
    torch.nn.init.constant_(inverted.scale, -20.0)
    assert validator(url)(inverted).score == 0


def test_the_boundary_target_counts_what_is_inside(kit, tmp_path):
    inverted = Bright()
    torch.nn.init.constant_(inverted.scale, -20.0)
    found = validator(kit.cells(tmp_path / "d.zarr"), target="boundary")(inverted)
    assert found.scores["average_precision_50"] == 1


def test_scores_are_those_of_the_samples_together(kit, tmp_path):
    url = kit.cells(tmp_path / "data.zarr", count=2)
    torch.manual_seed(0)
    network = build_model("unet", in_channels=1, classes=2, options={"depth": 1, "width": 2})
    held_out = validator(url, contract=network.contract)
    found = held_out(network)
    tables = []
    for sample in open_dataset(url).samples:
        image = kit.read(sample.data).astype(np.float32)
        image = (image - image.min()) / np.float32(image.max() - image.min())
        probable = predict_array(network, image, contract=network.contract)
        predicted = instances(to_classes(probable), "foreground")
        tables.append(from_labels(kit.read(sample.labels()), predicted))
    expected = score_instances(pool(tables))
    assert found.scores["dice"] == expected.dice
    assert found.scores["average_precision"] == expected.average_precision
    # What decides between networks is how well each does with a decision that suits it.
    assert (found.score, held_out.error) == best_score(held_out.maps(network), target="foreground")
    assert found.scores["objects_predicted"] == expected.objects_predicted


def test_planes_count_as_in_eval_and_measure(tmp_path):
    labels = np.zeros((3, 40, 40), np.uint8)
    for z in range(3):
        labels[z, 4 + z : 14 + z, 5:15], labels[z, 20:30, 20 + z : 30 + z] = 1, 2
    url = str(tmp_path / "data.zarr")
    writer = DatasetWriter(url)
    writer.add("a", (labels > 0) * np.uint8(200), axes="zyx", labels=labels, kind="instances")
    writer.finish()
    validated = validator(url)(Bright()).scores
    scored = evaluate(url, url, bootstrap=0).overall
    measured = measure(url, csv=str(tmp_path / "m.csv")).objects
    assert validated["objects_true"] == scored.objects_true == measured == 6
    assert validated["objects_predicted"] == scored.objects_predicted


def test_a_part_of_an_image_is_predicted_as_in_the_whole(tmp_path):
    labels = np.zeros((90, 70), np.uint8)
    labels[60:80, 10:30] = 1
    image = np.random.default_rng(0).random((90, 70), dtype=np.float32)
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    writer.add("a", image, axes="yx", labels=labels, kind="classes")
    writer.finish()
    torch.manual_seed(1)
    network = build_model("unet", in_channels=1, classes=2, options={"depth": 2, "width": 2})
    part = Region("a", 53, 7, 85, 61)
    found = validator(str(tmp_path / "data.zarr"), regions=[part], contract=network.contract)
    low, high = image.min(), image.max()
    probable = predict_array(
        network, (image - low)[None] / (high - low), contract=network.contract
    )[:, 53:85, 7:61]
    table = from_labels(labels[53:85, 7:61], to_classes(probable))
    scores = found(network)
    assert scores.scores["pixel_error"] == score_classes(table, ("0", "1")).pixel_error
    right = np.take_along_axis(probable, labels[None, 53:85, 7:61].astype(int), axis=0)
    assert scores.loss == pytest.approx(float(-np.log(right).mean()), rel=1e-4)


def test_ignored_pixels_do_not_count(kit, tmp_path):
    ignore = np.zeros((40, 44), np.uint8)
    wrong = np.ones((40, 44), np.uint8)
    ignore[:, 20:] = 1
    url = kit.cells(tmp_path / "data.zarr", kind="classes", ignore=ignore)
    # Outside of the ignored half the network is right; inside, the labels are spoilt.
    labels = open_dataset(url).samples[0].labels()
    spoilt = kit.read(labels)
    spoilt[:, 20:] = wrong[:, 20:] - spoilt[:, 20:]
    labels.write(0, 0, 0, spoilt)
    assert validator(url)(Bright()).score == 1


def test_nothing_to_find_leaves_the_choice_to_the_loss(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, value in (("empty", 0), ("full", 1)):
        labels = np.zeros((20, 20), np.uint8)
        labels[5:9, 5:9] = value
        image = np.where(np.eye(20) > 0, 100, 0).astype(np.uint8)
        writer.add(name, image, axes="yx", labels=labels)
    writer.finish()
    network = Bright()
    torch.nn.init.constant_(network.scale, -20.0)
    regions = [Region("empty", 0, 0, 20, 20)]
    bad = validator(str(tmp_path / "data.zarr"), regions=regions)(network)
    torch.nn.init.constant_(network.scale, 0.01)
    good = validator(str(tmp_path / "data.zarr"), regions=regions)(network)
    assert bad.score == good.score == 0
    assert good.rank > bad.rank


def test_pixels_are_those_that_the_network_reads(kit, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "TILE", 24)
    read = []

    class Counting(Bright):
        def forward(self, images):
            read.append(images.shape[0] * images.shape[2] * images.shape[3])
            return super().forward(images)

    regions = [Region("s0", 0, 0, 40, 44), Region("s1", 22, 8, 40, 44)]
    found = validator(kit.cells(tmp_path / "data.zarr"), regions=regions)
    found(Counting())
    assert sum(read) == found.pixels_read
    assert len(read) > 2


def test_it_can_be_ended_before_each_plane(kit, tmp_path):
    left = [True, True]

    def ask():
        left.pop()

    url = kit.cells(tmp_path / "data.zarr", count=3)
    with pytest.raises(IndexError):
        validator(url, before_each=ask)(Bright())


def test_much_data_is_thinned_out_evenly(kit, tmp_path, monkeypatch):
    url = kit.cells(tmp_path / "data.zarr", count=6)
    monkeypatch.setattr(held_out, "MOST", 3 * 40 * 44)
    assert [one.region.sample for one in validator(url).planes] == ["s0", "s2", "s4"]
    monkeypatch.setattr(held_out, "LARGEST", 20)
    monkeypatch.setattr(held_out, "MOST", 10**9)
    assert {one.region for one in validator(url).planes} == {
        Region(f"s{k}", 10, 12, 30, 32) for k in range(6)
    }


def test_what_is_read_again_comes_from_memory(kit, tmp_path):
    found = validator(kit.cells(tmp_path / "data.zarr", count=1))
    first = found(Bright())
    # The files are gone; a second validation must not need them.
    for chunk in (tmp_path / "data.zarr").rglob("c/*"):
        if chunk.is_file():
            chunk.unlink()
    assert found(Bright()) == first


def test_a_place_with_something_on_it_is_kept_to_be_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "LOOK", 16)
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, value in (("empty", 0), ("full", 7)):
        labels = np.zeros((40, 44), np.uint8)
        labels[30:36, 34:40] = value
        image = np.where(labels > 0, 200, 10).astype(np.uint8)
        writer.add(name, image + np.eye(40, 44, dtype=np.uint8), axes="yx", labels=labels)
    writer.finish()
    found = validator(
        str(tmp_path / "data.zarr"),
        regions=[Region("empty", 0, 0, 40, 44), Region("full", 0, 0, 40, 44)],
    )
    assert found.picture is None
    found(Bright())
    picture = found.picture
    assert picture is not None
    assert picture.image.shape == (1, 16, 16)
    assert (picture.truth == 7).sum() == 36
    np.testing.assert_array_equal(picture.image[0] > 100, picture.truth > 0)
    assert picture.prediction.shape == (16, 16)
