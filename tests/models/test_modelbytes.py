"""Model files are opened where they lie: here, on a website, in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unetkit.errors import InputError, MissingError, UnavailableError
from unetkit.models.model_file import load
from unetkit.models.model_header import check_prefix, open_model, read_header
from unetkit.storage import urls

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_is_the_same_from_a_bucket_and_a_website(
    small_model: Path, bucket: str, website: str
) -> None:
    urls.write(f"{bucket}/m.safetensors", small_model.read_bytes())
    here = load(str(small_model))
    for url in (f"{bucket}/m.safetensors", f"{website}/{small_model.name}"):
        assert read_header(url) == here.header
        assert load(url).sha256 == here.sha256


def test_no_more_is_fetched_than_will_be_read(small_model: Path, bucket: str) -> None:
    urls.write(f"{bucket}/m.safetensors", small_model.read_bytes())
    assert open_model(f"{bucket}/m.safetensors", max_size=9).read() == small_model.read_bytes()[:9]


def test_a_missing_model_in_a_store_is_missing_and_a_silent_store_is_not(website: str) -> None:
    with pytest.raises(MissingError, match="the model file must exist"):
        load(f"{website}/none.safetensors")
    with pytest.raises(UnavailableError):
        load("http://127.0.0.1:1/model.safetensors")


def test_what_is_cut_short_in_a_store_is_noticed(small_model: Path, bucket: str) -> None:
    urls.write(f"{bucket}/m.safetensors", small_model.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged"):
        load(f"{bucket}/m.safetensors")


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\3\4 and more of a zip file")
    with pytest.raises(InputError, match="got a zip file"):
        check_prefix(path.read_bytes()[:9], path=str(path))
