from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetkit.errors import InputError, UsageError
from unetkit.training.split import Fold, Origin, Region, split


def origin(name, *, source=None, **more):
    facts = {"augmented": False, "height": 100, "width": 120} | more
    return Origin(name, source or name, **facts)


def many(count, *, copies=0):
    found = []
    for k in range(count):
        found.append(origin(f"s{k}"))
        found += [origin(f"s{k}-aug{c}", source=f"s{k}", augmented=True) for c in range(copies)]
    return found


def names(regions):
    return [region.sample for region in regions]


def test_a_region_knows_its_size_wherever_it_lies():
    region = Region("a", 2, 3, 10, 20)
    assert (region.height, region.width) == (8, 17)


@pytest.mark.parametrize(("sources", "held"), [(2, 1), (3, 1), (4, 1), (5, 1), (9, 1), (10, 2)])
def test_one_source_of_few_and_a_fifth_of_many_are_held_out(sources, held):
    parts = split(many(sources), gap=92, seed=0)
    assert len(parts.validation) == held
    assert len(parts.train) == sources - held
    assert sorted(names(parts.train + parts.validation)) == [f"s{k}" for k in range(sources)]
    assert parts.validation[0] == Region(parts.validation[0].sample, 0, 0, 100, 120)


@given(
    sources=st.integers(2, 30),
    copies=st.integers(0, 3),
    seed=st.integers(0, 2**40),
    empty=st.sets(st.integers(0, 29)),
)
def test_no_source_is_on_both_sides_and_copies_never_validate(sources, copies, seed, empty):
    origins = many(sources, copies=copies)
    bare = {f"s{k}" for k in empty if k < sources - 1}
    origins = [
        origin(o.name, source=o.source, augmented=o.augmented, foreground=o.source not in bare)
        for o in origins
    ]
    parts = split(origins, gap=92, seed=seed)
    by_name = {o.name: o for o in origins}
    learned, held = (
        {by_name[name].source for name in names(side)} for side in (parts.train, parts.validation)
    )
    assert held
    assert not learned & held
    assert not any(by_name[name].augmented for name in names(parts.validation))
    assert len(parts.train) == (copies + 1) * len(learned)
    # Something can be learned, and something found, wherever there is enough for both.
    full = sources - len(bare)
    assert any(by_name[name].foreground for name in names(parts.train))
    assert full == 1 or all(by_name[name].foreground for name in names(parts.validation))


def test_seeds_hold_out_different_sources_and_the_same_seed_the_same():
    found = [tuple(names(split(many(9), gap=0, seed=seed).validation)) for seed in range(20)]
    assert len(set(found)) > 3
    assert found == [tuple(names(split(many(9), gap=0, seed=s).validation)) for s in range(20)]


@given(
    height=st.integers(1, 3000), width=st.integers(3, 3000), gap=st.sampled_from([0, 8, 92, 400])
)
def test_blocks_of_one_image_are_disjoint_and_the_gap_apart(height, width, gap):
    parts = split([origin("only", height=height, width=width)], gap=gap, seed=0)
    (train,), (held,) = parts.train, parts.validation
    along_y = height >= width
    length = max(height, width)
    spans = [(r.y0, r.y1) if along_y else (r.x0, r.x1) for r in (train, held)]
    across = [(r.x0, r.x1) if along_y else (r.y0, r.y1) for r in (train, held)]
    assert across == [(0, min(height, width))] * 2
    (_, learned), (start, stop) = spans
    assert 0 < learned <= start < stop == length
    # Little images keep a smaller gap, and say so.
    assert start - learned == min(gap, length // 4)
    assert any("too good" in note for note in parts.notes) == (start - learned < gap)
    assert stop - start == max(1, length // 5)


def test_the_other_end_is_held_out_where_only_that_one_holds_something():
    image = origin("only", height=50, width=1000)

    def in_the_first_half(region):
        return region.x0 < 500

    default = split([image], gap=92, seed=0)
    turned = split([image], gap=92, seed=0, has_foreground=in_the_first_half)
    assert default.validation == (Region("only", 0, 800, 50, 1000),)
    assert turned.validation == (Region("only", 0, 0, 50, 200),)
    assert turned.train == (Region("only", 0, 292, 50, 1000),)
    assert "the first 200 pixels" in turned.notes[0]


def test_copies_of_a_parted_image_are_left_out_with_a_note():
    parts = split(many(1, copies=3), gap=92, seed=0)
    assert names(parts.train) == names(parts.validation) == ["s0"]
    assert any("3 augmented copies" in note for note in parts.notes)


def test_images_of_one_source_are_parted_by_name_without_their_copies():
    origins = [origin(f"s{k}", source="film") for k in range(4)]
    copy = origin("s0-aug1", source="film", augmented=True)
    parts = split([*origins, copy], gap=92, seed=0)
    assert len(parts.train) == 3
    assert len(parts.validation) == 1
    assert "s0-aug1" not in names(parts.train)
    assert "1 augmented copies" in parts.notes[0]
    assert not split(origins, gap=92, seed=0).notes


@pytest.mark.parametrize(
    ("origins", "words"),
    [
        ([origin("a", augmented=True)], "got copies alone"),
        ([origin("a", height=1, width=1)], "at least 3 pixels long, got 1"),
    ],
)
def test_what_cannot_be_split_is_refused(origins, words):
    with pytest.raises(InputError, match=words):
        split(origins, gap=92, seed=0)


@given(
    sources=st.integers(2, 20), copies=st.integers(0, 2), seed=st.integers(0, 99), data=st.data()
)
def test_folds_hold_out_every_source_once(sources, copies, seed, data):
    count = data.draw(st.integers(2, sources))
    held = []
    for number in range(1, count + 1):
        parts = split(many(sources, copies=copies), gap=92, seed=seed, fold=Fold(number, count))
        learned = {name.split("-")[0] for name in names(parts.train)}
        assert learned.isdisjoint(names(parts.validation))
        assert len(parts.train) == (copies + 1) * (sources - len(parts.validation))
        held += names(parts.validation)
    assert sorted(held) == sorted(f"s{k}" for k in range(sources))


def test_three_folds_of_three_images_leave_one_out_each():
    held = [names(split(many(3), gap=92, seed=0, fold=Fold(k, 3)).validation) for k in (1, 2, 3)]
    assert sorted(held) == [["s0"], ["s1"], ["s2"]]


@given(length=st.integers(40, 3000), count=st.integers(2, 6), gap=st.sampled_from([0, 92]))
def test_folds_of_one_image_are_parts_of_it_with_a_gap_on_each_side(length, count, gap):
    spans = []
    for number in range(1, count + 1):
        image = origin("only", height=20, width=length)
        parts = split([image], gap=gap, seed=0, fold=Fold(number, count))
        (held,) = parts.validation
        spans.append((held.x0, held.x1))
        assert parts.train
        for train in parts.train:
            assert train.x1 <= held.x0 or train.x0 >= held.x1
            apart = max(held.x0 - train.x1, train.x0 - held.x1)
            assert apart == min(gap, (length - length // count) // 4)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))


def test_more_folds_than_there_are_sources_with_something_on_them_are_refused():
    origins = [origin("a"), origin("b"), origin("c", foreground=False)]
    with pytest.raises(UsageError, match="number of sources with foreground, 2, got 3"):
        split(origins, gap=0, seed=0, fold=Fold(1, 3))
    assert names(split(origins, gap=0, seed=0, fold=Fold(1, 2)).validation) != ["c"]
    with pytest.raises(UsageError, match="at least 3 pixels of a single image of 10, got 4"):
        split([origin("a", height=5, width=10)], gap=0, seed=0, fold=Fold(1, 4))


def of_groups(counts, *, copies=0, bare=()):
    """Give so many images of each group, with copies."""
    return [
        origin(
            f"{group}_{k}{end}",
            source=f"{group}_{k}",
            group=group,
            augmented=bool(end),
            foreground=group not in bare,
        )
        for group, count in counts.items()
        for k in range(count)
        for end in ("", *(f"-aug{c}" for c in range(copies)))
    ]


@settings(max_examples=40)
@given(
    counts=st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.integers(1, 6), min_size=2),
    copies=st.integers(0, 2),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_no_group_is_on_both_sides_and_folds_hold_each_out_once(counts, copies, seed, data):
    origins = of_groups(counts, copies=copies)
    group_of = {o.name: o.group for o in origins}
    folds = data.draw(st.none() | st.integers(2, len(counts)))
    held = []
    for fold in [None] if folds is None else [Fold(n + 1, folds) for n in range(folds)]:
        parts = split(origins, gap=92, seed=seed, fold=fold)
        learned, own = (
            {group_of[name] for name in names(side)} for side in (parts.train, parts.validation)
        )
        assert learned
        assert own
        assert learned.isdisjoint(own)
        assert learned | own == set(counts)
        assert len(parts.validation) == sum(counts[group] for group in own)
        assert parts.notes == ()
        assert parts.summary.startswith("Held out by group: ")
        held += own
    if folds:
        assert sorted(held) == sorted(counts)
    else:
        assert len(held) == max(1, len(counts) // 5)


def test_the_groups_that_are_held_out_are_said():
    parts = split(of_groups({"m1": 3, "m2": 3}, bare=("m2",)), gap=92, seed=0)
    assert parts.summary == "Held out by group: m2 (3 images); 1 other group is learned from."


@pytest.mark.parametrize("images", [1, 4])
def test_a_single_group_can_not_be_held_out(images):
    with pytest.raises(InputError, match=r"at least two groups.* got 'm1' alone"):
        split(of_groups({"m1": images}, copies=1), gap=92, seed=0)
    with pytest.raises(UsageError, match="number of groups with foreground, 2, got 3"):
        split(of_groups({"a": 4, "b": 4}), gap=92, seed=0, fold=Fold(1, 3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["mouse1_a", "mouse1_b", "mouse2_a", "mouse2_b"], "2 groups (mouse1, mouse2)"),
        (["a-x-1", "a-x-2", "b-1", "c-1", "d-1", "d-2"], "4 groups (a-x, b, c, …)"),
        (["img_1", "img_2", "img_3"], None),  # all of one
        (["a_1", "b_1", "c_1"], None),  # each of its own
        (["a_1", "a_2", "b"], None),  # names of another kind
        (["_1", "_2", "a_1"], None),
    ],
)
def test_names_that_look_like_groups_on_both_sides_are_said_once(given, said):
    origins = [origin(name) for name in given]
    found = [split(origins, gap=92, seed=seed).notes for seed in range(20)]
    told = [note for notes in found for note in notes]
    assert all(said in note and "--group '(.+)[_-]'" in note for note in told)
    assert bool(told) == bool(said)
    folds = [split(origins, gap=0, seed=0, fold=Fold(n, 2)).notes for n in (1, 2)]
    assert folds[1] == ()


def test_a_suspicion_is_said_only_where_a_group_is_parted():
    origins = [origin(name) for name in ("m1_a", "m1_b", "m2_a")]
    for seed in range(9):
        parts = split(origins, gap=92, seed=seed)
        assert bool(parts.notes) == (names(parts.validation) != ["m2_a"])
    known = [origin(name, source=name[:2]) for name in ("m1_a", "m1_b", "m2_a")]
    assert split(known, gap=92, seed=0).notes == ()
