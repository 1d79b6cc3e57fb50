"""Floors look down only, libraries keep to their rooms, and ARCHITECTURE.md draws the tree."""

import ast
import re
import tomllib
import warnings
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"geometry": 0, "arrays": 1, "scores": 1, "storage": 1, "models": 2, "views": 2}
FLOORS |= {"engine": 3, "training": 3, "commands": 4, "cli": 5}
BASE = {
    "errors",
    "kernel_cache",
    "machine",
    "progress",
    "registry",
    "options",
    "signals",
    "version",
}
MOST_FILES, LONG = 225, 700
ROOMS = {
    "zarr": ["storage/*"],
    "numcodecs": ["storage/*"],
    "tifffile": ["storage/*"],
    "imagecodecs": ["storage/*"],
    "fsspec": ["storage/urls.py"],
    # Planes, which are stored, become lazy arrays.
    "dask": ["engine/*", "storage/planes.py"],
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
    "numba": ["arrays/*", "scores/*", "models/convolutions.py", "kernel_cache.py"],
    "PIL": ["storage/readers.py", "views/*"],
    "neuroglancer": ["views/neuroglancer.py"],
    "napari": ["views/napari.py"],
    "typer": ["cli/*"],
    "rich": ["cli/*"],
    # Typer brings its own copy; and nothing that is loaded may run code.
    "click": [],
    "pickle": [],
    "yaml": [],
}
PLUGINS = sorted((ROOT / "plugins").glob("*/src/**/*.py"))
# The text of each module by its path below `unetkit`.
SOURCES = {
    path.relative_to(ROOT / "unetkit").as_posix(): path.read_text()
    for path in sorted((ROOT / "unetkit").rglob("*.py"))
}


def name_of(place):
    return ".".join(["unetkit", *Path(place).with_suffix("").parts])


def imports_of(text, known):
    """Return the full names of the modules that a text imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {node.module}
    return found


def floor_of(name):
    """Return the floor of a module of the package, and its folder."""
    parts = name.split(".")[1:]
    if len(parts) > 1:
        return FLOORS[parts[0]], parts[0]
    return (-1, "") if not parts or parts[0] in BASE else (FLOORS.get(parts[0], 9), parts[0])


def command_of(name):
    """Return which command a module belongs to, "" where it belongs to none."""
    return name.split(".")[2] if name.startswith("unetkit.commands.") else ""


def complaints(sources):
    """Say what breaks the rules of the house in a package: its modules by place, as text."""
    known = {name_of(place) for place in sources}
    used = {name_of(place): imports_of(text, known) for place, text in sources.items()}
    found = [f"at most {MOST_FILES} files, got {len(sources)}"] * (len(sources) > MOST_FILES)
    for place in sources:
        name = name_of(place)
        (own, folder), command = floor_of(name), command_of(name)
        for other in sorted(used[name]):
            top = other.split(".")[0]
            if top == "unetkit":
                floor, its_folder = floor_of(other)
                if floor >= own and folder != its_folder:
                    found.append(f"{name} must not look up at {other}")
                if command_of(other) not in ("", command) and command not in ("", "demo"):
                    found.append(f"{name} must not import the command {other}")
            elif not any(fnmatch(place, room) for room in ROOMS.get(top, ["*"])):
                found.append(f"{top} has no place in {place}")
    try:
        TopologicalSorter({name: others & known for name, others in used.items()}).prepare()
    except CycleError as error:
        found.append(f"cycle: {error.args[1]}")
    return found


def drawn(text):
    """Return the places of all modules that the tree of ARCHITECTURE.md names."""
    (block,) = re.findall(r"^```tree\n(.*?)^```", text, flags=re.M | re.S)
    found, folder = set(), [""]
    for line in block.splitlines()[1:]:
        indent = len(line) - len(line.lstrip())
        if indent in (2, 4):
            inside = [] if indent == 2 else folder[:1]
            first = line.split()[0]
            folder = [*inside, first.rstrip("/")] if first.endswith("/") else inside
        found |= {"/".join([*folder, name]) for name in re.findall(r"\b\w+\.py\b", line)}
    return found


def test_the_package_keeps_the_rules_of_the_house():
    assert complaints(SOURCES) == []
    for place, text in SOURCES.items():
        if (lines := text.count("\n")) > LONG:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(f"{place} has {lines} lines: is it one noun?", stacklevel=1)


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"geometry/tiles.py": "import unetkit.arrays.boxes", "arrays/boxes.py": ""}, "look up"),
        ({"arrays/a.py": "from unetkit.storage import b", "storage/b.py": ""}, "look up"),
        ({"errors.py": "from unetkit.geometry import tiles", "geometry/tiles.py": ""}, "look up"),
        (
            {"commands/info.py": "from unetkit.commands.train.plan import a"}
            | {"commands/train/plan.py": "a = 1"},
            "must not import the command unetkit.commands.train.plan",
        ),
        ({"views/page.py": "def f():\n    import zarr"}, "zarr has no place in views/page.py"),
        ({"storage/nodes.py": "from pickle import loads"}, "pickle has no place"),
        (
            {
                "arrays/a.py": "from unetkit.arrays import b",
                "arrays/b.py": "import unetkit.arrays.a",
            },
            "cycle",
        ),
        (
            {f"arrays/a{number}.py": "" for number in range(MOST_FILES + 1)},
            f"at most {MOST_FILES} files",
        ),
        (
            {f"arrays/a{number}.py": "" for number in range(MOST_FILES + 1)},
            f"at most {MOST_FILES} files, got {MOST_FILES + 1}",
        ),
    ],
)
def test_a_package_that_breaks_a_rule_is_found(sources, words):
    (found,) = complaints(sources)
    assert words in found


def test_the_demo_may_walk_the_other_commands():
    sources = {"commands/demo/command.py": "import unetkit.commands.verify"}
    assert complaints(sources | {"commands/verify.py": "import zlib, unetkit.errors"}) == []


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_plugins_use_public_names_only(path):
    used = imports_of(path.read_text(), set())
    ours = {name for name in used if name.split(".")[0] == "unetkit"}
    assert ours <= {"unetkit", "unetkit.errors", "unetkit.testing"}


def test_the_tree_that_is_drawn_is_the_tree_that_is_there():
    there = {place for place in SOURCES if not place.endswith("/__init__.py")}
    there = {place for place in there if not place.startswith("data/")}
    assert drawn((ROOT / "ARCHITECTURE.md").read_text()) == there


# What a distribution is imported as where that is not its name.
IMPORTED = {"pillow": "PIL", "scikit_image": "skimage"}


def test_every_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", line)[0].replace("-", "_") for line in project["dependencies"]]
    used = {name.split(".")[0] for text in SOURCES.values() for name in imports_of(text, set())}
    assert [name for name in names if IMPORTED.get(name.lower(), name) not in used] == []


def test_a_drawing_is_read_room_by_room():
    text = "```tree\nunetkit/\n  a.py  b.py   two\n  room/   one\n    c.py  d.py\n"
    text += "    inner/   e.py\n         f.py\n    g.py\n```\n"
    names = {"a.py", "b.py", "room/c.py", "room/d.py", "room/inner/e.py", "room/inner/f.py"}
    assert drawn(text) == names | {"room/g.py"}
