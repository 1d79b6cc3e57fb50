from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetkit.errors import UsageError
from unetkit.models import unet
from unetkit.options import complete, options_of, parse_texts
from unetkit.registry import Registry

if TYPE_CHECKING:
    from decimal import Decimal


def build(
    *,
    in_channels: int,
    classes: int,
    width: int = 8,
    rate: float = 0.5,
    padded: bool = False,
    norm: Literal["batch", "none"] = "none",
    encoder: str | None = None,
    limit: Optional[int] = 3,  # noqa: UP045 - plugins may still write it so
    **rest: Any,
) -> None:
    """Stand for a model with an option of every kind."""


def parse(*texts: str) -> dict[str, Any]:
    return parse_texts(texts, build, model="m")


def test_options_are_read_off_the_signature() -> None:
    assert list(options_of(build)) == ["encoder", "limit", "norm", "padded", "rate", "width"]
    assert [str(o) for o in options_of(unet.build).values()] == [
        "depth=4",
        "dropout=0.5",
        "norm=none",
        "width=64",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("width=16", 16),
        ("width = 16", 16),
        ("width=-3", -3),
        ("rate=1", 1.0),
        ("rate=1e-3", 0.001),
        ("padded=true", True),
        ("padded=No", False),
        ("padded=1", True),
        ("norm=batch", "batch"),
        ("encoder=resnet18", "resnet18"),
        ("encoder=a=b", "a=b"),
        ("encoder=none", None),
        ("limit=none", None),
        ("limit=7", 7),
    ],
)
def test_a_text_becomes_a_value_of_the_options_type(text: str, value: object) -> None:
    (parsed,) = parse(text).values()
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("width=wide", "a whole number, got 'wide'"),
        ("width=1.5", "a whole number"),
        ("width=", "a whole number"),
        ("rate=fast", "a number"),
        ("rate=nan", "a number"),
        ("rate=inf", "a number"),
        ("padded=maybe", "true or false"),
        ("norm=group", "one of batch, none"),
        ("limit=few", "none or a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused_and_the_options_listed(text: str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"of model 'm' must be {rule}.*options: .*width=8"):
        parse(text)


def test_an_unknown_option_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        parse_texts(["widht=16"], unet.build, model="unet")
    assert str(caught.value) == (
        "option must be one that model 'unet' has, got 'widht';"
        " did you mean 'width'? options: depth=4, dropout=0.5, norm=none, width=64"
    )


@pytest.mark.parametrize("name", ["in_channels", "classes", "rest", "self"])
def test_what_commands_give_is_no_option(name: str) -> None:
    with pytest.raises(UsageError, match=f"got '{name}'"):
        parse(f"{name}=3")


@pytest.mark.parametrize("texts", [["width"], ["width=1", "width=2"], [""]])
def test_an_option_is_set_once_with_an_equals_sign(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="must be set once as key=value"):
        parse(*texts)


def test_defaults_are_added_and_types_checked() -> None:
    full = complete({"width": 4, "rate": 1}, build, model="m")
    assert full == {
        "encoder": None,
        "limit": 3,
        "norm": "none",
        "padded": False,
        "rate": 1,
        "width": 4,
    }


@pytest.mark.parametrize(
    "values",
    [
        {"width": "4"},
        {"width": True},
        {"width": 4.0},
        {"width": None},
        {"rate": math.nan},
        {"rate": True},
        {"padded": 1},
        {"norm": "group"},
        {"norm": None},
        {"encoder": ["a"]},
    ],
)
def test_a_stored_value_of_another_type_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"option {next(iter(values))} of model 'm' must be"):
        complete(values, build, model="m")
    with pytest.raises(UsageError, match="got 'depth'"):
        complete({"depth": 4}, build, model="m")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "width": st.integers(),
            "rate": st.floats(allow_nan=False, allow_infinity=False),
            "padded": st.booleans(),
            "norm": st.sampled_from(["batch", "none"]),
            "limit": st.none() | st.integers(),
        },
    )
)
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    assert parse(*(f"{name}={value}" for name, value in values.items())) == values
    assert values.items() <= complete(values, build, model="m").items()


def test_a_required_option_must_be_given() -> None:
    def needy(*, in_channels: int, classes: int, backbone: str) -> None: ...

    with pytest.raises(UsageError, match="option backbone of model 'm' must be given"):
        complete({}, needy, model="m")
    assert complete({"backbone": "x"}, needy, model="m") == {"backbone": "x"}
    with pytest.raises(UsageError, match=r"options: backbone \(required\)"):
        parse_texts(["x=1"], needy, model="m")


def test_annotations_that_can_not_be_read_give_way_to_defaults() -> None:
    def shy(*, in_channels: int, classes: int, rate: Decimal = 0.5, name=None, kind: Decimal): ...  # type: ignore

    assert parse_texts(["rate=0.25", "kind=a"], shy, model="m") == {"rate": 0.25, "kind": "a"}


def test_a_choice_may_be_none() -> None:
    def picky(*, norm: Literal["a", 2] | None = None) -> None: ...

    assert parse_texts(["norm=None"], picky, model="m") == {"norm": None}
    assert parse_texts(["norm=2"], picky, model="m") == {"norm": 2}
    with pytest.raises(UsageError, match="one of a, 2, None"):
        complete({"norm": "2"}, picky, model="m")


def test_the_docstring_explains_the_options() -> None:
    def told(*, in_channels: int, width: int = 3, low: float = 0.0, high: float = 1.0) -> None:
        """Build it.

        Parameters
        ----------
        in_channels : int
            Channels.
        width : int
            How wide it is,
            at every level.

            Wider is slower.
        low, high : float
            Ends of the range.

        Returns
        -------
        nothing
            width : int
        """

    meanings = {name: option.meaning for name, option in options_of(told).items()}
    assert meanings == {
        "width": "How wide it is, at every level. Wider is slower.",
        "low": "Ends of the range.",
        "high": "Ends of the range.",
    }
    assert {o.meaning for o in options_of(lambda *, width=3: None).values()} == {""}


def test_every_option_of_our_own_models_is_explained() -> None:
    registry = Registry("unetkit.models", noun="model")
    own = [name for name, entry in registry.entries() if entry.is_own]
    for name in own:
        assert all(option.meaning for option in options_of(registry.get(name)).values()), name
