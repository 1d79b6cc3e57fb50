from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

if TYPE_CHECKING:
    Passed = Callable[..., dict[str, Any]]


def _module_of(function: str) -> ModuleType:
    """Return the module that holds the function of a command."""
    folder = Path(__file__).parents[2] / "unetkit" / "commands" / function
    return import_module(f"unetkit.commands.{function}{'.command' if folder.is_dir() else ''}")


@pytest.fixture
def module_of() -> Callable[[str], ModuleType]:
    return _module_of


@dataclass(frozen=True)
class Report:
    output: str = "written.zarr"

    def to_dict(self) -> dict[str, Any]:
        return {"output": self.output}


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Passed:
    """Run a command and return what it passes to the function of its name, and nothing else."""

    def run(function: str, *arguments: str, answer: object = None) -> dict[str, Any]:
        got: dict[str, Any] = {}

        def record(*values: str, **options: Any) -> object:
            got["values"] = values
            got.update(options)
            return Report() if answer is None else answer

        monkeypatch.setattr(_module_of(function), function, record)
        assert main(list(arguments)) == 0
        got.pop("progress", None)
        return got

    return run
