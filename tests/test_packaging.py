"""What packaging/ says of the package is what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
# What a requirement is called on conda-forge, where that differs; an extra is packages there.
NAMES = {
    "torch": ["pytorch"],
    "fsspec[http]": ["fsspec", "aiohttp"],
    "dask[distributed]": ["dask-core", "distributed"],
}


def parted(requirement):
    """Return the name of a requirement, with its extra, and which versions will do."""
    return re.fullmatch(r"([\w.\[\]-]+) *(.*)", requirement).groups()


def test_the_recipe_asks_for_what_pyproject_asks_for():
    expected = {"python": PROJECT["requires-python"]}
    for requirement in PROJECT["dependencies"]:
        name, versions = parted(requirement)
        expected |= dict.fromkeys(NAMES.get(name, [name]), versions)
    expected["aiohttp"] = ""
    lowest = RECIPE["context"]["python_min"]
    run = [line.replace("${{ python_min }}", lowest) for line in RECIPE["requirements"]["run"]]
    assert dict(map(parted, run)) == expected


def test_the_recipe_names_the_package_as_pyproject_does():
    from unetkit.version import __version__

    assert RECIPE["context"]["name"] == PROJECT["name"]
    assert RECIPE["context"]["version"] == PROJECT["version"] == __version__
    assert RECIPE["about"]["summary"] == PROJECT["description"]
    assert RECIPE["about"]["license"] == PROJECT["license"]
    points = [f"{name} = {where}" for name, where in PROJECT["scripts"].items()]
    assert RECIPE["build"]["python"]["entry_points"] == points


def test_rattler_build_reads_the_recipe():
    rattler_build = pytest.importorskip("rattler_build", reason="needs py-rattler-build")
    recipe = rattler_build.Stage0Recipe.from_file(ROOT / "packaging" / "conda" / "recipe.yaml")
    (variant,) = recipe.render()
    assert variant.recipe.package.name == "unetkit"


def test_the_container_copies_what_a_build_needs_and_calls_what_is_installed():
    lines = (ROOT / "packaging" / "Containerfile").read_text().splitlines()
    copied = [w for line in lines if line.startswith("COPY ") for w in line.split()[1:-1]]
    local = [name for name in copied if not name.startswith(("--", "/"))]
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "unetkit"} == set(local)
    assert all((ROOT / name).exists() for name in local)
    (entry,) = [line.split(maxsplit=1)[1] for line in lines if line.startswith("ENTRYPOINT")]
    assert entry == '["unetkit"]'
    assert "unetkit" in PROJECT["scripts"]
    (version,) = re.findall(r"^ARG PYTHON=([\d.]+)$", "\n".join(lines), re.M)
    assert int(version.split(".")[1]) >= int(PROJECT["requires-python"].split(".")[1])
