"""Every example runs as it stands, is short, and says what it claims."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(p for p in (ROOT / "examples").iterdir() if p.suffix in (".py", ".sh"))
PROGRAMS = [p for p in EXAMPLES if p.suffix == ".py"]


def run(command, folder, **environment):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.name)
def test_an_example_has_at_most_60_lines(example):
    assert len(example.read_text().splitlines()) <= 60


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run every Python example once, and return what each said."""
    folder = tmp_path_factory.mktemp("examples")
    return {p.stem: run([sys.executable, str(p)], folder) for p in PROGRAMS}


def test_every_python_example_says_something(said):
    assert said
    assert all(said.values())


def test_tiles_on_the_grid_equal_the_whole_and_others_do_not(said):
    text = said["tiles_equal_the_whole"]
    lines = [line for line in text.splitlines() if line.startswith("tiles of")]
    on = [float(line.split()[-1]) for line in lines if "on the grid" in line]
    off = [float(line.split()[-1]) for line in lines if "off the grid" in line]
    assert len(on) == 3
    assert set(on) == {0.0}
    assert min(off) > 0.01


def test_the_job_of_the_slurm_recipe_is_a_script_that_starts_a_worker(said, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(said["slurm"])
    subprocess.run(["bash", "-n", str(script)], check=True)
    lines = said["slurm"].splitlines()
    assert lines[0].startswith("#!")
    assert "#SBATCH --cpus-per-task=4" in lines
    assert "export OMP_NUM_THREADS=4 MALLOC_ARENA_MAX=1" in lines
    (worker,) = [line for line in lines if "dask_worker tcp://" in line]
    assert worker.split()[0] == sys.executable
    assert "--nthreads 1" in worker
    assert worker.rstrip().endswith("--memory-limit 0")


def test_the_border_weights_are_the_papers(said):
    table = dict(re.findall(r"^ *(\d+)  ([\d.]+)$", said["border_weights"], flags=re.M))
    assert table["1"] == "9.2312"
    assert table["9"] == "1.3534"


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_holds_no_outputs_and_its_cells_run_one_after_another(notebook, tmp_path):
    document = json.loads(notebook.read_text())
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert (document["nbformat"], len(cells) > 1) == (4, True)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    said = run(
        [sys.executable, "-c", "\n".join("".join(cell["source"]) for cell in cells)], tmp_path
    )
    assert re.search(r"^[1-9]\d* objects$", said, flags=re.M), said
    found, true = re.search(r"^(\d+) of (\d+) objects found", said, flags=re.M).groups()
    assert int(found) > int(true) / 2


def test_the_shell_script_goes_from_images_to_a_prediction_and_again(lab, tmp_path):
    script = str(ROOT / "examples" / "five_images.sh")
    command = [script, str(lab / "images"), str(lab / "masks"), str(lab / "big.tif")]
    # The same lines, only narrower and shorter.
    short = {"TRAIN": "--set depth=2 --steps 2", "BUDGET": "10s"}
    work = tmp_path / "work"
    work.mkdir()
    first = run(command, work, **short)
    assert "slide.prediction.zarr" in first
    assert (work / "slide.prediction.zarr" / "zarr.json").exists()
    run(command, work, **short)


@pytest.fixture
def slides(lab):
    """Return a lab with a folder of two slides."""
    (lab / "slides").mkdir()
    for name in ("a", "b"):
        shutil.copy(lab / "big.tif", lab / "slides" / f"{name}.tif")
    return lab


@pytest.mark.skipif(not shutil.which("snakemake"), reason="needs snakemake on the PATH")
def test_snakemake_makes_a_table_of_every_slide_and_only_what_is_missing(slides):
    command = ["snakemake", "--snakefile", str(ROOT / "examples" / "Snakefile"), "--cores", "1"]
    command += ["--config", "train=--set depth=2 --set width=4 --steps 2"]
    run(command, slides)
    tables = [slides / "results" / f"{name}.csv" for name in ("a", "b")]
    assert all("area" in table.read_text().split("\n")[0] for table in tables)
    before = [table.stat().st_mtime_ns for table in tables]
    tables[0].unlink()
    run(command, slides)
    assert tables[0].exists()
    assert tables[1].stat().st_mtime_ns == before[1]


# The launcher alone is no engine: it fetches that on its first use.
@pytest.mark.skipif(
    not shutil.which("nextflow")
    or subprocess.run(["nextflow", "-version"], capture_output=True, check=False).returncode != 0,
    reason="needs nextflow on the PATH, and its engine",
)
def test_nextflow_makes_a_table_of_every_slide(slides):
    command = ["nextflow", "run", str(ROOT / "examples" / "slides.nf")]
    command += ["--train", "--set depth=2 --set width=4 --steps 2"]
    run(command, slides)
    for name in ("a", "b"):
        assert "area" in (slides / "results" / f"{name}.csv").read_text().split("\n")[0]
