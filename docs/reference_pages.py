"""The reference, made while the site is built: every command's help, every finding's head."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from unetkit.cli.app import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

    from unetkit.cli.options import Command

FINDINGS = Path(__file__).parents[1] / "findings"
# What the command line marks in a text: an option, or a value in quotation marks.
MARKED = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*|'[^' ][^']*')(?![\w'])")
# One library or several, each with its version and, in brackets, what else it was tried with.
LIBRARIES = re.compile(r"(?:(?:, | and )?[\w.-]+ \d[\w.]*(?: \([^)]*\))?)+")


def said(text: str) -> list[nodes.Node]:
    """Set what is typed in a text as code."""
    parts = MARKED.split(text)
    return [
        nodes.literal(part, part.strip("'")) if number % 2 else nodes.Text(part)
        for number, part in enumerate(parts)
        if part
    ]


def paragraphs(text: str) -> list[nodes.Node]:
    """Make a paragraph of each."""
    return [nodes.paragraph("", "", *said(" ".join(p.split()))) for p in text.split("\n\n") if p]


def table(head: list[str], rows: list[list[nodes.Node]], widths: list[int]) -> nodes.table:
    """Lay cells out below their headings."""

    def row(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in widths), cols=len(head))
    group += nodes.thead("", row([nodes.Text(title) for title in head]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group)


def command_lines(command: Command) -> Iterator[tuple[str, Any]]:
    """Yield what can be typed of a command, with what Typer made of its function."""
    built = command.build(None)
    yield f"unetkit {command.name}", built
    for name, inner in getattr(built, "commands", {}).items():
        yield f"unetkit {command.name} {name}", inner


def option_lists(line: str, built: Any) -> Iterator[nodes.Node]:
    """Yield the arguments and options as help shows them, a list for each of its headings."""
    context = typer.Context(built, info_name=line)
    rows = []
    for parameter in built.get_params(context):
        if (record := parameter.get_help_record(context)) and parameter.name != "help":
            is_argument = parameter.param_type_name == "argument"
            usual = "Arguments" if is_argument else "Options"
            rows.append((getattr(parameter, "rich_help_panel", None) or usual, *record))
    order = list(dict.fromkeys(panel for panel, *_ in rows))
    for panel, members in groupby(sorted(rows, key=lambda r: order.index(r[0])), lambda r: r[0]):
        yield nodes.rubric("", panel)
        yield nodes.definition_list(
            "",
            *(
                nodes.definition_list_item(
                    "",
                    nodes.term("", "", nodes.literal(name, name)),
                    nodes.definition("", *paragraphs(meaning)),
                )
                for _, name, meaning in members
            ),
        )


class Commands(SphinxDirective):
    """Every command: its help, from the function that it runs."""

    def run(self) -> list[nodes.Node]:
        """Make a section of each, below the headings of `unetkit --help`."""
        made: list[nodes.Node] = []
        for panel, commands in COMMANDS.items():
            outer = self._section(panel.partition(". ")[2])
            for command in commands:
                for line, built in command_lines(command):
                    section = self._section(line, nodes.literal(line, line))
                    section += paragraphs(built.help or "")
                    example = (built.epilog or "").removeprefix("Example: ")
                    section += nodes.literal_block(example, example, language="sh")
                    section += list(option_lists(line, built))
                    outer += section
            made.append(outer)
        return made

    def _section(self, title: str, shown: nodes.Node | None = None) -> nodes.section:
        section = nodes.section(names=[nodes.fully_normalize_name(title)])
        section += nodes.title(title, "", shown or nodes.Text(title))
        self.state.document.note_implicit_target(section, section)
        return section


def finding_head(script: Path) -> tuple[str, str]:
    """Return the libraries with their versions, and what they do, from a script's first lines."""
    head = []
    for line in script.read_text(encoding="utf-8").splitlines()[1:]:
        if line.rstrip() == "#" or not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    found = LIBRARIES.match(claim := " ".join(head))
    if found is None:
        raise ExtensionError(f"{script.name} must begin with a library and its version: {claim}")
    return found[0], claim[found.end() :].removeprefix(":").strip()


class Findings(SphinxDirective):
    """What outside libraries did with valid input, from the heads of the scripts that show it."""

    def run(self) -> list[nodes.Node]:
        """Make a table, each row with the script behind it."""
        rows = []
        for script in sorted(FINDINGS.glob("*.sh")):
            self.env.note_dependency(str(script))
            library, what = finding_head(script)
            file = addnodes.download_reference(
                "",
                "",
                nodes.Text("script"),
                refdoc=self.env.docname,
                reftarget=f"/../findings/{script.name}",
                refdomain="",
                reftype="download",
            )
            rows.append([nodes.Text(library), nodes.inline("", "", *said(what)), file])
        return [table(["library", "what it does", "shown by"], rows, [25, 65, 10])]


def setup(app: Sphinx) -> dict[str, bool]:
    """Give Sphinx the directives."""
    app.add_directive("unetkit-commands", Commands)
    app.add_directive("unetkit-findings", Findings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
