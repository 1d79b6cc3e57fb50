import torch

from unetkit.models import unet
from unetkit.models.conformance import Trial, built

WISH = {"in_channels": 1, "classes": 2, "depth": 1, "width": 2}


def trial():
    module = built(unet.build, WISH, seed=0)
    options = {"depth": 1, "width": 2}
    return Trial(build=unet.build, module=module, in_channels=1, classes=2, options=options)


def test_a_seed_gives_one_network_and_takes_nobodys_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second, other = (built(unet.build, WISH, seed=s).head.weight for s in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_images_are_small_legal_the_same_and_not_square():
    batch = trial().batch(3)
    assert batch.shape == (3, 1, 34, 36)
    assert all(trial().contract.is_legal(size) for size in batch.shape[2:])
    assert torch.equal(batch, trial().batch(3))


def test_the_uneven_copy_has_no_bias_of_zero_and_leaves_the_model_alone():
    one = trial()
    assert not one.module.head.bias.any()
    uneven = one.uneven()
    assert uneven.head.bias.all()
    assert torch.equal(uneven.head.bias, one.uneven().head.bias)
    assert torch.equal(uneven.head.weight, one.module.head.weight)
    assert not one.module.head.bias.any()


def test_the_model_can_be_made_again():
    one = trial()
    assert torch.equal(one.fresh(seed=0).head.weight, one.module.head.weight)
    assert not torch.equal(one.fresh(seed=1).head.weight, one.module.head.weight)
