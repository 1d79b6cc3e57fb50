"""What people should know of a model before they use it, as Markdown, from its header alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from unetkit.models.joint_header import usual_decision
from unetkit.models.model_header import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from unetkit.models.model_header import ModelHeader

# More names than these are only counted.
_MOST_NAMES = 12
# Fewer held-out images say little about others; our own choice.
_FEW = 5

_TARGETS = {
    "foreground": "each object apart, as foreground with gaps between those that touch",
    "foreground+boundary": "each object apart, by its interior and its boundary",
    "foreground+distance": "each object apart, by how deep inside of it each pixel is",
    "boundary": "each object apart, by the boundaries between them",
    "classes": "a class for each pixel",
}
NORMALIZATIONS = {
    "percentile": "1st percentile of each channel to 0, 99.8th to 1",
    "range": "minimum of each channel to 0, maximum to 1",
    "zscore": "mean of each channel to 0, standard deviation to 1",
    "none": "the numbers as they are",
}


def model_card(
    header: ModelHeader,
    *,
    name: str,
    licence: str | None = None,
    authors: Sequence[str] = (),
    more: Sequence[str] = (),
) -> str:
    """Return the card of a model as Markdown.

    What nobody told is marked with "to be filled in". `more` are paragraphs after the first.
    """
    classes = ", ".join(map(_plain, header.class_names))
    about = (
        f"A `{_plain(header.model)}` network of {header.parameters:,} parameters for microscopy"
        f" images of two dimensions. It finds {_TARGETS.get(header.target, header.target)}"
        f" ({classes})."
    )
    parts = [
        f"# {_plain(name)}",
        about,
        *more,
        _listed(_terms(licence, authors)),
        "## Data",
        _listed(_data(header)),
        "## Input",
        _listed(_input(header)),
        "## Validation",
        *_validation(header),
        "## Decision",
        _decision(header),
        "## Limits",
        _listed(_limits(header)),
        "## Training",
        _listed(_training(header)),
    ]
    return "\n\n".join(parts) + "\n"


def _listed(items: Iterator[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _terms(licence: str | None, authors: Sequence[str]) -> Iterator[str]:
    yield f"Authors: {', '.join(map(_plain, authors)) or '_to be filled in_'}"
    yield f"Licence: {_plain(licence) if licence else '_to be filled in_'}"


def _data(header: ModelHeader) -> Iterator[str]:
    told = header.provenance
    data = _plain(str(told.get("data") or "unknown"))
    learned, held_out = (_names(told.get(key)) for key in ("trained_on", "validated_on"))
    yield f"Learned from {_counted(learned)} of `{data}`{_some(learned)}"
    if set(held_out) & set(learned):
        yield "Held out for validation: a part of that image from which it did not learn"
    else:
        yield f"Held out for validation: {_counted(held_out)}{_some(held_out)}"
    yield "Where the images come from, and who annotated them: _to be filled in_"


def _input(header: ModelHeader) -> Iterator[str]:
    channels = "1 channel" if header.in_channels == 1 else f"{header.in_channels} channels"
    chosen = f": {_plain(header.channels)}, in this order" if header.channels else ""
    yield f"Channels: {channels}{chosen}"
    sizes = header.pixel_size or {}
    told = " x ".join(f"{sizes[axis]:g}" for axis in "yx" if axis in sizes)
    yield f"Pixel size: {f'{told} micrometres' if told else 'unknown'}"
    how = NORMALIZATIONS.get(header.normalization, "")
    yield f"Normalization: `{_plain(header.normalization)}` of the whole image ({how})"
    contract = header.contract
    yield (
        f"Sizes: {contract.minimum} + {contract.step} k pixels;"
        f" {contract.need} pixels of context on each side"
    )


def _validation(header: ModelHeader) -> Iterator[str]:
    told = header.provenance.get(HELD_OUT)
    if isinstance(told, dict) and isinstance(told.get("scores"), dict) and told["scores"]:
        decided = header.decision is not None and header.decision.score is not None
        yield from _certain(told, fitted=", to which the decision was fitted" if decided else "")
    else:
        yield from _uncertain(header)
    yield (
        "To validate it: `unetkit tile-predict` images that it has not seen, and compare with their"
        " truth by `unetkit eval`."
    )


def _certain(told: Mapping[str, Any], *, fitted: str) -> Iterator[str]:
    """Say what the decision scored on held-out images, and how sure that is."""
    known = told.get("intervals")
    intervals: Mapping[str, Any] = known if isinstance(known, dict) else {}
    rows = []
    for name, score in told["scores"].items():
        ends = intervals.get(name)
        between = [_three(end) for end in ends] if isinstance(ends, list) else []
        word = _plain(str(name)).replace("_", " ")
        rows.append(f"| {word} | {_three(score)} | {' to '.join(between) or '-'} |")
    level, units, images = told.get("level"), told.get("units"), told.get("images")
    percent = f"{level:.0%} " if isinstance(level, float) else ""
    heading = f"| score on held-out images | value | {percent}interval |"
    yield "\n".join([heading, "|---|---|---|", *rows])
    unit, data = _plain(str(told.get("unit"))), _plain(str(told.get("data")))
    objects = told.get("objects")
    counted = "" if objects is None else f" with {_several(objects, 'object')}"
    how = (
        f"No intervals: {_plain(str(told['reason']))}; one would say how far others may lie off"
        if told.get("reason")
        else f"The intervals are of {_several(units, unit)}, drawn anew (bootstrap)"
    )
    yield f"Of {_several(images, 'image')}{counted} of `{data}`{fitted}. {how}."


def _uncertain(header: ModelHeader) -> Iterator[str]:
    """Give the scores of a training that kept no intervals, as earlier versions did not."""
    scores = {k: v for k, v in header.scores.items() if isinstance(v, int | float)}
    if not scores:
        yield "No scores are known."
        return
    rows = [
        f"| {_plain(key).replace('_', ' ')} | {_number(value)} |" for key, value in scores.items()
    ]
    yield "\n".join(["| score on what was held out | value |", "|---|---|", *rows])
    yield (
        "One number each, since this file keeps no intervals; `unetkit eval --bootstrap` gives them"
        " on images of your own."
    )


def _decision(header: ModelHeader) -> str:
    decision = header.decision
    if decision is None or decision.score is None:
        usual = str(decision or usual_decision(header)) or "the most probable class"
        return f"{_sentence(usual)}: the default, fitted to nothing."
    score = "average precision" if decision.objects is not None else "mean Dice"
    return _plain(decision.sentence(score))


def _limits(header: ModelHeader) -> Iterator[str]:
    told = header.provenance
    held_out = _names(told.get("validated_on"))
    if 0 < len(held_out) < _FEW:
        yield (
            f"Its scores are of {_counted(held_out)}: other images may give quite different ones"
        )
    if header.pixel_size:
        yield "At another pixel size images must be rescaled first, as tile-predict does by itself"
    else:
        yield "Its pixel size is unknown, so that nobody can tell when images must be rescaled"
    yield "Images of another stain, instrument or tissue than those it learned from are untried"
    if not header.contract.exact:
        yield "It looks at a whole tile at once, so that tiles of another size give other results"
    for warning in told.get("warnings") or ():
        yield _plain(str(warning))
    yield "Not made for diagnosis"


def _training(header: ModelHeader) -> Iterator[str]:
    told: Mapping[str, Any] = header.provenance
    yield f"By unetkit {_plain(str(told.get('unetkit') or header.version or 'unknown'))}"
    for key, word in (
        ("recipe", "Recipe, a set of numbers such as the learning rate"),
        ("loss_function", "Loss"),
        ("steps", "Steps"),
        ("best_step", "Kept from step"),
        ("seed", "Seed"),
        ("precision", "Precision"),
    ):
        if told.get(key) is not None:
            yield f"{word}: {_plain(str(told[key]))}"
    options = ", ".join(f"{key}={value}" for key, value in header.options.items())
    yield f"Options: {_plain(options) or 'none'}"
    if isinstance(told.get("init"), dict):
        yield f"Begun with the weights of `{_plain(str(told['init'].get('file')))}`"
    yield f"Checksum of the weights: `{_plain(header.checksum) or 'none'}`"


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []


def _counted(names: Sequence[str]) -> str:
    if not names:
        return "no image by name"
    return "1 image" if len(names) == 1 else f"{len(names)} images"


def _some(names: Sequence[str]) -> str:
    if not 0 < len(names) <= _MOST_NAMES:
        return ""
    return f" ({', '.join(map(_plain, names))})"


def _several(count: Any, unit: str) -> str:
    return f"1 {unit}" if count == 1 else f"{_plain(str(count))} {unit}s"


def _three(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    """Make a text of the file harmless: one line, and nothing that Markdown or HTML understands."""
    line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
    return re.sub(r"([\\`*<>\[\]|#])", r"\\\1", line)
