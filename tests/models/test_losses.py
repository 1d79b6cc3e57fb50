import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from unetkit.errors import UsageError
from unetkit.models.losses import weighted_cross_entropy


def draw(*, seed=0):
    source = np.random.default_rng(seed)
    logits = source.normal(size=(2, 3, 5, 4)).astype(np.float32)
    target = source.integers(0, 3, size=(2, 5, 4))
    weights = source.uniform(0, 10, size=(2, 5, 4)).astype(np.float32)
    return logits, target, weights


def loss(logits, target, weights):
    return weighted_cross_entropy(*map(torch.as_tensor, (logits, target, weights)))


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


def test_pixels_of_weight_0_change_nothing():
    logits, target, weights = draw()
    weights[:, 0] = 0
    before = loss(logits, target, weights)
    logits[:, :, 0] += 100
    target[:, 0] = 2
    assert torch.equal(loss(logits, target, weights), before)


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
