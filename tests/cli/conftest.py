from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from unetkit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Passed = Callable[..., dict[str, Any]]


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

        monkeypatch.setattr(import_module(f"unetkit.pipeline.{function}"), function, record)
        assert main(list(arguments)) == 0
        got.pop("progress", None)
        return got

    return run
