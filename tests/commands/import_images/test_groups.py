"""Groups come from names or a table, are shown, and go on wherever samples do."""

import json

import numpy as np
import pytest
from PIL import Image

from unetkit.commands.augment.command import augment
from unetkit.commands.import_images.command import import_images, remove_samples
from unetkit.commands.info import info
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.errors import InputError, MissingError, OutputError, UsageError
from unetkit.storage.datasets import open_dataset

NAMES = ("m1_a", "m1_b", "m2_a")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Work in a folder with three images of two animals, and masks."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(NAMES):
        labels = np.zeros((64, 60), np.uint8)
        labels[5:20, 5 : 20 + number] = 1
        Image.fromarray(labels * 90 + 10).save(f"images/{name}.png")
        Image.fromarray(labels).save(f"masks/{name}.png")
    return tmp_path


def groups_of(url):
    return {sample.name: sample.group for sample in open_dataset(url).samples}


GROUPS = {"m1_a": "m1", "m1_b": "m1", "m2_a": "m2"}


@pytest.mark.parametrize(
    "table",
    [
        "image,group\nm1_a,m1\nm1_b,m1\nm2_a,m2\nother,m3\n",
        "\ufeffgroup;image\nm1;m1_a.png\nm1;images/m1_b.png\nm2;m2_a.tif\n",
        "image\tkind\tgroup\nm1_a\tx\tm1\nm1_b\tx\t m1 \nm2_a\ty\tm2\n\n",
        None,
    ],
)
def test_groups_of_names_and_tables_are_stored_and_shown(images, table):
    (images / "groups.csv").write_text(table or "", encoding="utf-8")
    told = "groups.csv" if table else "(.+)_"
    report = import_images("images", "d.zarr", labels="masks", group=told)
    assert report.groups == ("m1", "m2")
    assert groups_of("d.zarr") == GROUPS
    told = info("d.zarr")
    assert told["groups"] == {"m1": 2, "m2": 1}
    assert [sample["group"] for sample in told["samples"]] == list(GROUPS.values())


def test_groups_go_on_with_copies_predictions_removals_and_other_datasets(images, kit):
    import_images("images", "d.zarr", labels="masks", group="(.+)_")
    augment("d.zarr", "more.zarr", copies=1, scheduler="sync")
    assert groups_of("more.zarr") == {
        name + end: group for name, group in GROUPS.items() for end in ("", "-aug001")
    }
    kit.model(images / "m.safetensors")
    tile_predict("d.zarr", model=("m.safetensors",), output="p.zarr", scheduler="sync")
    import_images("d.zarr", "again.zarr", labels="instances")
    remove_samples("d.zarr", "m1_a")
    assert groups_of("p.zarr") == groups_of("again.zarr") == GROUPS
    assert groups_of("d.zarr") == {"m1_b": "m1", "m2_a": "m2"}


def test_nothing_is_written_of_groups_that_were_not_told(images):
    import_images("images", "d.zarr", labels="masks")
    listed = json.loads((images / "d.zarr/zarr.json").read_text())["attributes"]["unetkit"]
    assert listed["samples"][0] == {"name": "m1_a", "source": "m1_a"}
    told = info("d.zarr")
    assert "groups" not in told
    assert "group" not in told["samples"][0]


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        ("(m1)_", InputError, r"every image must have a group, got none of '\(m1\)_' for 'm2_a.p"),
        ("(x)?_", InputError, "for 'm1_a.png'; match it too"),
        ("(", UsageError, "regular expression or a CSV file"),
        ("m1_", UsageError, "part in brackets"),
        ("none.csv", MissingError, "got nothing at 'none.csv'"),
        ("short.csv", InputError, "got none of 'short.csv' for 'm1_b.png'; add a row"),
        ("twice.csv", InputError, "of one group, got 'm1' and 'm2' for 'm1_a'"),
        ("bare.csv", InputError, "columns image and group.* got 'm1_a,m1'"),
        ("empty.csv", InputError, "got 'nothing'"),
        ("images/m1_a.png", InputError, "CSV file of UTF-8, got"),
    ],
)
def test_images_without_a_group_and_tables_that_are_none_are_refused(images, told, error, words):
    (images / "short.csv").write_text("image,group\nm1_a,m1\nm1_b,\nm2_a,m2\n")
    (images / "twice.csv").write_text("image,group\nm1_a,m1\nm1_a,m2\n")
    (images / "bare.csv").write_text("m1_a,m1\nm1_b,m1\n")
    (images / "empty.csv").write_text("")
    with pytest.raises(error, match=words):
        import_images("images", "d.zarr", labels="masks", group=told)
    assert not (images / "d.zarr").exists()


def test_one_image_alone_has_no_group(images):
    with pytest.raises(UsageError, match="several images"):
        import_images("images/m1_a.png", "i.zarr", group="(.+)_")


def test_images_that_are_added_have_groups_where_the_others_do(images):
    import_images("images/m1*.png", "with.zarr", group="(.+)_")
    import_images("images/m1*.png", "without.zarr")
    with pytest.raises(InputError, match="have, got none for 'm2_a'; give"):
        import_images("images", "with.zarr", append=True)
    with pytest.raises(InputError, match="are, got 'm1' for 'm1_a'; leave"):
        import_images("images", "without.zarr", append=True, group="(.+)_")
    with pytest.raises(OutputError, match="has with another group; rename"):
        import_images("images", "with.zarr", append=True, group="_(.)")
    assert import_images("images", "with.zarr", append=True, group="(.+)_").skipped_known == 2
    assert groups_of("with.zarr") == GROUPS
