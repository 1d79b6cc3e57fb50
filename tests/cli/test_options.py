from __future__ import annotations

from typing import get_args

import pytest

from unetkit.cli import options

SHARED = {
    name: item
    for name, item in vars(options).items()
    if name[0].isupper() and hasattr(item, "__metadata__")
}


@pytest.mark.parametrize("name", sorted(SHARED))
def test_a_shared_option_explains_itself_in_a_sentence(name: str) -> None:
    option = get_args(SHARED[name])[1]
    assert option.help.endswith(".")


def test_there_are_shared_options() -> None:
    assert {"Seed", "Json", "Quiet", "Overwrite"} <= set(SHARED)
