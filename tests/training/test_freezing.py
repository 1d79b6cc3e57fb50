import pytest

from unetkit.errors import UsageError
from unetkit.training.freezing import freeze, unfreeze_after


class Network:
    frozen = False

    def freeze_encoder(self):
        self.frozen = True

    def unfreeze_encoder(self):
        self.frozen = False


@pytest.mark.parametrize("steps", [1, 3])
def test_the_encoder_is_frozen_for_the_first_batches(steps):
    network = Network()
    freeze(network, model="smp-unet", steps=steps)
    seen = [(b, network.frozen) for b in unfreeze_after(network, iter("abcde"), steps=steps)]
    assert seen == [(b, k < steps) for k, b in enumerate("abcde")]


def test_without_a_wish_nothing_is_touched():
    network = object()
    freeze(network, model="unet", steps=0)
    assert list(unfreeze_after(network, iter("abc"), steps=0)) == ["a", "b", "c"]


def test_a_model_without_an_encoder_is_refused():
    with pytest.raises(UsageError, match=r"freeze-encoder must be 0 for model 'unet'.*got 5;"):
        freeze(object(), model="unet", steps=5)


@pytest.mark.parametrize(("start", "frozen"), [(1, [1, 1, 0]), (3, [0, 0, 0]), (9, [0, 0, 0])])
def test_a_later_start_thaws_at_the_same_step(start, frozen):
    network = Network()
    freeze(network, model="smp-unet", steps=3)
    batches = unfreeze_after(network, iter("abc"), steps=3, start=start)
    assert [network.frozen for _ in batches] == frozen
