"""The options of a function, read off its signature and docstring; it knows no command line."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import inspect
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import unetkit.progress
from unetkit.errors import MissingError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.abc import InspectLoader

# What the commands hand to every build function; the rest is for the user to set.
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
class Opt:
    """What an annotation says of an option beside its type: how a command line offers it."""

    flags: tuple[str, ...] = ()  # left out, its name with two dashes
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    default: str | None = None  # in words, what comes of leaving it out
    panel: str | None = None  # the heading below which help lists it
    # MODULE:NAME of what refuses a value without any data; its module loads no large library. It
    # may take further options, and `name`, by keyword.
    check: str | None = None


# A store that is read.
Store = Annotated[str, Opt(check="unetkit.storage.urls:check_there")]
Device = Annotated[str, Opt(panel="Hardware", check="unetkit.machine:check_device")]
Precision = Annotated[
    Literal["auto", "exact", "float32", "bfloat16", "float16"], Opt(panel="Hardware")
]
SchedulerName = Annotated[
    str, Opt(panel="Hardware", check="unetkit.engine.schedulers:check_scheduler")
]
Workers = Annotated[int | None, Opt(min=1, default="by the machine", panel="Hardware")]
Overwrite = Annotated[bool, Opt(panel="Output")]
Resume = Annotated[bool, Opt(check="unetkit.options:check_resume")]
BreakLock = Annotated[bool, Opt(panel="Output")]
Preview = Annotated[str | None, Opt(panel="Output")]
Seed = Annotated[int, Opt(min=0)]
PixelSize = Annotated[str | None, Opt(check="unetkit.storage.pixel_size:parse_pixel_size")]
Axes = Annotated[str | None, Opt(check="unetkit.storage.image_file:check_axes")]
Channels = Annotated[str | None, Opt(default="all")]
LabelName = Annotated[str | None, Opt(metavar="NAME", default="instances, else classes")]
ModelOptions = Annotated[Sequence[str], Opt(flags=("--set",), metavar="KEY=VALUE")]
# The image of a prediction, where it is no longer beside it.
ImageOf = Annotated[
    str | None, Opt(default="as the prediction says", check="unetkit.storage.urls:check_there")
]
# How networks are trained.
ModelName = Annotated[
    str | None,
    Opt(default="unet", panel="Model", check="unetkit.models.model_header:check_installed"),
]
NetworkOptions = Annotated[
    Sequence[str],
    Opt(
        flags=("--set",),
        metavar="KEY=VALUE",
        panel="Model",
        check="unetkit.models.model_header:check_model_options",
    ),
]
RecipeName = Annotated[Literal["default", "paper"], Opt(panel="Recipe")]
RecipeChanges = Annotated[
    Sequence[str],
    Opt(metavar="KEY=VALUE", panel="Recipe", check="unetkit.training.recipes:check_changes"),
]
Loss = Annotated[
    str | None,
    Opt(default="that of the recipe", panel="Recipe", check="unetkit.models.losses:parse_loss"),
]
Target = Annotated[
    Literal[
        "foreground",
        "foreground+boundary",
        "foreground+distance",
        "boundary",
        "classes",
        "classes+boundary",
    ]
    | None,
    Opt(default="by the labels"),
]
Init = Annotated[str | None, Opt(panel="Model")]
Steps = Annotated[int | None, Opt(min=1, default="1000, or what fits a time budget")]
TimeBudget = Annotated[str | None, Opt(check="unetkit.progress:parse_duration")]
# Threads that draw tiles.
Samplers = Annotated[int | None, Opt(min=0, default="by the machine", panel="Hardware")]


@dataclass(frozen=True)
class Option:
    """One parameter of a function that a user may set."""

    name: str
    kinds: tuple[type, ...]  # of None, bool, int, float and str
    choices: tuple[Any, ...]  # the only values; empty where any of `kinds` will do
    default: Any  # `inspect.Parameter.empty` where it must be given
    meaning: str = ""  # what the docstring says about it
    is_argument: bool = False  # given by its place
    is_many: bool = False  # a sequence
    shown: Opt = Opt()

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
        """Return the value that `text` means; a ValueError if none that the option takes."""
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


def check_values(options: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Refuse values that need no data to be judged, then what is not there, then what is.

    None stands for a value that is left out.
    """
    later: list[MissingError | OutputError] = []
    for option in options.values():
        value = values[option.name]
        if option.shown.check is None or value is None:
            continue
        module, _, name = option.shown.check.partition(":")
        check = getattr(import_module(module), name)
        known = {**values, "name": option.name.replace("_", "-")}
        wanted = inspect.signature(check).parameters.values()
        try:
            check(value, **{p.name: known[p.name] for p in wanted if p.kind is p.KEYWORD_ONLY})
        except (MissingError, OutputError) as error:
            later.append(error)
    if later:
        raise min(later, key=lambda error: isinstance(error, OutputError))


def check_resume(resume: bool, *, overwrite: bool) -> None:
    """Refuse to go on with what is to be replaced."""
    if resume and overwrite:
        raise UsageError("resume must be given without overwrite, got both; choose one of them")


def parameters_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Return what a function takes by name, in the order of its signature.

    A parameter is typed by its annotation (None, bool, int, float, str, ``Literal``, unions and
    sequences of these, with an `Opt` or without), or else by its default, and explained in the
    Parameters section of a numpydoc docstring.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        # The plugin's annotations name what is imported for type checkers only.
        hints = {}
    told = _meanings(inspect.getdoc(function) or "")
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        annotation, shown = _split(hints.get(name))
        kinds, choices, is_many = _kinds(annotation, default=parameter.default)
        found[name] = Option(
            name,
            kinds,
            choices,
            parameter.default,
            meaning=told.get(name, ""),
            is_argument=parameter.kind is not parameter.KEYWORD_ONLY,
            is_many=is_many or parameter.kind is parameter.VAR_POSITIONAL,
            shown=shown,
        )
    return found


def options_of(build: Callable[..., Any]) -> dict[str, Option]:
    """Return what a user may set of a build function by name, in alphabetical order."""
    found = parameters_of(build)
    return {
        name: found[name] for name in sorted(found) if name not in GIVEN and not found[name].is_many
    }


def parse_texts(texts: Sequence[str], build: Callable[..., Any], *, model: str) -> dict[str, Any]:
    """Read texts such as ``width=16`` as options of a build function, typed as it says.

    A UsageError if one has no ``=``, is unknown or set twice, or its value is of another type;
    `model` is named in it.
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
    """Check option values and add the defaults of those left out, in alphabetical order.

    A UsageError if one is unknown, of another type, or required and missing; `model` is named in
    it.
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


def _split(annotation: Any) -> tuple[Any, Opt]:
    """Part an annotation from what it says to command lines."""
    if get_origin(annotation) is not Annotated:
        return annotation, Opt()
    plain, *rest = get_args(annotation)
    return plain, next((item for item in rest if isinstance(item, Opt)), Opt())


def _kinds(annotation: Any, *, default: Any) -> tuple[tuple[type, ...], tuple[Any, ...], bool]:
    """Return the types of an annotation, in the order in which a text is tried, and its choices.

    At the end stands whether it takes a sequence of these.
    """
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    is_many = any(get_origin(part) in (Sequence, list, tuple) for part in parts)
    parts = tuple(
        get_args(part)[0] if get_origin(part) in (Sequence, list, tuple) else part for part in parts
    )
    literal = [part for part in parts if get_origin(part) is Literal]
    choices = tuple(value for part in literal for value in get_args(part))
    if choices and NoneType in parts:
        choices = (*choices, None)
    kinds = tuple(kind for kind in _RULES if kind in parts)
    if not kinds and type(default) in _RULES:
        kinds = (type(default),)
    return kinds or (str,), choices, is_many


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
        told |= dict.fromkeys(re.split(r"[, *]+", names), " ".join(body.split()))
    return told


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


# The names that the signature of a command, or of a build function, may use.
_NAMES = {
    name: item
    for module in (builtins, typing, collections.abc, unetkit.progress)
    for name, item in vars(module).items()
    if not name.startswith("__") and (module is not builtins or isinstance(item, type))
} | dict(globals())


def declared(home: str) -> Callable[..., Any]:
    """Return a function with the signature and docstring of the one at MODULE:NAME.

    They are read off the source, since modules of commands import torch, zarr and dask, for which
    no help and no refusal of an option should wait.
    """
    node = cast("ast.FunctionDef", ast.parse(declaration(home)).body[0])
    given, kind = node.args, inspect.Parameter
    named: list[tuple[ast.arg, Any]] = [(a, kind.POSITIONAL_OR_KEYWORD) for a in given.args]
    named += [(given.vararg, kind.VAR_POSITIONAL)] if given.vararg else []
    named += [(a, kind.KEYWORD_ONLY) for a in given.kwonlyargs]
    defaults = dict(zip(reversed(given.args), reversed(given.defaults), strict=False))
    defaults |= {a: d for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d}
    parameters = [
        kind(
            a.arg,
            how,
            default=_value(defaults[a]) if a in defaults else kind.empty,
            annotation=ast.unparse(cast("ast.expr", a.annotation)),
        )
        for a, how in named
    ]

    def function() -> None:
        raise LookupError(f"{home} is only read, not loaded")

    function.__doc__ = ast.get_docstring(node)
    function.__annotations__ = {a.arg: _value(a.annotation) for a, _ in named}
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _value(node: ast.AST | None) -> Any:
    """Work out what signatures hold: names, constants, and types made of them; nothing else."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _NAMES[name]
        case ast.Tuple(elts=items):
            return tuple(map(_value, items))
        case ast.UnaryOp(op=ast.USub(), operand=number):
            return -_value(number)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _value(left) | _value(right)
        case ast.Subscript(value=kind, slice=inner):
            return _value(kind)[_value(inner)]
        case ast.Call(func=made, args=items, keywords=keywords):
            return _value(made)(
                *map(_value, items), **{str(k.arg): _value(k.value) for k in keywords}
            )
    raise LookupError(f"a signature of a command must not hold {ast.unparse(node or ast.Pass())}")


def declaration(home: str) -> str:
    """Return the text of a function from its name to the end of its docstring."""
    module, _, name = home.partition(":")
    spec = find_spec(module)
    loader = cast("InspectLoader", spec and spec.loader)
    found = re.search(
        rf'^def {name}\(.*?""".*?"""\n', loader.get_source(module) or "", re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise LookupError(f"no function with a docstring at {home}")
    return found[0]
