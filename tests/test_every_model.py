"""Every installed model, from annotated nuclei to a scored prediction."""

import json
import shutil

import pytest

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.import_images.command import import_images
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.train.command import train
from unetkit.models.build import models
from unetkit.storage.datasets import open_dataset

# Options that make a model small, for as many of them as it has.
SMALL = {"width": "4", "head": "8", "encoder": "tu-test_resnet"}
KNOWN = {
    "unet": ("depth", "width"),
    "keras-unet": ("depth", "width"),
    "smp-dpt": ("encoder=tu-test_vit", "width"),
    "smp-linknet": ("encoder",),
    "attention-unet": ("width",),
    **{f"fcn{stride}s": ("width", "head") for stride in (32, 16, 8)},
}


def options_for(name):
    wish = KNOWN.get(name, ("encoder", "width") if name.startswith("smp-") else ())
    return tuple(w if "=" in w else f"{w}={SMALL.get(w, 2)}" for w in wish)


@pytest.mark.slow
@pytest.mark.parametrize("name", models().names())
def test_it_trains_predicts_and_is_scored(name, test_data, tmp_path):
    nuclei = test_data / "bbbc039_nuclei"
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for file in sorted((nuclei / kind).iterdir())[:2]:
            shutil.copy(file, tmp_path / kind)
    data, file = str(tmp_path / "data.zarr"), str(tmp_path / "model.safetensors")
    import_images(str(tmp_path / "images"), data, labels=str(tmp_path / "masks"))
    report = train(data, output=file, model=name, options=options_for(name), steps=3, device="cpu")
    prediction = tile_predict(data, model=file, device="cpu").output
    scores = evaluate(prediction, data).to_dict()
    json.dumps(scores, allow_nan=False)
    assert report.model == name
    for sample in open_dataset(prediction).samples:
        assert sample.data.read(0, 0, 64, 0, 64).any()
