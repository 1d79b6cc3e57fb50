import hashlib
import subprocess
import sys
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands.conftest import cells, tiny_model
from unetkit.arrays import normalization
from unetkit.commands.export_model import export_model
from unetkit.commands.train.initial_weights import open_start
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.models.inference import predict_array
from unetkit.models.model_file import load
from unetkit.models.model_header import read_header


def test_the_export_lies_beside_its_model_and_takes_a_size_that_fits(small_model):
    report = export_model(str(small_model), size=40)
    place = small_model.with_suffix(".pt2")
    assert report.output == str(place)
    assert (report.minimum, report.step, report.bytes) == (40, 0, place.stat().st_size)
    assert report.to_dict()["largest_difference"] < 1e-4
    assert export_model(str(small_model), output=str(place) + ".other", size=41).minimum == 42


def test_nothing_is_lost_and_nothing_foreign_is_read(small_model):
    before = hashlib.sha256(small_model.read_bytes()).hexdigest()
    with pytest.raises(OutputError, match="must lie apart"):
        export_model(str(small_model), output=str(small_model))
    taken = small_model.with_suffix(".pt2")
    taken.write_text("a thesis")
    with pytest.raises(OutputError, match="must not exist"):
        export_model(str(small_model))
    assert taken.read_text() == "a thesis"
    assert hashlib.sha256(small_model.read_bytes()).hexdigest() == before
    with pytest.raises(InputError, match="a model file must be"):
        export_model(str(taken), output=str(taken) + ".pt2")


def test_only_an_earlier_export_is_replaced(small_model, kit):
    watching = kit.watching()
    taken = small_model.with_suffix(".pt2")
    taken.write_bytes(b"PK a thesis")
    with pytest.raises(OutputError, match="must be an earlier output"):
        export_model(str(small_model), overwrite=True)
    taken.unlink()
    export_model(str(small_model), size=40)
    with pytest.raises(OutputError, match="add --overwrite"):
        export_model(str(small_model), size=40)
    assert export_model(str(small_model), size=41, overwrite=True, progress=watching).minimum == 42
    assert watching.notes[0] == "size 41 becomes 42, the next that the model takes"


@pytest.mark.parametrize("size", [None, 40])
def test_what_a_program_must_do_is_said_in_numbers(small_model, kit, size):
    watching = kit.watching()
    report = export_model(str(small_model), size=size, progress=watching)
    (said,) = watching.notes
    sides = "sides of 40 pixels," if size else "sides of 18 + 2 k pixels (18, 20, 22, ...)"
    assert sides in said
    assert "1st percentile of each channel to 0, 99.8th to 1" in said
    assert (report.margin, report.normalization) == (8, "percentile")
    # What is said is what is so.
    network = torch.export.load(report.output).module()
    for side in (40,) if size else (18, 20, 22):
        found = network(torch.zeros(1, 1, side, side))
        assert tuple(found.shape) == (1, 2, side - 16, side - 16)
    assert "height and width are 16 pixels smaller: mirror the image by 8 pixels" in said
    assert (normalization.LOW, normalization.HIGH) == (1, 99.8)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a folder with a model, images, and the package that was made of them."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("shared")
    told = {"data": "cells.zarr", "trained_on": ["s0"], "validated_on": ["s1"]}
    tiny_model(folder / "nuclei.v2.safetensors", depth=1, width=4, provenance=told)
    cells(folder / "cells.zarr", shape=(64, 72))
    report = export_model(
        str(folder / "nuclei.v2.safetensors"),
        to="bioimageio",
        author=("Ada Lovelace, University of London",),
        license="CC-BY-4.0",
    )
    assert (report.output, report.example) == (
        str(folder / "nuclei.v2.bioimageio.zip"),
        "s1 of cells.zarr",
    )
    assert report.largest_difference < 1e-5
    return folder, report


def test_a_package_says_what_it_is_and_what_it_holds_for(shared):
    yaml = pytest.importorskip("yaml")
    folder, report = shared
    with ZipFile(report.output) as package:
        files = {name: package.read(name) for name in package.namelist()}
    told = yaml.safe_load(files["rdf.yaml"])
    assert (told["name"], told["license"]) == ("nuclei v2", "CC-BY-4.0")
    assert told["authors"] == [{"name": "Ada Lovelace", "affiliation": "University of London"}]
    # A margin of 8 with a step of 2: the halo needs no rounding, nor do the sizes.
    assert told["config"]["unetkit"]["sides"] == {"minimum": 18, "step": 2}
    assert (report.minimum, report.step) == (18, 2)
    (given,), (answer,) = told["inputs"], told["outputs"]
    assert given["axes"][2]["size"] == {"min": 18, "step": 2}
    assert [axis.get("halo") for axis in answer["axes"]] == [None, None, 8, 8]
    assert answer["axes"][1]["channel_names"] == ["background", "foreground"]
    scaling = {"axes": ["y", "x"], "min_percentile": 1.0, "max_percentile": 99.8}
    assert given["preprocessing"] == [{"id": "scale_range", "kwargs": scaling}]
    assert given["pad"] == {"mode": "reflect"}
    named = [given["test_tensor"], answer["test_tensor"], told["weights"]["onnx"]]
    named += [told["documentation"], *told["covers"], *told["attachments"]]
    assert {each["source"] for each in named} == files.keys() - {"rdf.yaml"}
    for each in named:
        assert hashlib.sha256(files[each["source"]]).hexdigest() == each["sha256"]
    assert files["model.safetensors"] == (folder / "nuclei.v2.safetensors").read_bytes()
    cover = Image.open(BytesIO(files["cover.png"]))
    assert cover.width == 2 * cover.height
    assert len(files["cover.png"]) < 500_000
    card = files["README.md"].decode()
    assert "multiples of 2 pixels" in card
    assert "Licence: CC-BY-4.0" in card


def test_a_training_begins_with_a_package(shared, tmp_path):
    folder, report = shared
    begun = open_start(report.output)
    assert begun.sha256 == open_start(str(folder / "nuclei.v2.safetensors")).sha256
    assert read_header(report.output) == begun.header
    foreign = tmp_path / "foreign.zip"
    for member, said in (("weights.pt", "got no model.safetensors"), ("model.safetensors", "grow")):
        with ZipFile(foreign, "w", ZIP_DEFLATED) as package:
            package.writestr(member, bytes(10**6))
        with pytest.raises(InputError, match=said):
            open_start(str(foreign))
    foreign.write_bytes(Path(report.output).read_bytes()[:-90])
    with pytest.raises(InputError, match="must be whole"):
        open_start(str(foreign))


# In a process of its own, since the library leaves files open.
CORE = """
import sys
import numpy as np
from bioimageio import core
package, *images = sys.argv[1:]
status = core.test_model(package).status
described = core.load_model_description(package)
with core.create_prediction_pipeline(described) as pipeline:
    for place in images:
        inputs = np.load(place)[None]
        sample = core.digest_spec.create_sample_for_model(described, inputs=inputs)
        # Blocks of 50 pixels, which fit no image here.
        found = pipeline.predict_sample_with_blocking(sample, ns=16)
        np.save(place, found.members["probabilities"].data.to_numpy()[0])
print(status)
"""


def test_other_programs_predict_by_blocks_what_tile_predict_does(shared, tmp_path):
    if find_spec("bioimageio") is None:
        pytest.skip("bioimageio.core is not installed")
    folder, report = shared
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 4000, (1, *s)).astype("f4") for s in ((64, 90), (130, 58), (50, 52))]
    places = [str(tmp_path / f"{number}.npy") for number in range(len(images))]
    for place, image in zip(places, images, strict=True):
        np.save(place, image)
    command = [sys.executable, "-c", CORE, report.output, *places]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == "passed"
    loaded = load(str(folder / "nuclei.v2.safetensors"))
    for place, image in zip(places, images, strict=True):
        seen = normalization.fit(lambda: [image]).apply(image)  # noqa: B023
        expected = predict_array(loaded.module, seen, contract=loaded.header.contract)
        np.testing.assert_allclose(np.load(place), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "onnx", "license": "MIT"}, "license must come with a package"),
        ({"to": "bioimageio", "size": 64}, "must take any size"),
        ({"to": "bioimageio", "author": ("Ada/Lovelace",)}, "an author must be a name"),
        ({"to": "bioimageio", "license": "do as you like"}, "license must be the short name"),
    ],
)
def test_what_fits_no_package_is_refused(small_model, options, said):
    with pytest.raises(UsageError, match=said):
        export_model(str(small_model), **options)
    assert [path.name for path in small_model.parent.iterdir()] == [small_model.name]


def test_images_that_do_not_fit_are_refused_and_none_is_found_elsewhere(small_model, kit, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    image, _ = kit.image(tmp_path / "two.zarr", (2, 40, 40), axes="cyx")
    with pytest.raises(InputError, match=r"must have 1 channels.*--sample"):
        export_model(str(small_model), to="bioimageio", sample=image)
    assert not small_model.with_suffix(".bioimageio.zip").exists()
