from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Passed


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--labels", "masks/{stem}_m.png"], "labels", "masks/{stem}_m.png"),
        (["--kind", "classes"], "kind", "classes"),
        (["--classes", "background,axon"], "classes", "background,axon"),
        (["--ignore", "255"], "ignore", 255),
        (["--connected-components"], "connected_components", True),
        (["--axes", "zyx"], "axes", "zyx"),
        (["--channels", "DAPI,2"], "channels", "DAPI,2"),
        (["--pixel-size", "0.25um"], "pixel_size", "0.25um"),
        (["--append"], "append", True),
        (["--overwrite"], "overwrite", True),
    ],
)
def test_options_of_import_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("import_images", "import", "s3://a/b", "c.zarr")
    after = passed("import_images", "import", "s3://a/b", "c.zarr", *option)
    assert after == before | {name: value}
    assert after["values"] == ("s3://a/b", "c.zarr")


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--copies", "3"], "copies", 3),
        (["--grid", "5"], "grid", 5),
        (["--sigma", "2.5um"], "sigma", "2.5um"),
        (["--shift", "0"], "shift", 0.0),
        (["--rotation", "90"], "rotation", 90.0),
        (["--no-flips"], "flips", False),
        (["--grey", "0.5"], "grey", 0.5),
        (["--seed", "7"], "seed", 7),
        (["--preview", "a.png"], "preview", "a.png"),
        (["--scheduler", "local:2"], "scheduler", "local:2"),
        (["--workers", "2"], "workers", 2),
        (["--overwrite"], "overwrite", True),
    ],
)
def test_options_of_augment_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("augment", "augment", "a.zarr", "b.zarr")
    assert passed("augment", "augment", "a.zarr", "b.zarr", *option) == before | {name: value}


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--preset", "freiburg2019"], "preset", "freiburg2019"),
        (["--w0", "50"], "w0", 50.0),
        (["--sigma", "6"], "sigma", "6"),
        (["--target", "boundary"], "target", "boundary"),
        (["--preview", "a.png"], "preview", "a.png"),
        (["--scheduler", "sync"], "scheduler", "sync"),
        (["--workers", "2"], "workers", 2),
        (["--overwrite"], "overwrite", True),
    ],
)
def test_options_of_weights_arrive(
    passed: Passed, option: list[str], name: str, value: object
) -> None:
    before = passed("weights", "weights", "a.zarr")
    assert passed("weights", "weights", "a.zarr", *option) == before | {name: value}


def test_images_become_a_dataset_with_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((40, 48), dtype=np.uint8)
    labels[4:14, 4:14], labels[20:30, 20:30] = 1, 2
    for kind, array in (("images", labels * 90 + 5), ("masks", labels)):
        (tmp_path / kind).mkdir()
        Image.fromarray(array).save(tmp_path / kind / "a.png")
    monkeypatch.chdir(tmp_path)
    for arguments, written in (
        (["import", "images/", "data.zarr", "--labels", "masks/"], "data.zarr"),
        (["augment", "data.zarr", "more.zarr", "--copies", "1"], "more.zarr"),
        (["weights", "more.zarr", "--preview", "weights.png"], "more.zarr"),
    ):
        assert main(arguments) == 0
        assert capsys.readouterr().out == f"{written}\n"
    assert (tmp_path / "weights.png").is_file()
    assert main(["import", "images/", "data.zarr"]) == 4
    assert main(["weights", "more.zarr", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().out == "more.zarr\n"
