"""What is known of a network's features while it predicts: how large they can be, and their sign.

oneDNN's ReLU makes 0 of NaN, which is what becomes of a sum that overflows both ways: a network
that computes nonsense would say "background", and nothing would be left to refuse. So a ReLU is
computed with its convolution only where no sum can overflow. That is known of nearly every layer
without a look at its numbers: no output is larger than the largest input times the sum of weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

import torch

if TYPE_CHECKING:
    from torch import Tensor

# What is below it is far from overflowing, in float32 as in bfloat16, however it is rounded.
LIMIT = 1e37
# How features lie in memory here.
LAYOUT = torch.channels_last


@dataclass(frozen=True)
class Growth:
    """How much larger the outputs of a convolution can be than its inputs."""

    gain: float = 0.0  # times the largest input
    shift: float = 0.0  # and so much more

    @classmethod
    def of(cls, weight: Tensor, *shifts: Tensor | None) -> Growth:
        """Sum up weights (K, C, Y, X) and what is added to their outputs (K, ...)."""
        gain = weight.detach().float().abs().sum((1, 2, 3)).max()
        shift = sum(float(one.detach().float().abs().max()) for one in shifts if one is not None)
        # What is summed up here is rounded, too.
        return cls(1.01 * float(gain), 1.01 * shift)

    def beyond(self, largest: float) -> float:
        """Return what no output is above, where no input is above `largest`."""
        return self.gain * largest + self.shift


class FeatureBounds:
    """Remembers tensors, as long as somebody holds them and nobody has changed them."""

    def __init__(self) -> None:
        # By the number that Python has for a tensor, which it may give to another one later.
        self._notes: dict[int, tuple[ref[Tensor], float, bool]] = {}

    def note(self, image: Tensor, *, largest: float, positive: bool = False) -> None:
        """Remember that no number of a tensor is above `largest`, and maybe none below 0."""
        self._notes[id(image)] = ref(image), largest, positive

    def copy(self, image: Tensor, *, to: Tensor) -> None:
        """Remember of a tensor whose numbers are some of another's what is known of that one."""
        found = self._known(image)
        if found is not None:
            self._notes[id(to)] = ref(to), *found[1:]

    def is_positive(self, image: Tensor) -> bool:
        """Say whether no number of a tensor is below 0, as far as is known; none is NaN then."""
        found = self._known(image)
        return found is not None and found[2]

    def largest(self, image: Tensor) -> float:
        """Return what no number of a tensor is above; without being told, by looking."""
        found = self._known(image)
        return self.measure(image) if found is None else found[1]

    def measure(self, image: Tensor) -> float:
        """Look how large the numbers of a tensor are; infinite where one is infinite or NaN."""
        # In the order of memory: in torch's own order of the axes it takes thirty times as long.
        lying = image.movedim(1, -1) if image.is_contiguous(memory_format=LAYOUT) else image
        least, most = (float(one) for one in torch.aminmax(lying))
        largest = max(-least, most)
        largest = largest if math.isfinite(largest) else math.inf
        self.note(image, largest=largest, positive=self.is_positive(image))
        return largest

    def of_sum(self, *parts: tuple[Tensor, Growth]) -> float:
        """Return what no sum of convolutions of images is above; infinite where it may overflow.

        An image is looked at where what was known of it is not enough.
        """
        for look in (self.largest, self.measure):
            found = 0.0
            for image, growth in parts:
                found += growth.beyond(look(image))
            # NaN, of an infinite image without weights, is not below it either.
            if found < LIMIT:
                return found
        return math.inf

    def forget(self, changed: Tensor) -> None:
        """Know nothing more of what shares its memory with a tensor that was changed."""
        place = changed.untyped_storage().data_ptr()
        for number, (image, *_) in list(self._notes.items()):
            held = image()
            if held is None or held.untyped_storage().data_ptr() == place:
                del self._notes[number]

    def _known(self, image: Tensor) -> tuple[ref[Tensor], float, bool] | None:
        found = self._notes.get(id(image))
        return found if found is not None and found[0]() is image else None
