"""What the README and the pages of docs/ say is run, so that it stays true."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unetkit.cli.app import OWN
from unetkit.commands.demo import command as demo_files

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "README.md"
PAGES = [INDEX.parent / name for name in re.findall(r"^\| \[(\S+\.md)\]", INDEX.read_text(), re.M)]
# A full training takes an hour; two steps of a narrow network walk the same path.
SHORT = " --set width=4 --steps 2"
ONE_AFTER_ANOTHER = """
import shlex, sys
from unetkit.cli.app import main
if __name__ == "__main__":
    for command in sys.argv[1:]:
        if code := main(shlex.split(command)[1:]):
            sys.exit(f"exit code {code} of {command}")
"""


def shell_lines(page):
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    return [line for block in blocks for line in block.split("\n") if line]


def commands(page):
    """Return every line of a page but the set-up, with its remark left out, trainings shortened."""
    lines = [line.split("  #")[0].strip() for line in shell_lines(page)]
    return [
        re.sub(r" --set width=16| --time-budget \S+", "", line) + SHORT
        if line.startswith("unetkit train")
        else line
        for line in lines
        # The set-up is checked below, and the demo has its own test.
        if line.startswith("unetkit") and line != "unetkit demo"
    ]


def run(command, folder):
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def walked(module_lab):
    """Return a folder in which the lines of the README were run, and the commands."""
    ran = commands(README)
    for command in ran:
        result = run(command, module_lab)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return module_lab, [command.split()[1] for command in ran]


def test_the_readme_has_the_set_up_lines_that_ci_takes():
    setup = [line for line in shell_lines(README) if line.startswith("python3 -m venv")]
    assert len(setup) == 2
    assert setup[0].endswith("pip install . && .venv/bin/unetkit demo")
    assert setup[1].endswith("pip install -e '.[test]' && .venv/bin/python -m pytest")


def test_every_command_of_the_readme_runs_in_its_order(walked):
    lab, ran = walked
    path = ["import", "augment", "weights", "train", "import", "tile-predict", "eval", "info"]
    assert [verb for verb in ran if verb in path][:2] == path[:2]
    assert set(path) <= set(ran)
    assert (lab / "model.safetensors").exists()
    assert (lab / "slide.prediction.zarr" / "zarr.json").exists()


def lay_demo(folder):
    """Lay out the files that `unetkit demo` begins with."""
    image, truth = demo_files._pair()
    for name in ("images", "masks", "held-out"):
        (folder / name).mkdir(parents=True)
    border = round(image.shape[1] * demo_files.TRAINED_SHARE)
    demo_files._write_inputs(str(folder), image, truth=truth, border=border)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs_where_the_readme_ended(page, walked, tmp_path):
    lab = shutil.copytree(walked[0], tmp_path / "lab")
    if page.stem == "tutorial":
        lay_demo(lab / "unetkit-demo")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    assert commands(page) or page.stem in ("figures", "python")
    # One process for them all, since most of the time would be the loading of torch; not this
    # one, whose memory is full of earlier tests and counts against --max-memory.
    children = [[sys.executable, "-c", ONE_AFTER_ANOTHER, *commands(page)]]
    if page.stem == "python":
        children = []
    for child in [*children, [sys.executable, "-c", program]] if program else children:
        ran = subprocess.run(
            child, cwd=lab, capture_output=True, text=True, timeout=600, check=False
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def test_the_readme_lists_every_command_and_every_exit_code():
    from unetkit import errors

    text = README.read_text()
    assert OWN
    for name in OWN:
        assert f"`unetkit {name}" in text, name
    codes = {e.code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "code")}
    for code in codes:
        assert re.search(rf"^\| {code} \|", text, flags=re.M), code


def test_pages_are_short_and_what_they_point_to_is_there():
    # The site begins with a page of its own.
    pages = {page.name for page in INDEX.parent.glob("*.md")}
    assert pages == {"README.md", "index.md", *(p.name for p in PAGES)}
    for page in (README, INDEX, *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"):
        text = page.read_text()
        for place, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", text):
            target = page.parent / place if place else page
            assert target.exists(), f"{page.name}: {place}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if heading else [""]
            slugs = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}
            assert heading in slugs, f"{page.name}: {place}#{heading}"
    for page, lines in {"README": 170, "ARCHITECTURE": 150, "CONTRIBUTING": 60}.items():
        assert len((ROOT / f"{page}.md").read_text().splitlines()) <= lines, page
