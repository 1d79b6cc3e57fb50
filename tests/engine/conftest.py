"""A dask cluster in this process, for what needs no processes of its own."""

import pytest
from distributed import LocalCluster


@pytest.fixture(scope="session")
def cluster():
    """Return a running cluster of one worker with two threads."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as made:
        yield made
