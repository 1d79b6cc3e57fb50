"""Which input sizes a model takes and what comes out; knows whole numbers only, no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from unetkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class SizeContract:
    """The sizes that a model takes along y and along x: ``minimum + k * step``.

    ::

        |<-------------------- input: a legal size --------------------->|
        |<- margin ->|<---------------- output ------------->|<- margin ->|
                     |<- halo ->|<---- trusted ---->|<- halo ->|
        |<-------- need ------->|                   |<------- need ------>|

    Parameters
    ----------
    step : int
        Distance between legal sizes, and the grid on which tile origins lie, in pixels.
    minimum : int
        Smallest legal size, in pixels.
    margin : int
        Pixels that the output is smaller than the input, on each side.
    halo : int
        Pixels of the output that are not to be trusted, on each side.
    exact : bool
        True where tiling with `need` pixels of context and origins on the step grid equals one
        pass over the whole image.

    Raises
    ------
    UsageError
        If the numbers can't belong to a model.

    Examples
    --------
    The network of Ronneberger, Fischer, Brox (2015), figure 1:

    >>> classic = SizeContract(step=16, minimum=188, margin=92)
    >>> classic.output(572), classic.legal(573), classic.need
    (388, 588, 92)
    """

    step: int
    minimum: int
    margin: int = 0
    halo: int = 0
    exact: bool = True

    def __post_init__(self) -> None:
        least = {"step": 1, "margin": 0, "halo": 0, "minimum": 2 * max(self.margin, 0) + 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value < bound:
                raise UsageError(
                    f"{name} of a size contract must be at least {bound}, got {value};"
                    " state the sizes that the model really takes"
                )

    @property
    def need(self) -> int:
        """Pixels of context that a tile needs on each side."""
        return self.margin + self.halo

    def is_legal(self, n: int) -> bool:
        """Say whether the model takes `n` pixels along an axis."""
        return n >= self.minimum and (n - self.minimum) % self.step == 0

    def legal(self, n: int) -> int:
        """Return the smallest size of at least `n` pixels that the model takes."""
        return self.minimum + max(0, -((self.minimum - n) // self.step)) * self.step

    def read_size(self, tile: int, overlap: int) -> int:
        """Return what the model reads to write `tile` pixels with that context on each side."""
        return self.legal(tile + 2 * overlap)

    def output(self, n: int) -> int:
        """Return how many pixels come out where `n` go in.

        Raises
        ------
        UsageError
            If the model does not take `n` pixels.
        """
        if not self.is_legal(n):
            above = self.legal(n)
            below = above - self.step
            tries = f"{below} or {above}" if self.is_legal(below) else f"{above}"
            raise UsageError(
                f"input size must be {self.minimum} or a multiple of {self.step} more,"
                f" got {n}; try {tries}"
            )
        return n - 2 * self.margin

    def check_tile(self, tile: int, *, model: str) -> None:
        """Refuse a tile size that would break the phase of the model's pooling.

        Parameters
        ----------
        tile : int
            Size of the tiles' write boxes, in pixels; also the distance of their origins.
        model : str
            Name of the model, for the message.

        Raises
        ------
        UsageError
            If `tile` is not a positive multiple of `step`.
        """
        if tile > 0 and tile % self.step == 0:
            return
        below = tile // self.step * self.step
        tries = f"{below} or {below + self.step}" if below > 0 else f"{self.step}"
        raise UsageError(
            f"tile must be a multiple of {self.step} for model {model!r}, got {tile}; try {tries}"
        )

    def overlap(self, requested: int | None, *, model: str) -> int:
        """Return the context that a tile gets on each side.

        Parameters
        ----------
        requested : int, optional
            Context on each side that was asked for, in pixels; left out: `need`.
        model : str
            Name of the model, for the message.

        Returns
        -------
        int
            `requested` rounded up to ``need + k * step``, so that the phase holds.

        Raises
        ------
        UsageError
            If `requested` is less than `need`.
        """
        if requested is None:
            return self.need
        if requested < self.need:
            raise UsageError(
                f"overlap must be at least {self.need} for model {model!r}, got {requested};"
                f" leave it out to use {self.need}"
            )
        return self.need + -((self.need - requested) // self.step) * self.step

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SizeContract:
        """Rebuild a contract from what `to_dict` returned.

        Raises
        ------
        InputError
            If `stored` lacks a field, has another one, or holds what is not a whole number.
        """
        kinds = {field.name: bool if field.name == "exact" else int for field in fields(cls)}
        found = {name: type(value) for name, value in stored.items()}
        if found != kinds:
            raise InputError(
                f"a stored size contract must hold {', '.join(kinds)}, got {dict(stored)!r:.200};"
                " write it again with this version of unetkit"
            )
        try:
            return cls(**stored)
        except UsageError as error:
            raise InputError(str(error)) from error


def are_proportional(size: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Tell whether an array may show a whole image at another scale.

    A scale that rounds, as levels of a pyramid do, makes it a pixel longer or shorter.

    Parameters
    ----------
    size, whole : tuple of int
        Height and width of the array and of the image, in pixels.

    Examples
    --------
    >>> are_proportional((13, 25), (100, 200)), are_proportional((13, 25), (200, 100))
    (True, False)
    """
    (high, wide), (height, width) = size, whole
    return abs(high * width - wide * height) <= height + width
