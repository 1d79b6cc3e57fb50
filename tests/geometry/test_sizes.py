import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import InputError, UsageError
from unetkit.geometry.sizes import SizeContract

CLASSIC = SizeContract(step=16, minimum=188, margin=92)
PADDED = SizeContract(step=32, minimum=32, halo=96, exact=False)


@st.composite
def contracts(draw):
    margin = draw(st.integers(0, 40))
    return SizeContract(
        step=draw(st.integers(1, 33)),
        minimum=2 * margin + draw(st.integers(1, 20)),
        margin=margin,
        halo=draw(st.integers(0, 40)),
        exact=draw(st.booleans()),
    )


def test_the_papers_own_numbers():
    assert CLASSIC.output(572) == 388
    assert CLASSIC.need == 92
    assert [n for n in range(400) if CLASSIC.is_legal(n)] == list(range(188, 400, 16))
    assert {CLASSIC.output(n) % 16 for n in range(188, 1000, 16)} == {4}


@given(contracts(), st.integers(-50, 400))
def test_legal_is_the_smallest_legal_size_that_holds_n(contract, n):
    legal = contract.legal(n)
    brute = next(m for m in range(max(n, 0), 2000) if contract.is_legal(m))
    assert legal == brute


@given(contracts(), st.integers(0, 9))
def test_legal_sizes_are_a_row_from_the_minimum(contract, k):
    size = contract.minimum + k * contract.step
    assert contract.is_legal(size)
    assert contract.output(size) == size - 2 * contract.margin >= 1
    assert not contract.is_legal(contract.minimum - contract.step)


@pytest.mark.parametrize(
    ("size", "tries"), [(573, "572 or 588"), (100, "try 188"), (187, "try 188"), (-3, "try 188")]
)
def test_output_of_an_illegal_size_names_the_legal_ones(size, tries):
    with pytest.raises(UsageError, match=f"got {size};.*{tries}"):
        CLASSIC.output(size)


def test_tile_off_the_step_is_refused_with_two_that_fit():
    with pytest.raises(UsageError) as caught:
        CLASSIC.check_tile(500, model="unet")
    assert str(caught.value) == (
        "tile must be a multiple of 16 for model 'unet', got 500; try 496 or 512"
    )
    for tile in (0, -16, 7):
        with pytest.raises(UsageError, match=rf"got {tile}; try 16$"):
            CLASSIC.check_tile(tile, model="unet")


@given(contracts(), st.integers(-9, 200))
def test_tile_is_accepted_only_on_the_step(contract, tile):
    if tile > 0 and tile % contract.step == 0:
        contract.check_tile(tile, model="m")
    else:
        with pytest.raises(UsageError, match="multiple of"):
            contract.check_tile(tile, model="m")


def test_overlap_below_the_need_is_refused_naming_it():
    with pytest.raises(UsageError) as caught:
        CLASSIC.overlap(64, model="unet")
    assert str(caught.value) == (
        "overlap must be at least 92 for model 'unet', got 64; leave it out to use 92"
    )
    with pytest.raises(UsageError, match="got 91"):
        CLASSIC.overlap(91, model="unet")
    with pytest.raises(UsageError, match="at least 96"):
        PADDED.overlap(95, model="padded")


def test_overlap_left_out_is_the_need_and_more_keeps_the_phase():
    assert CLASSIC.overlap(None, model="unet") == 92
    assert [CLASSIC.overlap(n, model="unet") for n in (92, 93, 108, 109)] == [92, 108, 108, 124]
    assert PADDED.overlap(97, model="padded") == 128


@given(contracts(), st.integers(0, 100))
def test_overlap_is_the_next_one_in_phase(contract, more):
    got = contract.overlap(contract.need + more, model="m")
    assert (got - contract.need) % contract.step == 0
    assert 0 <= got - contract.need - more < contract.step


@given(contracts())
def test_dict_round_trip(contract):
    assert SizeContract.from_dict(contract.to_dict()) == contract


@pytest.mark.parametrize(
    "change",
    [
        {"step": "16"},
        {"step": True},
        {"step": 16.0},
        {"exact": 1},
        {"margin": None},
        {"more": 1},
        {"step": 0},
        {"margin": 94},
        {"halo": -1},
    ],
)
def test_a_stored_contract_that_can_not_be_one_is_refused(change):
    with pytest.raises(InputError, match="size contract must"):
        SizeContract.from_dict({**CLASSIC.to_dict(), **change})


def test_a_stored_contract_with_a_field_missing_is_refused():
    stored = CLASSIC.to_dict()
    del stored["halo"]
    with pytest.raises(InputError, match="must hold"):
        SizeContract.from_dict(stored)


@pytest.mark.parametrize(
    "numbers",
    [
        {"step": 0, "minimum": 4},
        {"step": 2, "minimum": 0},
        {"step": 2, "minimum": 4, "margin": 2},
        {"step": 2, "minimum": 4, "margin": -1},
        {"step": 2, "minimum": 4, "halo": -1},
    ],
)
def test_impossible_contracts_are_refused(numbers):
    with pytest.raises(UsageError, match="of a size contract must be at least"):
        SizeContract(**numbers)
