"""Commands made from the functions that they run: a signature and a docstring say every option."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand

from unetkit import kernel_cache
from unetkit.cli import console
from unetkit.options import Option, check_values, declaration, declared, parameters_of
from unetkit.signals import interruptible

# What the command line adds to the functions.
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel="Output", help="Print one JSON object on stdout.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel="Output", help="Say nothing but errors.")
]


@dataclass(frozen=True)
class Call:
    """A function of the library with what the user typed for it."""

    function: str  # MODULE:NAME
    options: Mapping[str, Option]
    given: Mapping[str, Any]

    @property
    def _values(self) -> dict[str, Any]:
        return {
            name: tuple(self.given[name] or ()) if option.is_many else self.given[name]
            for name, option in self.options.items()
        }

    def check(self) -> None:
        """Refuse what can be refused by its value, before the function's module is loaded."""
        check_values(self.options, self._values)

    def __call__(self, *, quiet: bool = True) -> Any:
        """Run it, and show how far it is unless `quiet`."""
        self.check()
        module, _, name = self.function.partition(":")
        values = self._values
        with interruptible(), console.progress(quiet=quiet) as progress:
            function = getattr(import_module(module), name)
            signature = inspect.signature(function)
            if (unkept := kernel_cache.note()) is not None:
                progress.note(unkept)
            if "progress" in signature.parameters:
                values["progress"] = progress
            bound = inspect.BoundArguments(signature, OrderedDict(values))
            with kernel_cache.told_of_compiling(progress.note):
                return function(*bound.args, **bound.kwargs)


@dataclass(frozen=True)
class Command:
    """A name on the command line, the function that it runs, and what becomes of the result."""

    name: str
    function: str  # MODULE:NAME below `unetkit.commands`
    body: Callable[..., None]  # takes a `Call` and, as keywords, the command line's own options
    example: str = ""  # what may follow its name
    help: str | None = None  # left out, the function's docstring
    subcommands: tuple[Command, ...] = ()

    @property
    def home(self) -> str:
        """Where the function is, as MODULE:NAME."""
        return f"unetkit.commands.{self.function}"

    def summary(self) -> str:
        """Say in a sentence what the command does."""
        found = re.search(r'"""(.+?)(?:\n\n|""")', declaration(self.home), flags=re.DOTALL)
        return self.help or (" ".join(found[1].split()) if found else "")

    def build(self, markup: Literal["markdown", "rich"] | None) -> Any:
        """Make what Typer runs."""
        app = typer.Typer(name=self.name, add_completion=False, rich_markup_mode=markup)
        epilog = f"Example: unetkit {self.name} {self.example}".rstrip()
        if self.subcommands:
            add = app.callback(invoke_without_command=True, help=self.help, epilog=epilog)
            add(self._callback())
        else:
            app.command(self.name, epilog=epilog)(self._callback())
        for command in self.subcommands:
            epilog = f"Example: unetkit {self.name} {command.name} {command.example}"
            app.command(command.name, epilog=epilog)(command._callback())
        return typer.main.get_command(app)

    def _callback(self) -> Callable[..., None]:
        function = declared(self.home)
        options = {n: o for n, o in parameters_of(function).items() if n != "progress"}
        hints = get_type_hints(self.body, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(self.body).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]

        def run(ctx: typer.Context, **given: Any) -> None:
            if ctx.invoked_subcommand is None:
                asked = {parameter.name: given.pop(parameter.name) for parameter in own}
                self.body(Call(self.home, options, given), **asked)

        keyword = inspect.Parameter.KEYWORD_ONLY
        ctx = inspect.Parameter("ctx", keyword, annotation=typer.Context)
        parameters = [ctx, *(_parameter(o, options) for o in options.values()), *own]
        text = re.split(r"\n\n\w+\n-{3,}\n", inspect.getdoc(function) or "")[0]
        run.__doc__ = _plain(re.sub(r"(?<!\n)\n(?!\n)", " ", text), options)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run


class LazyCommand(TyperCommand):
    """What stands for a command in a list until it is called: only then it is made."""

    def __init__(self, name: str, summary: str, panel: str, *, load: Callable[[], Any]) -> None:
        super().__init__(name=name, help=summary, rich_help_panel=panel)
        self._load = load

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Make the command and let it read its arguments."""
        return self._load().make_context(info_name, args, parent, **extra)


def _parameter(option: Option, options: Mapping[str, Option]) -> inspect.Parameter:
    """Say an option in Typer's words, which know no union."""
    # The last kind is the one that takes whatever the others do.
    choices = tuple(choice for choice in option.choices if choice is not None)
    kind: Any = Literal[choices] if choices else option.kinds[-1]
    default = option.default
    if option.is_many:
        kind, default = list[kind], None
    shown = option.shown
    about: dict[str, Any] = {
        "help": _plain(option.meaning, options),
        "metavar": shown.metavar,
        "show_default": shown.default or default not in (None, inspect.Parameter.empty),
    }
    if option.is_argument:
        info = typer.Argument(**about)
    else:
        numeric = {int: "N", float: "X"}
        letters = [numeric[each] for each in option.kinds if each in numeric]
        about["metavar"] = shown.metavar or next(iter(letters), None)
        about |= {"min": shown.min, "max": shown.max, "rich_help_panel": shown.panel}
        info = typer.Option(*_flags(option), **about)
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, info],
    )


def _flags(option: Option) -> tuple[str, ...]:
    """Return the names of an option; what is on unless told otherwise has one for off, too."""
    name = option.name.replace("_", "-")
    return option.shown.flags or (
        (f"--{name}/--no-{name}",) if option.default is True else (f"--{name}",)
    )


def _plain(text: str, options: Mapping[str, Option]) -> str:
    """Take the marks of a docstring off; what names an option becomes its flag."""

    def said(match: re.Match[str]) -> str:
        option = options.get(match[2])
        if match[1] == "``" or option is None or option.is_argument:
            return f"'{match[2]}'"
        return _flags(option)[0].partition("/")[0]

    return re.sub(r"(``?)(.+?)\1", said, text)
