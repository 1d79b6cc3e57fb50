"""How unsure models and turns are: the entropy of their mean, the same however it is computed."""

import csv
import json
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import yaozarrs
import zarr
from skimage.measure import regionprops

from unetkit.arrays.uncertainty import stored_uncertainty
from unetkit.cli.app import main
from unetkit.commands.info import info
from unetkit.commands.measure import measure
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.errors import CheckError, StoppedError, UsageError
from unetkit.storage.images import open_image
from unetkit.storage.nodes import read_node
from unetkit.storage.ome import label_names
from unetkit.storage.pyramids import add_pyramid

ASKED = {"tile": 32, "scheduler": "sync", "device": "cpu", "precision": "exact"}
UNSURE = {**ASKED, "uncertainty": True}
THREE = ("background", "interior", "boundary")


@pytest.fixture
def models(kit, slide):
    """Return three models of one kind."""
    return [kit.model(f"m{seed}.safetensors", seed=seed) for seed in (2, 3, 4)]


def layer(kit, url):
    return kit.read(open_image(url).uncertainty)


def reckoned(looks):
    """Reckon the entropy of the mean of looks (N, K, Y, X) as a share, in double precision."""
    mean = np.asarray(looks, np.float64).mean(axis=0)
    return scipy.stats.entropy(mean, base=len(mean), axis=0)


@pytest.mark.parametrize("merge", ["crop", "gaussian"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_is_the_entropy_of_the_mean_of_the_models(kit, slide, merge, classes):
    # Windows that are blended are looks too, unless all say the same.
    asked = {} if merge == "crop" else {"merge": "gaussian", "tile": 64}
    kinds = {} if classes == 2 else {"classes": THREE, "target": "foreground+boundary"}
    name = "unet" if merge == "crop" else "keras-unet"
    models = [kit.model(f"n{s}.safetensors", seed=s, name=name, **kinds) for s in (2, 3, 4)]
    options = {**ASKED, **asked, "probabilities": "float32"}
    looks = []
    for number, model in enumerate(models):
        tile_predict(slide, model=model, output=f"{number}.zarr", **options)
        looks.append(kit.read(open_image(f"{number}.zarr").data))
    tile_predict(slide, model=models, output="all.zarr", uncertainty=True, **options)
    found, wanted = layer(kit, "all.zarr"), reckoned(looks) * 255
    assert found.dtype == np.uint8
    assert np.abs(found - wanted).max() < 0.51
    assert np.ptp(found) > 5, "the models of this test must be sure here and unsure there"


def test_turns_are_looks_and_leave_probabilities_as_they_are(kit, slide):
    tile_predict(slide, output="plain.zarr", tta="flips", **ASKED)
    report = tile_predict(slide, output="unsure.zarr", tta="flips", **UNSURE)
    assert report.to_dict()["uncertainty"] == 4
    assert layer(kit, "unsure.zarr").max() > 0
    more = [n for n in kit.differing("plain.zarr", "unsure.zarr") if "/c/" in n]
    assert more, "there must be a layer"
    assert all(name.startswith("uncertainty/") for name in more)
    # What a network says of a mirrored image is mirrored, so that its turns are known without.
    image = kit.read(open_image(slide).data)
    looks = [
        kit.one_pass("model.safetensors", image[:, ::a, ::b])[:, ::a, ::b]
        for a in (1, -1)
        for b in (1, -1)
    ]
    # The size is a whole number of steps, so that pooling has the same phase from either end.
    assert image.shape[1] % 4 == image.shape[2] % 4 == 0
    assert np.abs(layer(kit, "unsure.zarr") - reckoned(looks) * 255).max() < 0.51


def test_both_are_looks(kit, models, slide):
    report = tile_predict(slide, model=models, output="a.zarr", tta="flips", **UNSURE)
    assert report.uncertainty == 12
    told = open_image("a.zarr").uncertainty_attributes
    assert told["looks"] == 12
    assert told["scale"] == 1 / 255
    assert "entropy of the mean" in told["measure"]
    layer = info("a.zarr")["uncertainty"]
    assert (layer["shape"], layer["dtype"]) == (info("a.zarr")["shape"][1:], "uint8")
    assert {"looks": 12, "scale": 1 / 255}.items() <= layer.items()
    assert "uncertainty" not in info(slide)
    words = open_image("a.zarr").attributes["prediction"]["command"].split()
    assert "--uncertainty" in words
    assert "True" not in words


@pytest.mark.parametrize(
    "other",
    [{"tile": 16}, {"tile": 64}, {"scheduler": "threads", "workers": 2}, {"batch": 3}],
    ids=str,
)
def test_no_tile_and_no_scheduler_changes_a_pixel(kit, models, slide, other):
    tile_predict(slide, model=models[:2], output="one.zarr", tta="flips", **UNSURE)
    tile_predict(slide, model=models[:2], output="two.zarr", tta="flips", **{**UNSURE, **other})
    np.testing.assert_array_equal(layer(kit, "one.zarr"), layer(kit, "two.zarr"))


@pytest.mark.parametrize("scheduler", ["processes", "local:2"])
@pytest.mark.slow
def test_other_processes_give_the_same_bytes(kit, models, slide, scheduler):
    tile_predict(slide, model=models[:2], output="one.zarr", **UNSURE)
    tile_predict(slide, model=models[:2], output="two.zarr", **{**UNSURE, "scheduler": scheduler})
    assert not [n for n in kit.differing("one.zarr", "two.zarr") if "/c/" in n]


def test_a_stopped_run_goes_on_to_the_same_bytes(kit, models, slide):
    asked = {**UNSURE, "tile": 16, "model": models[:2]}
    tile_predict(slide, output="whole.zarr", **asked)
    stopping = kit.watching(at=7, act=lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError):
        tile_predict(slide, output="again.zarr", progress=stopping, **asked)
    # A chunk of the layer that is lost is noticed, and predicted anew.
    stored = sorted(Path(".again.zarr.unetkit-partial/uncertainty/0/c").rglob("*"))
    next(path for path in stored if path.is_file()).unlink()
    report = tile_predict(slide, output="again.zarr", resume=True, **asked)
    assert 0 < report.tiles_reused < report.tiles_total
    assert not [n for n in kit.differing("whole.zarr", "again.zarr") if "/c/" in n]
    assert verify("again.zarr")


def test_damage_to_the_layer_is_found(kit, models, slide):
    tile_predict(slide, model=models, output="a.zarr", **UNSURE)
    stored = next(path for path in Path("a.zarr/uncertainty/0/c").rglob("*") if path.is_file())
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckError, match="uncertainty/0"):
        verify("a.zarr").check()


def test_one_look_is_refused_before_anything_is_made(kit, slide):
    with pytest.raises(UsageError, match=r"uncertainty must be .*one model that looks once; add"):
        tile_predict(slide, uncertainty=True, dry_run=True)
    assert sorted(path.name for path in Path().iterdir()) == ["model.safetensors", "slide.zarr"]


def test_a_dry_run_says_so(kit, slide):
    progress = kit.watching()
    report = tile_predict(slide, tta="flips", dry_run=True, progress=progress, **UNSURE)
    assert report.uncertainty == 4
    assert any("how unsure the 4 looks are together is stored" in note for note in progress.notes)
    assert tile_predict(slide, tta="flips", dry_run=True, **ASKED).uncertainty is None


def test_smaller_levels_are_means(kit, models):
    kit.image("large.zarr", (1040, 40))
    tile_predict("large.zarr", model=models, output="a.zarr", **UNSURE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yaozarrs.validate_zarr_store("a.zarr/uncertainty")
    group = zarr.open_group("a.zarr/uncertainty", mode="r")
    whole = group["0"][:].astype(float)
    pairs = whole.reshape(520, 2, 20, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(group["1"][:], np.rint(pairs))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_it_goes_beside_the_labels_of_an_image(kit, models, version):
    url = kit.plate("plate.zarr", rows="B", version=version, labels="nuclei")
    before = kit.contents(url)
    tile_predict(url, model=models, in_place=True, **UNSURE)
    tile_predict(url, model=models, output="apart.zarr", **UNSURE)
    for field in ("B/1/0", "B/2/0"):
        found = layer(kit, f"{url}/{field}")
        np.testing.assert_array_equal(found, layer(kit, f"apart.zarr/{field}"))
        told = open_image(f"{url}/{field}").uncertainty_attributes
        assert told["prediction"]["source"] == "plate.zarr"
        assert "uncertainty" not in label_names(read_node(f"{url}/{field}/labels"))
    after = kit.contents(url)
    again = tile_predict(url, model=models, in_place=True, resume=True, **UNSURE)
    assert again.status == "nothing to do"
    assert kit.contents(url) == after
    tile_predict(url, model=models, in_place=True, overwrite=True, **UNSURE)
    assert kit.contents(url) == after
    assert before.keys() <= after.keys()


def test_it_has_the_levels_of_the_image_in_place(kit, models):
    kit.image("image.zarr", (64, 60))
    add_pyramid("image.zarr", steps=[(2, 2), (4, 2)])
    tile_predict("image.zarr", model=models, in_place=True, **UNSURE)
    group = zarr.open_group("image.zarr/uncertainty", mode="r")
    assert [group[n].shape for n in "012"] == [(64, 60), (32, 30), (8, 15)]


def test_what_others_call_uncertainty_is_none_of_ours(kit, models, slide):
    zarr.create_group(f"{slide}/uncertainty", attributes={"whose": "another program's"})
    assert open_image(slide).uncertainty is None


def test_what_is_left_out_or_of_one_value_is_certain(kit, models):
    url, _ = kit.image("dark.zarr", (64, 64))
    data = zarr.open_array(f"{url}/0", mode="r+")
    data[:32, :32] = 0
    mask = zarr.create_array("mask.zarr", shape=(2, 2), chunks=(2, 2), dtype="u1")
    mask[:] = [[1, 1], [1, 0]]
    tile_predict(url, model=models, output="a.zarr", skip_below=1, **UNSURE)
    assert not layer(kit, "a.zarr")[:32, :32].any()
    assert layer(kit, "a.zarr")[32:, 32:].any()
    classes = [kit.model(f"c{s}.safetensors", seed=s, target="classes") for s in (2, 3)]
    tile_predict(url, model=classes, output="b.zarr", mask="mask.zarr", **UNSURE)
    assert not layer(kit, "b.zarr")[32:, 32:].any()
    assert layer(kit, "b.zarr")[:32, 32:].any()


def test_it_is_kept_where_only_the_decision_is_another(kit, models, slide):
    tile_predict(slide, model=models, output="a.zarr", **UNSURE)
    before = layer(kit, "a.zarr")
    report = tile_predict(
        slide, model=models, output="a.zarr", threshold=0.7, overwrite=True, **UNSURE
    )
    assert report.tiles_taken_over == report.tiles_total
    np.testing.assert_array_equal(layer(kit, "a.zarr"), before)
    assert verify("a.zarr")
    plain = tile_predict(
        slide, model=models, output="a.zarr", threshold=0.7, overwrite=True, **ASKED
    )
    assert plain.tiles_taken_over == 0
    assert open_image("a.zarr").uncertainty is None


def test_a_rescaled_image_has_it_at_its_own_size(kit, models, slide):
    tile_predict(slide, model=models, output="a.zarr", scale=0.5, **UNSURE)
    found, made = layer(kit, "a.zarr"), layer(kit, "a.zarr/model-size")
    assert (found.shape, made.shape) == ((64, 60), (32, 30))
    low, high = made.min(), made.max()
    assert low <= found.min() <= found.max() <= high
    # Of linear interpolation a mean keeps what it was, but for the edges.
    assert abs(float(found.mean()) - float(made.mean())) < 0.1 * float(made.mean())


@pytest.mark.parametrize("image", [None, "slide.zarr"])
def test_objects_have_its_mean(kit, models, slide, image):
    tile_predict(slide, model=models, output="a.zarr", **UNSURE)
    measure("a.zarr", image, csv="unsure.csv")
    labels = kit.read(open_image("a.zarr").labels["instances"])
    rows = list(csv.DictReader(Path("unsure.csv").read_text().splitlines()))
    wanted = [one.intensity_mean / 255 for one in regionprops(labels, layer(kit, "a.zarr"))]
    np.testing.assert_allclose([float(row["uncertainty"]) for row in rows], wanted, rtol=1e-12)
    # All else is as without it.
    tile_predict(slide, model=models, output="b.zarr", **ASKED)
    measure("b.zarr", image, csv="plain.csv")
    plain = list(csv.DictReader(Path("plain.csv").read_text().splitlines()))
    for row, same in zip(rows, plain, strict=True):
        assert {**row, "sample": "b"} == {**same, "uncertainty": row["uncertainty"]}


def test_an_audit_compares_probabilities_alone(kit, models, slide):
    report = tile_predict(slide, model=models, output="a.zarr", audit=2, **UNSURE)
    assert report.audit["differing"] == 0


def test_nothing_where_all_are_sure_of_the_same_and_all_where_each_is_of_something_else():
    sure = np.eye(4, dtype=np.float32)[:, :, None, None]
    assert stored_uncertainty(sure[0]).item() == 0
    assert stored_uncertainty(sure.mean(axis=0)).item() == 255
    rng = np.random.default_rng(0)
    mean = rng.dirichlet([0.3] * 4, size=(5, 6)).transpose(2, 0, 1)
    found = stored_uncertainty(mean.astype(np.float32))
    assert np.abs(found - 255 * reckoned([mean])).max() < 0.51


def test_json_tells_of_it(kit, slide, capsys):
    assert main(["tile-predict", slide, "--tta", "flips", "--uncertainty", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["uncertainty"] == 4
