"""The options of a model, read off its build function's signature; it does not know torch."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from unetkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What the pipeline hands to every build function; the rest is for the user to set.
GIVEN = ("in_channels", "classes")

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_RULES = {
    NoneType: "none",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


@dataclass(frozen=True)
class Option:
    """One keyword of a build function that a user may set.

    Parameters
    ----------
    name : str
        The keyword.
    kinds : tuple of type
        The types that it takes, of None, bool, int, float and str.
    choices : tuple
        The only values that it takes; empty where any of `kinds` will do.
    default : object
        Its value when left out; `inspect.Parameter.empty` where it must be given.
    meaning : str
        What the build function's docstring says about it.
    """

    name: str
    kinds: tuple[type, ...]
    choices: tuple[Any, ...]
    default: Any
    meaning: str = ""

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return " or ".join(_RULES[kind] for kind in self.kinds)

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    def __str__(self) -> str:
        return f"{self.name} (required)" if self.is_required else f"{self.name}={self.default}"

    def parse(self, text: str) -> Any:
        """Return the value that `text` means.

        Raises
        ------
        ValueError
            If it means none that the option takes.
        """
        if self.choices:
            return next(value for value in self.choices if str(value) == text)
        readers: dict[type, Callable[[str], Any]] = {
            NoneType: lambda word: {"none": None}[word.lower()],
            bool: lambda word: _WORDS[word.lower()],
            int: int,
            float: _finite,
            str: str,
        }
        for kind in self.kinds:
            try:
                return readers[kind](text)
            except (ValueError, KeyError):
                continue
        raise ValueError(text)

    def accepts(self, value: Any) -> bool:
        """Say whether `value` is one that the option takes."""
        if self.choices:
            return any(value == c and type(value) is type(c) for c in self.choices)
        if type(value) is int and float in self.kinds:
            return True
        return type(value) in self.kinds and not (type(value) is float and not math.isfinite(value))


def options_of(build: Callable[..., Any]) -> dict[str, Option]:
    """Return the options of a build function by name, in alphabetical order.

    Parameters
    ----------
    build : callable
        Takes `in_channels`, `classes` and its options as keywords. An option is typed by its
        annotation (None, bool, int, float, str, ``Literal`` and unions of these), or else by its
        default, and explained in the Parameters section of a numpydoc docstring.

    Returns
    -------
    dict of str to Option
    """
    try:
        hints = get_type_hints(build)
    except (NameError, TypeError):
        # The plugin's annotations name what is imported for type checkers only.
        hints = {}
    told = _meanings(inspect.getdoc(build) or "")
    found = {}
    for name, parameter in inspect.signature(build).parameters.items():
        named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if named and name not in GIVEN:
            kinds, choices = _kinds(hints.get(name), default=parameter.default)
            found[name] = Option(name, kinds, choices, parameter.default, told.get(name, ""))
    return dict(sorted(found.items()))


def parse_texts(texts: Sequence[str], build: Callable[..., Any], *, model: str) -> dict[str, Any]:
    """Read ``key=value`` texts as the options of a build function.

    Parameters
    ----------
    texts : sequence of str
        Such as ``width=16``.
    build : callable
        The build function.
    model : str
        The model's name, for messages.

    Returns
    -------
    dict of str to object
        Only what was set, typed as the signature says.

    Raises
    ------
    UsageError
        If a text has no ``=``, an option is unknown or set twice, or a value is of another type.
    """
    options = options_of(build)
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name in values:
            raise UsageError(
                f"an option of model {model!r} must be set once as key=value, got {text!r};"
                f" options: {_listed(options)}"
            )
        option = _known(name, options, model=model)
        try:
            values[name] = option.parse(value)
        except (ValueError, StopIteration):
            raise _unfit(option, value, options, model=model) from None
    return values


def complete(values: Mapping[str, Any], build: Callable[..., Any], *, model: str) -> dict[str, Any]:
    """Check option values and add the defaults of those left out.

    Parameters
    ----------
    values : mapping of str to object
        What was set.
    build : callable
        The build function.
    model : str
        The model's name, for messages.

    Returns
    -------
    dict of str to object
        A value for every option, in alphabetical order.

    Raises
    ------
    UsageError
        If an option is unknown, of another type, or required and missing.
    """
    options = options_of(build)
    for name, value in values.items():
        option = _known(name, options, model=model)
        if not option.accepts(value):
            raise _unfit(option, value, options, model=model)
    for option in options.values():
        if option.is_required and option.name not in values:
            raise UsageError(
                f"option {option.name} of model {model!r} must be given, got none;"
                f" set {option.name}={option.rule}"
            )
    return {name: values.get(name, option.default) for name, option in options.items()}


def _known(name: str, options: Mapping[str, Option], *, model: str) -> Option:
    if name in options:
        return options[name]
    close = get_close_matches(name, options, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(
        f"option must be one that model {model!r} has, got {name!r};"
        f" {hint}options: {_listed(options)}"
    )


def _unfit(option: Option, value: Any, options: Mapping[str, Option], *, model: str) -> UsageError:
    return UsageError(
        f"option {option.name} of model {model!r} must be {option.rule}, got {value!r:.80};"
        f" options: {_listed(options)}"
    )


def _listed(options: Mapping[str, Option]) -> str:
    return ", ".join(map(str, options.values())) or "none"


def _kinds(annotation: Any, *, default: Any) -> tuple[tuple[type, ...], tuple[Any, ...]]:
    """Return the types of an annotation, in the order in which a text is tried, and its choices."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    literal = [part for part in parts if get_origin(part) is Literal]
    choices = tuple(value for part in literal for value in get_args(part))
    if choices and NoneType in parts:
        choices = (*choices, None)
    kinds = tuple(kind for kind in _RULES if kind in parts)
    if not kinds and type(default) in _RULES:
        kinds = (type(default),)
    return kinds or (str,), choices


def _meanings(docstring: str) -> dict[str, str]:
    """Return what the Parameters section of a numpydoc docstring says about each name."""
    # A heading is a line above a rule of dashes; the section ends where the next one begins.
    _, _, rest = docstring.partition("Parameters\n----------\n")
    section = re.split(r"^.*\n-{3,}$", rest, maxsplit=1, flags=re.MULTILINE)[0]
    told: dict[str, str] = {}
    entries = re.findall(
        r"^(\S[^:\n]*?) *(?::.*)?\n((?:[ ]+.*\n|\n)*)", section + "\n", flags=re.MULTILINE
    )
    for names, body in entries:
        told |= dict.fromkeys(names.split(", "), " ".join(body.split()))
    return told


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
