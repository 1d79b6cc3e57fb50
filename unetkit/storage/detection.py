"""What lies at a path: a dataset, an image, a stack, a bare array, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from unetkit.errors import InputError
from unetkit.storage.journal import Journal
from unetkit.storage.metadata import marks, ome, read_multiscale
from unetkit.storage.nodes import ArrayNode, GroupNode, read_node
from unetkit.storage.urls import base_name, children, exists, is_remote, join, missing, stem

Kind = Literal["dataset", "image", "stack", "array"]

# What people hand in where a store is wanted; `unetkit import` says itself which of these it reads.
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2")


def detect(url: str) -> Kind:
    """Tell what kind of store lies at a path or URL; nothing is created, whatever is there.

    Returns
    -------
    {"dataset", "image", "stack", "array"}

    Raises
    ------
    MissingError
        If there is nothing; the error names what looks like it.
    InputError
        If it is something else, such as an image file or a folder of image files.
    """
    refuse_incomplete(url)
    return kind_of(node_at(url))


def refuse_incomplete(url: str) -> None:
    """Refuse to read the folder in which an output is still being made, or was when it ended.

    Raises
    ------
    InputError
        If it is one.
    """
    name = base_name(url)
    if name.startswith(".") and name.endswith(".unetkit-partial") and exists(url):
        parts = len(Journal(url).done())
        raise InputError(
            f"{url} must be a finished output, got an incomplete one with {parts} parts done; run "
            "the command that writes it again, where it has it with --resume"
        )


def node_at(url: str) -> ArrayNode | GroupNode:
    """Read the metadata of a store, or say what there is instead of one.

    Raises
    ------
    MissingError
        If there is nothing.
    InputError
        If it is no store.
    """
    node = read_node(url)
    if node is None:
        raise _no_store(url)
    return node


def kind_of(node: ArrayNode | GroupNode) -> Kind:
    """Tell what kind of store a node is, as `detect` does."""
    if isinstance(node, ArrayNode):
        return "array"
    if marks(node).get("kind") == "dataset":
        return "dataset"
    if read_multiscale(node) is not None:
        return "image"
    if isinstance(read_node(join(node.url, "images")), ArrayNode):
        return "stack"
    collection = ome(node)
    if any(key in collection for key in ("plate", "well", "bioformats2raw.layout")):
        raise InputError(
            f"{node.url} must be one image or a dataset, got a collection of images; "
            f"name one of its images, such as {join(node.url, '0')}"
        )
    raise InputError(
        f"{node.url} must be a dataset, an OME-Zarr image, a stack with an array 'images' or an "
        "array, got another Zarr group; name what lies inside it, or run 'unetkit import'"
    )


def _no_store(url: str) -> InputError:
    """Say why something is no store, and what would make it one."""
    if not exists(url):
        return missing(url)
    line = f"'unetkit import {url} {stem(url) or 'data'}.zarr'"
    if is_remote(url):
        return InputError(f"{url} must be a Zarr store, got none there; check the URL")
    path = Path(url)
    if path.is_dir():
        pictures = [name for name in children(url) if name.lower().endswith(IMAGE_SUFFIXES)]
        if pictures:
            return InputError(
                f"{url} must be a Zarr store, got a folder of {len(pictures)} image files; "
                f"run {line}"
            )
        return InputError(f"{url} must be a Zarr store, got a folder without one; check the path")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        name = base_name(url)
        line = f"'unetkit import {url} {name.removesuffix(path.suffix)}.zarr'"
        return InputError(f"{url} must be a Zarr store, got an image file; run {line}")
    if path.suffix == ".safetensors":
        return InputError(
            f"{url} must be a Zarr store, got a model file; name it with --model where one is read"
        )
    if path.suffix == ".zip":
        return InputError(f"{url} must be a Zarr store in a folder, got a zip file; unpack it")
    return InputError(f"{url} must be a Zarr store, got a file; run 'unetkit import' with an image")
