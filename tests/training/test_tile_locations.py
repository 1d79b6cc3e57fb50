import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.arrays.normalization import Normalization
from unetkit.training.block_cache import BlockCache
from unetkit.training.sampler import ClassCounts, TileLocations, TrainingSample
from unetkit.training.split import Region

SIDE = 12


def locations(samples):
    whole = [Region(n, 0, 0, m.image.height, m.image.width) for n, m in samples.items()]
    return TileLocations(samples, whole, cache=BlockCache(), side=SIDE)


def drawn(one, *, foreground, count=200):
    rngs = (np.random.default_rng([1, k]) for k in range(count))
    found = (one.draw(rng, foreground=foreground) for rng in rngs)
    return [(region.sample, plane, y, x) for region, plane, y, x in found]


def image(*shape):
    return np.zeros((1, *shape), np.float32)


def test_rare_classes_are_met_as_often_as_others_anywhere_in_the_tile(kit):
    target = np.zeros((90, 90), np.uint8)
    target[:, 60:] = 1
    target[40, 30] = 2  # a single pixel in eight thousand
    one = locations({"a": kit.sample(image(90, 90), target=target)})
    met = [target[y : y + SIDE, x : x + SIDE] for *_, y, x in drawn(one, foreground=True)]
    assert all(part.any() for part in met)
    rare = [np.argwhere(part == 2)[0] for part in met if (part == 2).any()]
    assert 70 < len(rare) < 130
    for axis in (0, 1):
        assert {int(place[axis]) for place in rare} == set(range(SIDE))
    # The control: tiles that lie anywhere hardly ever meet it.
    anywhere = drawn(one, foreground=False)
    assert sum((target[y : y + SIDE, x : x + SIDE] == 2).any() for *_, y, x in anywhere) < 15


def test_every_sample_that_has_a_class_is_drawn_equally_often(kit):
    full, little = np.ones((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    little[3, 4] = 1
    parts = {"full": full, "little": little, "empty": np.zeros((40, 40), np.uint8)}
    one = locations({n: kit.sample(image(40, 40), target=t) for n, t in parts.items()})
    names = [name for name, *_ in drawn(one, foreground=True)]
    assert names.count("empty") == 0
    assert 70 < names.count("little") < 130
    assert {name for name, *_ in drawn(one, foreground=False)} == set(parts)


def test_tiles_meet_what_somebody_annotated(kit):
    weights = np.zeros((200, 200), np.float32)
    weights[150:154, 30:36] = 2
    target = np.ones((200, 200), np.uint8)  # foreground everywhere, annotated or not
    one = locations({"a": kit.sample(image(200, 200), target=target, weights=weights)})
    for foreground in (True, False):
        for *_, y, x in drawn(one, foreground=foreground, count=60):
            assert weights[y : y + SIDE, x : x + SIDE].any()
    # The control: the same place in a sample that is annotated everywhere.
    free = locations({"a": kit.sample(image(200, 200), target=target)})
    tiles = drawn(free, foreground=False, count=60)
    assert not all(weights[y : y + SIDE, x : x + SIDE].any() for *_, y, x in tiles)


def test_where_there_is_background_alone_tiles_lie_anywhere(kit):
    one = locations({"a": kit.sample(image(40, 40))})
    assert len(set(drawn(one, foreground=True))) > 50


@given(
    start=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    side=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_tiles_lie_inside_the_region_or_around_it(start, size, side, seed):
    rng = np.random.default_rng(seed)
    target = (rng.random((60, 60)) < 0.05).astype(np.uint8)
    boxes = [(0, y, x, y + 20, x + 20) for y in (0, 20, 40) for x in (0, 20, 40)]
    counts = [np.bincount(target[y:b, x:r].ravel(), minlength=2) for _, y, x, b, r in boxes]

    class Array:
        height = width = 60
        planes = 1

        def read(self, plane, y0, y1, x0, x1):
            return target[y0:y1, x0:x1].copy()

    same = Normalization("none", (0.0,), (1.0,))
    class_counts = ClassCounts(np.array(boxes), np.array(counts))
    sample = TrainingSample(*[Array()] * 3, normalization=same, class_counts=class_counts)
    (y0, x0), (height, width) = start, size
    region = Region("a", y0, x0, y0 + height, x0 + width)
    one = TileLocations({"a": sample}, [region], cache=BlockCache(), side=side)
    for foreground in (True, False):
        _, _, y, x = one.draw(rng, foreground=foreground)
        for first, begin, extent in ((y, y0, height), (x, x0, width)):
            if extent >= side:
                assert begin <= first <= begin + extent - side
            else:
                assert first <= begin <= begin + extent <= first + side


@pytest.mark.parametrize("planes", [1, 3])
def test_planes_are_told_apart(kit, planes):
    target = np.zeros((planes, 30, 30), np.uint8)
    target[-1, 7, 8] = 1
    memory, one = kit.Memory(target), kit.sample(image(30, 30))
    whole = kit.class_counts(target, np.ones(target.shape))
    film = locations({"a": type(one)(memory, memory, memory, one.normalization, whole)})
    assert {plane for _, plane, *_ in drawn(film, foreground=True, count=20)} == {planes - 1}


def test_a_sample_knows_where_its_classes_are_annotated(kit):
    image = np.zeros((1, 30, 40), np.float32)
    image[:, 10:12, 5:8] = 1
    weights = np.ones((30, 40), np.float32)
    whole = kit.sample(image, weights=weights).class_counts
    assert whole.counts.sum(axis=0)[:2].tolist() == [1194, 6]
    assert not whole.is_partial
    weights[:, :20] = 0
    partial = kit.sample(image, weights=weights)
    assert partial.class_counts.counts.sum(axis=0)[:2].tolist() == [600, 0]
    assert partial.class_counts.is_partial


BOXES = np.array([(0, 0, 0, 10, 10), (0, 0, 10, 10, 14), (1, 0, 0, 10, 14)])


@pytest.mark.parametrize(("counted", "partial"), [(100, False), (99, True)])
def test_what_nobody_annotated_makes_it_partial(counted, *, partial):
    class_counts = ClassCounts(BOXES, np.array([(90, 10), (40, 0), (40, counted)]))
    assert class_counts.is_partial == partial


def test_boxes_are_cut_to_a_region_and_those_outside_left_out():
    class_counts = ClassCounts(BOXES, np.array([(90, 10), (40, 0), (40, 100)]))
    cut = class_counts.within(Region("a", 3, 2, 8, 10))
    assert cut.boxes.tolist() == [[0, 3, 2, 8, 10], [1, 3, 2, 8, 10]]
    assert cut.counts.tolist() == [[90, 10], [40, 100]]
    assert class_counts.boxes.tolist() == BOXES.tolist()
