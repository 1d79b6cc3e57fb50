"""Growing parts of the images: nested, by source, with something to find in each."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import InputError
from unetkit.training.growing import growing_sizes, growing_units, nested_orders, part_of
from unetkit.training.split import Origin, split


def origins(count, *, copies=0, **told):
    found = []
    for k in range(count):
        found.append(Origin(f"s{k}", f"s{k}", False, 64, 64, **told))
        found += [Origin(f"s{k}-aug{n}", f"s{k}", True, 64, 64) for n in range(copies)]
    return found


@given(st.integers(3, 2000))
def test_sizes_about_double_up_to_all(count):
    sizes = growing_sizes(count, unit="image")
    assert sizes[-1] == count
    assert 3 <= len(sizes) <= 5
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= 1
    assert all(b <= 2 * a + 1 for a, b in pairwise(sizes))


def test_too_few_are_refused():
    with pytest.raises(InputError, match=r"at least 3 groups .* got 2; annotate more"):
        growing_sizes(2, unit="group")


@given(count=st.integers(5, 20), seed=st.integers(0, 99), draws=st.integers(1, 4))
def test_parts_are_nested_and_copies_go_with_their_originals(count, seed, draws):
    known = origins(count, copies=2)
    parts = split(known, gap=8, seed=seed)
    unit, units = growing_units(known, parts)
    assert unit == "image"
    held = {region.sample for region in parts.validation}
    orders = nested_orders(units, draws=draws, seed=seed)
    assert len(orders) == draws
    for order in orders:
        before = set()
        for size in growing_sizes(len(units), unit=unit):
            part = part_of(parts, order[:size])
            names = {region.sample for region in part.train}
            assert before <= names
            assert len(names) == 3 * size
            assert {name.partition("-")[0] for name in names}.isdisjoint(held)
            assert part.validation == parts.validation
            before = names
        assert before == {region.sample for region in parts.train}


def test_groups_are_counted_where_there_are_some():
    known = [Origin(f"s{k}", f"s{k}", False, 64, 64, group=f"animal{k // 3}") for k in range(18)]
    unit, units = growing_units(known, split(known, gap=8, seed=0))
    assert unit == "group"
    assert {len(one.samples) for one in units} == {3}


def test_the_first_has_something_to_find():
    known = origins(24)
    known = [
        Origin(o.name, o.source, False, 64, 64, foreground=k % 4 == 0) for k, o in enumerate(known)
    ]
    _, units = growing_units(known, split(known, gap=8, seed=0))
    orders = nested_orders(units, draws=9, seed=0)
    assert all(order[0].foreground for order in orders)
    assert len({order[0].name for order in orders}) > 1


def test_a_single_image_is_refused():
    known = origins(1)
    with pytest.raises(InputError, match="hold whole images out, got a single one"):
        growing_units(known, split(known, gap=4, seed=0))
