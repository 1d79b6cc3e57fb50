"""Several models are one where they agree, and are named where they do not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.cli.app import main
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.tile_predict.ensemble import (
    find_models,
    load_ensemble,
    load_model,
    read_header,
)
from unetkit.errors import InputError, MissingError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.joint_header import joint_contract
from unetkit.models.model_header import folds
from unetkit.progress import SILENT
from unetkit.storage.images import open_image


def test_the_default_is_one_file_or_its_folds(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    progress = kit.watching()
    assert find_models((), progress=progress) == ("model.safetensors",)
    names = [f"model.fold{number}.safetensors" for number in (1, 2, 10)]
    for name in (*names, "model.fold.safetensors", "model.fold3.txt", "other.fold1.safetensors"):
        Path(name).write_bytes(b"")
    assert find_models((), progress=progress) == tuple(names)
    assert progress.notes == ["model.safetensors is not there; its 3 folds are averaged"]
    assert find_models(["a.st", "b.st"], progress=SILENT) == ("a.st", "b.st")
    Path("model.safetensors").write_bytes(b"")
    assert find_models((), progress=SILENT) == ("model.safetensors",)
    assert folds("s3://bucket/model.safetensors") == folds("nowhere/model.safetensors") == []


def test_folds_are_averaged(kit, slide):
    Path("model.safetensors").rename("model.fold1.safetensors")
    kit.model(Path("model.fold2.safetensors"), seed=7)
    report = tile_predict(slide, tile=16)
    assert report.models == 2
    for number in (1, 2):
        Path(f"model.fold{number}.safetensors").unlink()
    with pytest.raises(MissingError, match=r"'model.safetensors'.*--model"):
        tile_predict(slide, tile=16, overwrite=True)


def test_a_file_is_named_once(slide, capsys):
    with pytest.raises(UsageError, match=r"each file once, got a\.st twice"):
        find_models(["a.st", "a.st"], progress=SILENT)
    Path("a.st").touch()
    assert main(["tile-predict", slide, "--model", "a.st", "--model", "a.st"]) == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"classes": ("a", "b"), "target": "classes"},
            "same classes, got background, foreground in one",
        ),
        ({"target": "classes"}, "same target, got foreground in one.* and classes in other"),
        ({"channels": 2}, "same number of channels, got 1 in one.* and 2 in other"),
        ({"chosen": "DAPI"}, "same choice of channels, got None in one.* and DAPI in other"),
    ],
)
def test_models_that_differ_are_named(kit, slide, other, message):
    one = kit.model(Path("one.safetensors"))
    two = kit.model(Path("other.safetensors"), **other)
    for refuse in (read_header, lambda paths: load_ensemble(paths, device="cpu")):
        with pytest.raises(InputError, match=message) as caught:
            refuse([one, two])
        assert caught.value.exit_code == 3
    assert main(["tile-predict", slide, "--model", one, "--model", two]) == 3
    assert read_header([one]).contract == load_model(one, device="cpu").header.contract


contracts = st.builds(
    lambda step, least, margin, halo: SizeContract(
        step=step, minimum=2 * margin + least, margin=margin, halo=halo
    ),
    st.sampled_from([1, 2, 3, 4, 6, 16]),
    st.integers(1, 40),
    st.integers(0, 30),
    st.integers(0, 30),
)


@given(st.lists(contracts, min_size=1, max_size=3), st.integers(1, 9))
def test_a_joint_contract_suits_all(parts, count):
    joint = joint_contract(parts)
    tile = count * joint.step
    for part in parts:
        assert joint.step % part.step == 0
        assert joint.need >= part.need
        part.check_tile(tile, model="m")
    assert joint.need == max(part.need for part in parts)
    assert (joint.halo == 0) == any(part.halo == 0 for part in parts)
    assert joint_contract([parts[0]]) == parts[0]


def test_each_network_keeps_the_context_that_it_has_alone(kit, slide):
    deep = kit.model(Path("deep.safetensors"), depth=2)
    flat = kit.model(Path("flat.safetensors"), depth=1)
    ensemble = load_ensemble([flat, deep], device="cpu")
    assert ensemble.header.contract.step == 4
    assert ensemble.sha256.count("+") == 1
    assert [m.overlap for m in ensemble.averaging(16, overlap=None).members] == [8, 20]
    assert [m.overlap for m in ensemble.averaging(16, overlap=21).members] == [22, 24]
    with pytest.raises(UsageError, match="overlap must be at least 20"):
        tile_predict(slide, model=[flat, deep], overlap=12)
    with pytest.raises(UsageError, match="tile must be a multiple of 4"):
        tile_predict(slide, model=[flat, deep], tile=18)


def test_another_model_of_several_is_another_prediction(kit, slide):
    models = [kit.model(Path(f"{n}.safetensors"), seed=n) for n in (1, 2)]
    report = tile_predict(slide, model=models, tile=16)
    assert tile_predict(slide, model=models, resume=True).status == "nothing to do"
    hashes = open_image(report.output).attributes["prediction"]["model_sha256"]
    assert hashes == [load_model(path, device="cpu").sha256 for path in models]
    kit.model(Path("2.safetensors"), seed=3)
    assert main(["tile-predict", slide, "--resume", *(f"--model={m}" for m in models)]) == 4
