import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from unetkit.errors import InputError, UsageError
from unetkit.models.losses import LOSSES, parse_loss, weighted_cross_entropy


def draw(*, seed=0):
    source = np.random.default_rng(seed)
    logits = source.normal(size=(2, 3, 5, 4)).astype(np.float32)
    target = source.integers(0, 3, size=(2, 5, 4))
    weights = source.uniform(0, 10, size=(2, 5, 4)).astype(np.float32)
    return logits, target, weights


def loss(logits, target, weights):
    return weighted_cross_entropy(*map(torch.as_tensor, (logits, target, weights)))


def one(text, data=None, **more):
    return parse_loss(text)(*map(torch.as_tensor, data or draw()), **more)


def test_equals_equation_1_over_the_pixels_that_count():
    logits, target, weights = draw()
    weights[0, :2] = 0
    chosen = np.take_along_axis(log_softmax(logits, axis=1), target[:, None], axis=1)[:, 0]
    expected = -(weights * chosen).sum() / (weights > 0).sum()
    assert loss(logits, target, weights).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_twice_the_weight_is_twice_the_loss():
    logits, target, weights = draw()
    once, twice = loss(logits, target, weights), loss(logits, target, 2 * weights)
    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-6)


def test_no_pixel_that_counts_gives_0_and_a_gradient_of_0():
    logits, target, weights = map(torch.as_tensor, draw())
    logits.requires_grad_()
    value = weighted_cross_entropy(logits, target, torch.zeros_like(weights))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_large_logits_stay_finite_and_low_precision_is_lifted():
    logits, target, weights = draw()
    assert loss(1e4 * logits, target, weights).isfinite()
    low = loss(torch.as_tensor(logits).bfloat16(), target, weights)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(loss(logits, target, weights).item(), rel=0.02)


def test_shapes_that_do_not_fit_are_refused():
    logits, target, weights = draw()
    with pytest.raises(UsageError, match=r"shape \(2, 5, 4\) like the logits, got \(2, 4, 4\)"):
        loss(logits, target[:, 1:], weights)
    with pytest.raises(UsageError, match="cut them to the model's output"):
        loss(logits, target, weights[:1])


def test_a_sum_is_the_sum_of_its_parts():
    parts = [0.7 * one(name) for name in LOSSES]
    text = "+".join(f"0.7*{name}" for name in LOSSES)
    assert one(text).item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)
    assert len({round(part.item(), 5) for part in parts}) == len(parts)
    # It is written in one way.
    assert str(parse_loss(" 1.0*unet +  0.50 * dice")) == "unet+0.5*dice"


def test_weights_count_in_the_cross_entropy_of_the_paper_alone():
    logits, target, weights = draw()
    data, even = (logits, target, weights), (logits, target, np.ones_like(weights))
    assert one("unet", data) != one("unet", even)
    assert torch.equal(one("unet", even), one("ce", data))
    assert all(torch.equal(one(name, data), one(name, even)) for name in LOSSES[1:])


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_no_loss_and_get_no_gradient(name):
    logits, target, weights = draw()
    weights[0, 1:3] = 0
    before = one(name, (logits, target, weights))
    changed = torch.as_tensor(logits.copy())
    changed[0, :, 1:3] += 7
    changed.requires_grad_()
    target[0, 1:3] = 2 - target[0, 1:3]
    after = one(name, (changed, target, weights))
    assert torch.equal(after, before)
    after.backward()
    assert (changed.grad[0, :, 1:3] == 0).all()
    assert (changed.grad[0, :, 3:] != 0).any()
    # Where they do count, they make a difference.
    assert one(name, (changed.detach(), target, np.ones_like(weights))) != before


def test_dice_and_jaccard_are_one_minus_the_overlap_of_probabilities():
    logits, target, weights = draw()
    probabilities = np.exp(log_softmax(logits, axis=1))
    truth = np.eye(3)[target].transpose(0, 3, 1, 2)
    both, either = (f(probabilities, truth).sum(axis=(2, 3)) for f in (np.multiply, np.add))
    expected = (1 - 2 * both / either).mean(), (1 - both / (either - both)).mean()
    found = one("dice", (logits, target, weights)), one("jaccard", (logits, target, weights))
    assert [f.item() for f in found] == pytest.approx(expected, rel=1e-4)


def test_focal_is_that_of_the_soft_max():
    logits, target, weights = draw()
    weights[0, 2:] = 0
    chosen = np.take_along_axis(log_softmax(logits, axis=1), target[:, None], axis=1)[:, 0]
    each = -((1 - np.exp(chosen)) ** 2) * chosen
    expected = np.mean([each[k][weights[k] > 0].mean() for k in (0, 1)])
    assert one("focal", (logits, target, weights)).item() == pytest.approx(expected, rel=1e-5)
    # As any function of the soft-max it knows no common offset of all logits.
    moved = one("focal", (logits + 3, target, weights)).item()
    assert moved == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("text", ["unet+0.5*dice", "lovasz", "ce+focal"])
def test_the_parts_of_a_batch_sum_up_to_its_loss(text):
    logits, target, weights = draw()
    weights[0, 2:] = 0
    counted = int((weights > 0).sum())
    data = logits, target, weights
    whole, tiles = one(text, data).item(), [[a[k : k + 1] for a in data] for k in (0, 1)]
    parts = [one(text, tile, pixels=counted, tiles=2) for tile in tiles]
    assert sum(parts).item() == pytest.approx(whole, rel=1e-5)
    # Without the counts they would not.
    assert sum(one(text, tile) for tile in tiles).item() != pytest.approx(whole, rel=1e-2)


def test_a_tile_without_a_pixel_that_counts_adds_nothing():
    logits, target, weights = draw()
    weights[1] = 0
    first = one("dice", (logits[:1], target[:1], weights[:1]))
    assert one("dice", (logits, target, weights)).item() == pytest.approx(first.item() / 2)


@pytest.mark.parametrize(
    "text", ["", "dise", "unet+", "unet+unet", "-1*dice", "0*ce", "nan*ce", "x*ce", "2*", "unet-ce"]
)
def test_what_is_no_loss_is_refused_naming_those_that_are(text):
    with pytest.raises(UsageError, match=r"of unet, ce, dice, .*got '") as caught:
        parse_loss(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", LOSSES)
def test_a_negative_weight_is_refused(name):
    logits, target, weights = draw()
    weights[1, 2, 3] = -0.5
    with pytest.raises(InputError, match=r"weights of a loss must be 0 or more, got -0\.5"):
        one(name, (logits, target, weights))
