import hashlib

import pytest

from unetkit.commands.export_model import export_model
from unetkit.errors import InputError, OutputError


def test_the_export_lies_beside_its_model_and_takes_a_size_that_fits(small_model):
    report = export_model(str(small_model), size=40)
    place = small_model.with_suffix(".pt2")
    assert report.output == str(place)
    assert (report.size, report.bytes) == (40, place.stat().st_size)
    assert report.to_dict()["largest_difference"] < 1e-4
    assert export_model(str(small_model), output=str(place) + ".other", size=41).size == 42


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
    assert export_model(str(small_model), size=41, overwrite=True, progress=watching).size == 42
    assert watching.notes == ["size 41 becomes 42, the next that the model takes"]
