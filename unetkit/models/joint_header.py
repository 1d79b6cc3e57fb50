"""What several model files have in common whose probabilities are averaged; read without torch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from unetkit.errors import InputError
from unetkit.geometry.sizes import SizeContract
from unetkit.models.decision import default_decision, joint_decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.models.decision import Decision
    from unetkit.models.model_header import ModelHeader

# What models must share for an average of their probabilities to mean something.
SHARED = {
    "class_names": "classes",
    "target": "target",
    "in_channels": "number of channels",
    "channels": "choice of channels",
}


def common_header(paths: Sequence[str], headers: Sequence[ModelHeader]) -> ModelHeader:
    """Return the header that stands for all, once they are known to belong together."""
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        for field, words in SHARED.items():
            ours, theirs = getattr(first, field), getattr(header, field)
            if ours != theirs:
                raise InputError(
                    f"models that are averaged must have the same {words}, got {_said(ours)} in "
                    f"{paths[0]} and {_said(theirs)} in {path}; leave one of them out"
                )
    return replace(
        first,
        contract=joint_contract([header.contract for header in headers]),
        decision=joint_decision(
            [header.decision for header in headers], usual=usual_decision(first)
        ),
    )


def usual_decision(header: ModelHeader) -> Decision:
    """Return the decision of a model that brings none."""
    return default_decision(header.target, classes=len(header.class_names))


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def joint_contract(contracts: Sequence[SizeContract]) -> SizeContract:
    """Return the sizes on which all networks agree, for plans that know of one network only.

    The step is the least common multiple and the need the largest, so that a tile of the result
    suits each network. There is a halo only where each of them has one.
    """
    first = contracts[0]
    if all(contract == first for contract in contracts):
        return first
    step = math.lcm(*(contract.step for contract in contracts))
    need = max(contract.need for contract in contracts)
    halo = min(contract.halo for contract in contracts)
    return SizeContract(
        step=step,
        minimum=max(contract.legal(step + 2 * contract.need) for contract in contracts),
        margin=need - halo,
        halo=halo,
        exact=all(contract.exact for contract in contracts),
    )
