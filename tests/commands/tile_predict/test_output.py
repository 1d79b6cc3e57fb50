"""What lies on disk is valid, shows itself, and says what it is and how to make it again."""

import hashlib
import json
import shlex
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from PIL import Image

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.output import output_of
from unetkit.commands.verify import verify
from unetkit.errors import MissingError, OutputError, UsageError
from unetkit.storage.datasets import DatasetWriter, open_dataset
from unetkit.storage.images import open_image
from unetkit.storage.nodes import GroupNode, read_node
from unetkit.storage.ome import ome
from unetkit.storage.outputs import partial_url
from unetkit.storage.pyramids import add_pyramid
from unetkit.views.overview import draw_overview

EXACT = {"precision": "exact", "probabilities": "float32"}


def test_a_dataset_gives_a_dataset_with_the_same_names(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors")
    rng = np.random.default_rng(1)
    images = {"b": rng.integers(0, 255, (1, 30, 41)), "a": rng.integers(0, 255, (1, 50, 20))}
    writer = DatasetWriter(str(tmp_path / "data.zarr"))
    for name, image in images.items():
        writer.add(name, image.astype(np.uint8), axes="cyx", source="one")
    writer.finish()
    report = tile_predict(f"{writer.url}/", model=model, tile=16, **EXACT)
    assert report.output == str(tmp_path / "data.prediction.zarr")
    made = open_dataset(report.output)
    assert [(s.name, s.source) for s in made.samples] == [("b", "one"), ("a", "one")]
    for sample in made.samples:
        expected = kit.one_pass(model, images[sample.name].astype(np.uint8))
        np.testing.assert_array_equal(kit.read(sample.data), expected)
        assert set(sample.image.labels) == {"classes", "instances"}
    assert report.samples == 2


def test_the_output_is_valid_and_says_what_it_is(kit, tmp_path):
    model = kit.model(tmp_path / "model.safetensors")
    source, image = kit.image(tmp_path / "slide.zarr", (1100, 40))
    report = tile_predict(source, model=model, precision="exact")
    yaozarrs.validate_zarr_store(report.output)
    made = open_image(report.output)
    assert made.levels == 2
    expected = np.rint(kit.one_pass(model, image[0]) * 255).astype(np.uint8)
    np.testing.assert_array_equal(kit.read(made.data), expected)
    assert made.attributes["scale"] == 1 / 255
    assert made.attributes["prediction"]["precision"] == "exact"
    assert made.label_attributes["classes"]["class_names"] == ["background", "foreground"]
    assert not Path(partial_url(report.output)).exists()
    listed = Path(report.output, ".unetkit", "chunks.jsonl").read_text().splitlines()
    stored = {name for name in kit.contents(report.output) if ".unetkit/" not in name}
    for line in map(json.loads, listed):
        name = f"{line['array']}/{line['key']}".removeprefix("./")
        data = Path(report.output, name).read_bytes()
        assert (line["length"], line["crc32"]) == (len(data), zlib.crc32(data))
        stored.remove(name)
    assert not stored


def test_class_maps_have_no_instances(kit, tmp_path):
    names = ("background", "myelin", "axon")
    model = kit.model(tmp_path / "model.safetensors", classes=names, target="classes")
    source, image = kit.image(tmp_path / "slide.zarr", (40, 40))
    report = tile_predict(source, model=model, tile=16, **EXACT)
    made = open_image(report.output)
    assert set(made.labels) == {"classes"}
    assert (report.objects, report.classes) == (None, names)
    classes = kit.one_pass(model, image[0]).argmax(axis=0)
    assert set(np.unique(classes)) == {0, 1, 2}
    np.testing.assert_array_equal(kit.read(made.labels["classes"]), classes)
    with pytest.raises(UsageError, match="threshold must be left out for a model of 3 classes"):
        tile_predict(source, model=model, threshold=0.4, overwrite=True)


@pytest.mark.parametrize("kind", ["image", "dataset"])
def test_a_prediction_for_older_viewers_holds_the_same(kit, tmp_path, kind):
    model = kit.model(tmp_path / "model.safetensors")
    if kind == "image":
        source, _ = kit.image(tmp_path / "slide.zarr", (1100, 40))
    else:
        source = kit.cells(tmp_path / "data.zarr")
    made = {
        version: tile_predict(
            source,
            model=model,
            output=str(tmp_path / f"{version}.zarr"),
            ome_version=version,
            precision="exact",
        ).output
        for version in ("0.5", "0.4")
    }
    assert not list(Path(made["0.4"]).rglob("zarr.json"))
    pairs = zip(*(open_dataset(output).samples for output in made.values()), strict=True)
    for new, old in pairs:
        yaozarrs.validate_zarr_store(old.image.url)
        np.testing.assert_array_equal(kit.read(new.data), kit.read(old.data))
        assert new.image.labels.keys() == old.image.labels.keys()
        for name, labels in new.image.labels.items():
            np.testing.assert_array_equal(kit.read(labels), kit.read(old.image.labels[name]))
        assert new.image.levels == old.image.levels
        for said in (new.image.attributes, old.image.attributes):
            del said["prediction"]["command"]
        assert new.image.attributes == old.image.attributes
        assert new.class_names == old.class_names
    report = verify(made["0.4"])
    assert report.chunks > 5
    again = tile_predict(
        source, model=model, output=made["0.4"], ome_version="0.4", precision="exact", resume=True
    )
    assert again.status == "nothing to do"
    with pytest.raises(OutputError, match=r"ome_version: 0\.4 before, 0\.5 now"):
        tile_predict(source, model=model, output=made["0.4"], precision="exact", resume=True)


def test_the_output_lies_beside_the_source(slide):
    assert output_of(slide, None) == "slide.prediction.zarr"
    assert output_of(slide, "other.zarr") == "other.zarr"
    with pytest.raises(MissingError):
        output_of("absent.zarr", None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_prediction_lies_where_its_image_lies(version, kit, tmp_path):
    """Time steps, scales without a unit, translations; of the level and of the whole image."""
    url = str(tmp_path / "slide.ome.zarr")
    units = {"t": "second", "x": "parsec"}
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in "tcyx"]
    for axis in axes:
        axis |= {"unit": units[axis["name"]]} if axis["name"] in units else {}
    placed = [
        {"type": "scale", "scale": [2.5, 1.0, 0.5, -0.25]},
        {"type": "translation", "translation": [7.0, 0.0, 100.0, 250.0]},
    ]
    whole = [{"type": "scale", "scale": [1.0, 1.0, 3.0, 3.0]}]
    datasets = [{"path": "0", "coordinateTransformations": placed}]
    image = {"axes": axes, "datasets": datasets, "coordinateTransformations": whole}
    zarr.create_group(url, zarr_format=2, attributes={"multiscales": [{**image, "version": "0.4"}]})
    data = np.random.default_rng(0).integers(0, 255, (2, 1, 40, 50), np.uint8)
    zarr.create_array(f"{url}/0", data=data, chunks=(1, 1, 32, 32), zarr_format=2)
    model = kit.model(tmp_path / "model.safetensors")
    made = tile_predict(url, model=model, tile=16, ome_version=version, **EXACT).output
    for place in (made, f"{made}/labels/classes", f"{made}/labels/instances"):
        node = read_node(place)
        assert isinstance(node, GroupNode)
        (found,) = ome(node)["multiscales"]
        kept = [i for i, a in enumerate("tcyx") if a in [axis["name"] for axis in found["axes"]]]
        assert found["axes"] == [axes[i] for i in kept]
        steps = found["datasets"][0]["coordinateTransformations"]
        for made_steps, wanted in ((steps, placed), (found["coordinateTransformations"], whole)):
            assert made_steps == [
                {"type": s["type"], s["type"]: [s[s["type"]][i] for i in kept]} for s in wanted
            ]


def told(output):
    return open_image(output).attributes["prediction"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": 16, "precision": "exact", "grow": 3, "min_size": 4, "threshold": 0.4},
        {"tta": "flips", "probabilities": "float32", "ome_version": "0.4", "max_memory": "4G"},
        {"skip_below": 5.0, "mask": "where.zarr", "nonfinite": "fill", "channels": "0"},
    ],
)
def test_the_command_makes_the_same_bytes_again(slide, kit, options):
    kit.image(Path("where.zarr"), (32, 30), dtype="u1")
    output = tile_predict(slide, **options).output
    before = kit.contents(output)
    words = shlex.split(told(output)["command"])
    assert words[:3] == ["unetkit", "tile-predict", slide]
    Path(output).rename("kept.zarr")
    assert main([*words[1:], "--quiet"]) == 0
    assert kit.contents(output) == before


def test_files_are_named_without_their_folders(tmp_path, kit):
    (tmp_path / "private").mkdir()
    model = kit.model(tmp_path / "private" / "a model.safetensors")
    source, _ = kit.image(tmp_path / "private" / "slide.zarr", (30, 30))
    output = tile_predict(source, model=model, tile=16, precision="exact").output
    found = told(output)
    assert found["command"] == (
        "unetkit tile-predict slide.zarr --model 'a model.safetensors' --tile 16 --precision exact "
        "--batch 1"
    )
    assert found["model_sha256"] == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    assert found["versions"].keys() == {"python", "torch", "numpy", "zarr"}
    assert found["versions"]["numpy"] == np.__version__
    assert "private" not in str(found)


def test_several_models_are_all_named(tmp_path, kit):
    models = [kit.model(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (2, 3)]
    source, _ = kit.image(tmp_path / "slide.zarr", (30, 30))
    found = told(tile_predict(source, model=models, tile=16).output)
    assert "--model 2.safetensors --model 3.safetensors" in found["command"]
    assert len(set(found["model_sha256"])) == 2


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_prediction_draws_its_overview(slide):
    report = tile_predict(slide, tile=16, overview="look.png")
    first = pixels("look.png")
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50
    again = tile_predict(slide, tile=16, resume=True, overview="look.png")
    assert again.status == "nothing to do"
    np.testing.assert_array_equal(pixels("look.png"), first)
    with pytest.raises(OutputError, match=r"look\.png must not exist yet"):
        tile_predict(slide, tile=16, output="b.zarr", overview="look.png")
    assert not Path("b.zarr").exists()
    assert Path(report.output).exists()


def test_a_name_that_is_no_png_is_refused_before_the_work(slide):
    with pytest.raises(UsageError, match=r"overview must be a \.png file"):
        tile_predict(slide, overview="look.jpg")
    with pytest.raises(OutputError, match="must lie apart"):
        tile_predict(slide, overview=f"{slide}/look.png")
    assert not Path("slide.prediction.zarr").exists()


def test_a_dry_run_draws_nothing(slide):
    tile_predict(slide, dry_run=True, overview="look.png")
    assert not Path("look.png").exists()


def test_every_sample_of_a_dataset_is_shown(tmp_path, kit):
    model = kit.model(tmp_path / "model.safetensors")
    source, path = kit.cells(tmp_path / "data.zarr", count=3), str(tmp_path / "look.png")
    tile_predict(source, model=model, overview=path)
    four = str(tmp_path / "one.png")
    alone = kit.cells(tmp_path / "one.zarr", count=1)
    tile_predict(alone, model=model, overview=four)
    assert pixels(path).shape[1] > pixels(path).shape[0] / 2
    assert pixels(path).shape != pixels(four).shape


def test_a_slide_s_overview_reads_its_small_levels_only(tmp_path, kit):
    model = kit.model(tmp_path / "model.safetensors")
    source, _ = kit.image(tmp_path / "slide.zarr", (2060, 40))
    add_pyramid(source)
    output = tile_predict(source, model=model).output
    for level in (f"{source}/0", f"{output}/labels/instances/0"):
        for chunk in Path(level, "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"damaged")
    path = str(tmp_path / "look.png")
    draw_overview(path, open_dataset(source), open_dataset(output))
    assert pixels(path).shape[0] > 1030
