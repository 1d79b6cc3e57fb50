"""How the documentation site is built: sphinx-build -W --keep-going docs build/site."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unetkit.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
# What makes the pages of the reference.
sys.path.insert(0, str(DOCS))

# https://www.sphinx-doc.org/en/master/usage/configuration.html
project = "unetkit"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference_pages"]
root_doc = "index"
# The index for readers of the repository; the site has index.md.
exclude_patterns = ["README.md"]
# Dashes between a parameter and its meaning, and no other quotation marks than were typed.
smartquotes_action = "D"
default_role = "code"
pygments_style = "tango"

# The docstrings name the types, with shapes and units.
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

# https://myst-parser.readthedocs.io/en/latest/configuration.html
myst_heading_anchors = 4

# https://pradyunsg.me/furo/customisation/ : no fonts or scripts of other hosts
html_theme = "furo"
html_title = f"unetkit {__version__}"
html_copy_source = False
html_show_sphinx = False

# A page of nothing but a link shows what it links to, so that nothing is told twice.
MIRROR = re.compile(r"\[[^\]]*\]\((\.\./[^)]+\.(?:md|ipynb))\)\s*")
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]*)(?=[)#])")


def mirrored() -> dict[Path, str]:
    """Return which page of the site shows which file of the repository."""
    pages = {DOCS / "README.md": "index.md"}
    for page in sorted(DOCS.glob("*/*.md")):
        if found := MIRROR.fullmatch(page.read_text(encoding="utf-8")):
            pages[(page.parent / found[1]).resolve()] = str(page.relative_to(DOCS))
    return pages


def text_of(path: Path) -> str:
    """Return a file as Markdown, of a notebook its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
    return "\n\n".join(f"```python\n{c}\n```" if kind == "code" else c for kind, c in cells)


def read(app: Sphinx, page: str, source: list[str]) -> None:
    """Let a page show what it mirrors, and let its links lead to pages where there are any."""
    origin = DOCS / f"{page}.md"
    if found := MIRROR.fullmatch(source[0]):
        origin = (origin.parent / found[1]).resolve()
        source[0] = text_of(origin)
    pages = mirrored()

    def led(match: re.Match[str]) -> str:
        target = (origin.parent / match[1]).resolve()
        if target in pages:
            return f"/{pages[target]}"
        inside = target.is_relative_to(DOCS)
        here = target.relative_to(DOCS.resolve() if inside else DOCS.parent)
        if target.is_dir():
            # A folder is no file that a browser could load: its own page says what is in it.
            inner = target / "README.md"
            return f"/{pages[inner]}" if inner in pages else "#"
        return f"/{here}" if inside else f"/../{here}"

    # No highlighter knows the language of the one block that draws a tree.
    source[0] = LINK.sub(led, source[0]).replace("```tree", "```text")


def setup(app: Sphinx) -> None:
    """Tell Sphinx what is done here."""
    app.connect("source-read", read)
