"""Floors look down only, outside libraries keep to their rooms, tests mirror the package."""

import ast
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"geometry": 0, "arrays": 1, "scores": 1, "storage": 1, "models": 2, "views": 2}
FLOORS |= {"engine": 3, "training": 3, "commands": 4, "cli": 5}
BASE = {"errors", "kernel_cache", "machine", "progress", "registry", "options", "version"}
ROOMS = {
    "zarr": ["storage/*"],
    "numcodecs": ["storage/*"],
    "yaozarrs": ["storage/*"],
    "tifffile": ["storage/*"],
    "imagecodecs": ["storage/*"],
    "fsspec": ["storage/urls.py"],
    "dask": ["engine/*"],
    "distributed": ["engine/*"],
    "torch": [
        "models/*",
        "training/*",
        "commands/train/*",
        "commands/tile_predict/*",
        "testing.py",
    ],
    "onnxruntime": ["models/export.py"],
    "segmentation_models_pytorch": ["models/smp.py", "models/losses.py"],
    # In models for the one kernel whose sums must run in a fixed order.
    "numba": ["arrays/*", "scores/*", "models/convolutions.py"],
    "PIL": ["storage/readers.py", "views/*"],
    "typer": ["cli/*"],
    "rich": ["cli/*"],
    # Typer brings its own copy; and nothing that is loaded may run code.
    "click": [],
    "pickle": [],
    "yaml": [],
}
SOURCES = sorted((ROOT / "unetkit").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*/src/**/*.py"))
NAMES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in SOURCES}


def imports_of(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & NAMES.keys()) or {node.module}
    return found


def floor_of(name: str) -> tuple[int, str]:
    """Return the floor of a module of the package, and its folder."""
    parts = name.split(".")[1:]
    if len(parts) > 1:
        return FLOORS[parts[0]], parts[0]
    return (-1, "") if not parts or parts[0] in BASE else (FLOORS.get(parts[0], 9), parts[0])


@pytest.mark.parametrize("name", NAMES)
def test_modules_look_down_and_libraries_keep_to_their_rooms(name):
    place = NAMES[name].relative_to(ROOT / "unetkit").as_posix()
    for used in imports_of(NAMES[name]):
        top = used.split(".")[0]
        if top == "unetkit":
            (own, folder), (other, its_folder) = floor_of(name), floor_of(used)
            assert other < own or folder == its_folder, f"{name} must not look up at {used}"
        rooms = ROOMS.get(top, ["*"])
        assert any(fnmatch(place, room) for room in rooms), f"{top} has no place in {place}"


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_plugins_use_public_names_only(path):
    ours = {used for used in imports_of(path) if used.split(".")[0] == "unetkit"}
    assert ours <= {"unetkit", "unetkit.errors", "unetkit.testing"}


def test_there_is_no_cycle():
    TopologicalSorter(
        {name: imports_of(path) & NAMES.keys() for name, path in NAMES.items()}
    ).prepare()
