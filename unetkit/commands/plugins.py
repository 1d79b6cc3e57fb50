"""Say what is plugged in and what is broken, and start a new model package."""

from __future__ import annotations

import keyword
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import distributions, requires
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unetkit.errors import UsageError
from unetkit.machine import processor_count
from unetkit.progress import SILENT
from unetkit.registry import API, GROUPS, Registry, plain_name, status
from unetkit.storage.atomic import make_folder, write_text
from unetkit.storage.outputs import staged
from unetkit.storage.urls import base_name, is_remote
from unetkit.version import __version__

if TYPE_CHECKING:
    from unetkit.options import Opt
    from unetkit.progress import Progress
    from unetkit.registry import Entry

# Our choice: importing torch and a large library takes some ten seconds on a slow disk.
PATIENCE = 30.0

# A process of its own, so that a plugin that prints, sleeps or exits harms nobody else.
_TRIAL = """
import sys
from unetkit.errors import UnetkitError
from unetkit.registry import GROUPS, Registry
_, group, name = sys.argv
try:
    found = Registry(group, noun=GROUPS[group]).get(name)
except UnetkitError as error:
    sys.exit(str(error))
if not callable(found):
    sys.exit(f"{GROUPS[group]} {name} must be callable, got {type(found).__name__}")
print("\\nready", flush=True)
"""

# Where each file of a new package goes.
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "model.py": "src/MODULE/__init__.py",
    "test_model.py": "tests/test_MODULE.py",
}


@dataclass(frozen=True)
class NewPluginReport:
    """What `new_plugin` wrote."""

    output: str
    distribution: str  # the name of the package for pip; then those for Python and for unetkit
    module: str
    model: str
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


def list_plugins(*, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """List models, readers and commands from everywhere, with what is wrong with a broken one.

    Each plugin is imported in a process of its own.

    Parameters
    ----------
    progress : Progress
        Told after each plugin.

    Returns
    -------
    list of dict
        For each its `kind`, `name`, `distribution`, `version`, `status` and `error`: what is
        wrong in a sentence, or None.
    """
    plugs = [
        (group, name, entry)
        for group, noun in GROUPS.items()
        for name, entry in Registry(group, noun=noun).entries()
    ]
    progress.start("import", total=len(plugs))
    rows = []
    with ThreadPoolExecutor(max(2, min(8, processor_count()))) as pool:
        errors = pool.map(lambda plug: _error(plug[0], plug[2]), plugs)
        for (group, name, entry), error in zip(plugs, errors, strict=True):
            progress.advance(status=name)
            rows.append(
                {
                    "kind": GROUPS[group],
                    "name": name,
                    "distribution": entry.distribution,
                    "version": entry.version,
                    "status": "broken" if error and entry.fits else status(entry),
                    "error": error,
                }
            )
    return rows


def new_plugin(folder: Annotated[str, Opt(metavar="DIR")]) -> NewPluginReport:
    """Start a package with a model of your own and the test that it keeps its contract.

    Parameters
    ----------
    folder : str
        A new folder; its name is the package's.

    Returns
    -------
    NewPluginReport

    Raises
    ------
    UsageError
        If the name can't be that of a package, hides another package, or the model's is taken by
        unetkit itself.
    OutputError
        If the folder exists.
    """
    words = _names(folder)
    template = files("unetkit.data").joinpath("plugin")
    written = []
    with staged(folder) as partial:
        for source, target in _FILES.items():
            place = Path(partial) / _filled(target, words)
            make_folder(str(place.parent))
            write_text(str(place), _filled(template.joinpath(f"{source}.txt").read_text(), words))
            written.append(place.relative_to(partial).as_posix())
    return NewPluginReport(
        folder, words["DISTRIBUTION"], words["MODULE"], words["MODEL"], tuple(written)
    )


def _error(group: str, entry: Entry) -> str | None:
    """Import a plugin in a process of its own and say in a sentence what is wrong with it."""
    if entry.is_own:
        return None
    noun = f"{GROUPS[group]} {entry}"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TRIAL, group, entry.full_name],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_trusted_path())},
        )
    except subprocess.TimeoutExpired:
        return f"{noun} must be imported in {PATIENCE:.0f} s, got no end; remove it"
    if done.returncode == 0 and done.stdout.endswith("\nready\n"):
        return None
    last = done.stderr.strip().splitlines()[-1:] if done.returncode == 1 else []
    return last[0] if last else f"{noun} must be importable, got exit {done.returncode}; remove it"


def _trusted_path() -> list[str]:
    """Return where this process looks for modules, without the folder that it happens to be in.

    That comes first where Python was started with -m or -c. What belongs to an installation is
    found by the child as well.
    """
    here = str(Path.cwd())
    return [folder for folder in sys.path if Path(folder).is_absolute() and folder != here]


def _names(folder: str) -> dict[str, str]:
    """Derive the names of a package from its folder's."""
    distribution = base_name(folder.rstrip("/"))
    module = re.sub(r"[-.]+", "_", distribution).lower()
    model = module.removeprefix("unetkit_").replace("_", "-")
    fit = re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-._][A-Za-z0-9]+)*", distribution)
    if is_remote(folder) or not fit or keyword.iskeyword(module) or module == "unetkit":
        raise UsageError(
            f"the folder must have a name that a package can have, got {distribution!r};"
            " try unetkit-mynet"
        )
    if plain_name(distribution) in _taken() or find_spec(module) is not None:
        raise UsageError(
            f"the folder must have a name that no other package has, got {distribution!r}, which"
            f" would hide that one; try unetkit-{distribution}"
        )
    for name, entry in Registry("unetkit.models", noun="model").entries():
        if entry.is_own and name == model:
            raise UsageError(
                f"the model must have a name that unetkit has not taken, got {model!r} from"
                f" {distribution!r}; try {distribution}-mine"
            )
    return {
        "DISTRIBUTION": distribution,
        "MODULE": module,
        "MODEL": model,
        "UNETKIT": __version__,
        "API": API,
    }


def _taken() -> set[str]:
    """Return the names of all distributions that are installed or that unetkit can make use of."""
    needed = (re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires("unetkit") or ())
    installed = (origin.metadata["Name"] or "" for origin in distributions())
    return {plain_name(name) for name in (*needed, *installed)}


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\b(?:" + "|".join(words) + r")\b|MODULE", lambda m: words[m[0]], text)
