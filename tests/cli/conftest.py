import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from unetkit.cli.app import COMMANDS, main

# Every command by what is typed, with the function that it runs as MODULE:NAME.
HOMES = {
    " ".join(words): command.home
    for group in COMMANDS.values()
    for outer in group
    for words, command in (
        ((outer.name,), outer),
        *(((outer.name, inner.name), inner) for inner in outer.subcommands),
    )
}


def python(*arguments, **options):
    """Run a Python of its own; `-c` programs and `-m unetkit` alike."""
    streams = {"capture_output": True} if "stdout" not in options else {"stderr": subprocess.PIPE}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, **{"text": True, **streams, **options})


@pytest.fixture
def typed(capsys):
    """Return what runs a command, holds its exit code, and tells what it wrote, out and err."""

    def run(words, code=0):
        capsys.readouterr()
        assert main(words) == code
        return capsys.readouterr()

    return run


@pytest.fixture
def imported(tmp_path):
    """Import a dataset NAME.zarr of label arrays by sample, and of images made of them."""

    def make(name, **samples):
        for sample, labels in samples.items():
            for kind, array in (("images", labels * 90 + 5), ("masks", labels)):
                (tmp_path / name / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / name / kind / f"{sample}.png")
        folder, output = tmp_path / name, f"{tmp_path}/{name}.zarr"
        arguments = [f"{folder}/images", output, "--labels", f"{folder}/masks"]
        assert main(["import", *arguments, "--quiet"]) == 0
        return output

    return make


@pytest.fixture
def nuclei():
    """Two objects on an image of 30 x 40 pixels."""
    labels = np.zeros((30, 40), dtype=np.uint8)
    labels[4:14, 4:14], labels[16:26, 20:32] = 1, 2
    return labels
