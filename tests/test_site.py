"""The documentation site: built without a warning, complete, and with nothing of other hosts."""

import inspect
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import unetkit
from unetkit.cli.app import OWN
from unetkit.options import declared, parameters_of

pytest.importorskip("sphinx", reason="needs the extra 'docs'")
pytest.importorskip("myst_parser", reason="needs the extra 'docs'")
pytest.importorskip("furo", reason="needs the extra 'docs'")

ROOT = Path(__file__).parents[1]


def build(docs, target):
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(docs), str(target)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    built = build(ROOT / "docs", target)
    assert built.returncode == 0, built.stderr
    return target


def text_of(page):
    return unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_command_and_option_is_in_the_reference(site):
    text = text_of(site / "reference" / "commands.html")
    for command in (c for own in OWN.values() for c in (own, *own.subcommands)):
        assert command.example in text, command.name
        for option in parameters_of(declared(command.home)).values():
            name = option.name.replace("_", "-")
            known = option.shown.flags or (name if option.is_argument else f"--{name}",)
            assert option.name == "progress" or known[0].replace("-", "_") in text.replace("-", "_")
    assert "--fail-under" in text
    assert "[default: " in text


def test_every_public_name_is_in_the_reference_with_its_docstring(site):
    page = site / "reference" / "functions.html"
    ids = re.findall(r'<dt class="sig[^>]*id="unetkit\.(\w+)"', page.read_text())
    assert set(unetkit.__all__) <= set(ids)
    said = " ".join(re.findall(r"\w+", text_of(page)))
    for name in unetkit.__all__:
        first = inspect.getdoc(getattr(unetkit, name)).split("\n\n")[0]
        assert " ".join(re.findall(r"\w+", first)) in said, name


def test_every_finding_is_a_row_with_its_script(site):
    page = site / "reference" / "findings.html"
    scripts = sorted((ROOT / "findings").glob("*.sh"))
    rows = page.read_text().split("<tr")[2:]
    assert len(rows) == len(scripts) > 10
    for row, script in zip(rows, scripts, strict=True):
        link = re.search(r'href="([^"]+\.sh)"', row)[1]
        assert (page.parent / link).read_bytes() == script.read_bytes()
        cells = re.findall(r"<td>(.*?)</td>", row, re.S)
        library, what = (re.sub(r"<[^>]+>", "", cell) for cell in cells[:2])
        assert re.search(r" \d+\.\d+", library), library
        assert len(what) > 20


def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = re.findall(
            r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(\w+:)?//', page.read_text()
        )
        assert loaded == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def test_what_links_nowhere_is_refused(site, tmp_path):
    for name in ("docs", "examples", "plugins", "findings"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    tutorial = tmp_path / "docs" / "tutorial.md"
    tutorial.write_text(tutorial.read_text() + "\n[elsewhere](nowhere.md)\n")
    built = build(tmp_path / "docs", tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere" in built.stderr
