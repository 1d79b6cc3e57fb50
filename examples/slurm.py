"""Predict a slide on a SLURM cluster, one job a worker; run it where `sbatch` is.

Elsewhere it shows the job that it would submit. Each worker predicts one tile at a time with all
cores of its job; SLURM may end workers and start them again. Whatever ends this program, the same
command goes on where it stopped. Needs `pip install 'unetkit[slurm]'` on a disk that all see.
"""

import argparse
import shutil

from dask_jobqueue import SLURMCluster

from unetkit.commands.tile_predict.command import tile_predict

WORKERS = 8
CORES = 4

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("slide", nargs="?", default="slide.zarr")
parser.add_argument("--queue")
parser.add_argument("--account")
wanted = parser.parse_args()

with SLURMCluster(
    queue=wanted.queue,
    account=wanted.account,
    cores=1,  # what Dask counts: one tile at a time
    job_cpu=CORES,
    memory="16GB",
    walltime="04:00:00",
    # With one heap torch's memory is kept from tile to tile, a quarter of the time.
    job_script_prologue=[f"export OMP_NUM_THREADS={CORES} MALLOC_ARENA_MAX=1"],
    # SLURM minds the memory; Dask would take what torch keeps for later for a leak.
    worker_extra_args=["--memory-limit", "0"],
    scheduler_options={"dashboard_address": ":0"},
) as cluster:
    print(cluster.job_script())
    if shutil.which("sbatch"):
        cluster.adapt(minimum=1, maximum=WORKERS)
        cluster.wait_for_workers(1)
        report = tile_predict(wanted.slide, scheduler=cluster.scheduler_address, resume=True)
        print(report.output)
