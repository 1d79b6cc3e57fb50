"""Whatever the size, the depth, the tiles and the chunks: the bits of one pass."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unetkit.commands.tile_predict.command import tile_predict
from unetkit.storage.image_writer import create_image
from unetkit.storage.images import open_image

# More would show nothing new, and take long.
MOST_TILES_A_SIDE = 4


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Return a folder that the examples of one test share."""
    return tmp_path_factory.mktemp("shared")


def check(kit, shared, *, shape, depth, tile, chunk, scheduler):
    """Predict noise of a shape in tiles of at least `tile` steps, and compare with one pass."""
    model = shared / f"depth{depth}.safetensors"
    if not model.exists():
        kit.model(model, depth=depth)
    step = 2**depth
    side = step * max(tile, -(-max(shape) // (step * MOST_TILES_A_SIDE)))
    place = shared / f"{len(list(shared.iterdir()))}.zarr"
    image = np.random.default_rng(shape).integers(0, 60000, (1, *shape), np.uint16)
    create_image(str(place), shape=shape, axes="yx", dtype="u2", chunk=chunk).write(0, 0, 0, image)
    report = tile_predict(
        str(place),
        model=str(model),
        tile=side,
        scheduler=scheduler,
        precision="exact",
        probabilities="float32",
        device="cpu",
    )
    found = kit.read(open_image(report.output).data)
    np.testing.assert_array_equal(found, kit.one_pass(str(model), image))


CASES = {
    "shape": st.tuples(st.integers(1, 300), st.integers(1, 300)),
    "depth": st.integers(1, 4),
    "tile": st.integers(1, 5),
    "chunk": st.sampled_from([7, 32, 100, 512]),
    "scheduler": st.sampled_from(["sync", "threads"]),
}
SHARED = HealthCheck.function_scoped_fixture


@settings(max_examples=6, suppress_health_check=[SHARED, HealthCheck.too_slow])
@given(**CASES)
@example(shape=(1, 1), depth=4, tile=1, chunk=7, scheduler="sync")
@example(shape=(1, 300), depth=2, tile=1, chunk=100, scheduler="threads")
@example(shape=(91, 5), depth=4, tile=1, chunk=32, scheduler="threads")
@example(shape=(293, 211), depth=3, tile=3, chunk=32, scheduler="sync")
def test_tiles_equal_one_pass(kit, shared, **case):
    check(kit, shared, **case)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[SHARED, HealthCheck.too_slow])
@given(**CASES)
def test_tiles_equal_one_pass_in_many_cases(kit, shared, **case):
    check(kit, shared, **case)
