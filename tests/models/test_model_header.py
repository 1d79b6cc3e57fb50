"""Model files are opened where they lie: here, on a website, in a bucket."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

from unetkit.errors import InputError, MissingError, UnavailableError, UsageError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.model_file import load
from unetkit.models.model_header import KEY, LARGEST_HEADER, ModelHeader, open_model, read_header
from unetkit.storage import urls

HEADER = ModelHeader(
    model="unet",
    options={"depth": 2, "dropout": 0.5, "width": 2},
    in_channels=1,
    class_names=("background", "foreground"),
    target="foreground",
    contract=SizeContract(step=4, minimum=44, margin=20),
    normalization="percentile",
    channels="DAPI,2",
    pixel_size={"y": 0.25, "x": 0.25},
    scores={"mean_ap": 0.5, "dice": None},
    provenance={"recipe": "default", "name": "Zelle \x1b é"},
    distribution="unetkit",
    version="0.1.0",
    parameters=12,
)


@pytest.fixture
def written(stored):
    """Return what writes a text as the header of a model file, and gives the path."""
    tensors = {"weight": np.ones((2, 3), np.float32)}

    def write(text, *, key=KEY):
        return stored(safetensors.numpy.save(tensors, metadata={key: text}))

    return write


def changed(**change):
    return json.dumps({**HEADER.to_dict(), **change})


def test_round_trip_through_json_and_a_file(written):
    assert ModelHeader.from_json(HEADER.to_json()) == HEADER
    assert read_header(written(HEADER.to_json())) == HEADER
    assert HEADER.full_name == "unetkit/unet"


def test_a_header_from_before_intensities_were_kept_is_read():
    stored = {key: value for key, value in HEADER.to_dict().items() if key != "intensities"}
    assert ModelHeader.from_json(json.dumps(stored)) == HEADER
    kept = dataclasses.replace(HEADER, intensities={"quantiles": []})
    assert ModelHeader.from_json(kept.to_json()) == kept

    # The text does not depend on the order of a dict.
    turned = dict(reversed(HEADER.options.items()))
    assert list(turned) != list(HEADER.options)
    other = dataclasses.replace(HEADER, options=turned)
    assert other.to_json() == HEADER.to_json()


def test_what_json_can_not_hold_is_refused():
    for scores in ({"ap": float("nan")}, {"ap": np.float32(1)}):
        with pytest.raises(UsageError, match="what JSON can"):
            dataclasses.replace(HEADER, scores=scores).to_json()


def test_reading_a_header_imports_no_torch(written, run_python):
    code = (
        "import sys; from unetkit.models.model_header import read_header;"
        f"print(read_header({written(HEADER.to_json())!r}).model, 'torch' in sys.modules)"
    )
    assert run_python(code) == "unet False\n"


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("target", "contract", "normalization", "scores", "version")),
        *({"schema": value} for value in (2, None)),
        *({"in_channels": value} for value in (0, True)),
        *({"class_names": value} for value in ("ab", ["one"], ["a", 2])),
        *({"pixel_size": value} for value in ([1, 2], {"x": 0}, {"x": "1"})),
        {"model": 3},
        {"options": []},
        {"contract": {"step": 16}},
        {"channels": 0},
        {"intensities": [1]},
        {"in_channels": 2**20},
        {"pixel_size": {"x": 1e12}},
        {"pixel_size": {"x": True}},
        {"distribution": "a b"},
        {"checksum": 1},
        {"parameters": -1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_header_with_other_fields_or_types_is_refused(written, change):
    with pytest.raises(InputError, match=r"l.safetensors' can't be read: .*header|size contract"):
        read_header(written(changed(**change)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "null",
        "[" * 100_000,
        '{"schema": 1}',
        '{"schema": ' + "9" * 5000 + "}",
        changed().replace("0.5", "NaN"),
        changed().replace("0.5", "Infinity"),
        changed(provenance=json.loads('{"a":' * 900 + "1" + "}" * 900)),
        changed(pixel_size={"x": 10**400}),
        changed(intensities={"quantiles": [[10**400]]}),
        changed().replace("0.5", "1e999"),
    ],
    ids=[
        *("empty", "words", "list", "null", "nested", "bare", "digits", "nan", "infinity"),
        *("deep", "large", "larger", "exponent"),
    ],
)
def test_a_text_that_is_no_header_is_refused(written, text):
    with pytest.raises(InputError, match="can't be read: the header must"):
        read_header(written(text))


def test_a_safetensors_file_of_someone_else_is_refused(written, stored):
    with pytest.raises(InputError, match="without its header"):
        read_header(written(HEADER.to_json(), key="other"))
    with pytest.raises(InputError, match="without its header"):
        read_header(stored(safetensors.numpy.save({"a": np.ones(1)})))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(60), "a gzip file"),
        (b'{"model": "unet"}', "a JSON file"),
        (b"some words in a text file", "something else"),
        (b"", "something else"),
        ((LARGEST_HEADER + 1).to_bytes(8, "little") + b"{}", "something else"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "something else"),
        # A header that claims more than the file holds.
        (LARGEST_HEADER.to_bytes(8, "little") + b"{}", "a damaged one"),
    ],
    ids=["hdf5", "gzip", "json", "text", "empty", "large", "larger", "cut"],
)
def test_another_format_is_refused_by_its_name(stored, content, words):
    with pytest.raises(InputError, match=rf"(by 'unetkit train'|must be whole), got {words}"):
        read_header(stored(content))


def test_no_file_and_a_folder(tmp_path):
    for read in (load, read_header):
        with pytest.raises(MissingError, match=r"must exist, got .*model.safetensors'; .*--model"):
            read(str(tmp_path / "model.safetensors"))
    with pytest.raises(MissingError, match=r"got 'unet', an installed model where a file is meant"):
        read_header("unet")
    with pytest.raises(InputError, match=r"must be a file that can be read"):
        read_header(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_the_same_from_a_bucket_and_a_website(small_model, bucket, website):
    content = small_model.read_bytes()
    urls.write(f"{bucket}/m.safetensors", content)
    # No more is fetched than will be read.
    assert open_model(f"{bucket}/m.safetensors", max_size=9).read() == content[:9]
    here = load(str(small_model))
    for url in (f"{bucket}/m.safetensors", f"{website}/{small_model.name}"):
        assert read_header(url) == here.header
        assert load(url).sha256 == here.sha256
    urls.write(f"{bucket}/cut.safetensors", content[:-7])
    with pytest.raises(InputError, match="damaged"):
        load(f"{bucket}/cut.safetensors")


def test_a_missing_model_in_a_store_is_missing_and_a_silent_store_is_not(website):
    with pytest.raises(MissingError, match="the model file must exist"):
        load(f"{website}/none.safetensors")
    with pytest.raises(UnavailableError):
        load("http://127.0.0.1:1/model.safetensors")
