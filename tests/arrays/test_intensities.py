import json

import numpy as np
import pytest

from unetkit.arrays.intensities import (
    BINS,
    Typical,
    contrast_share,
    describe,
    deviations,
    typical,
)
from unetkit.errors import InputError


def picture(seed, *, size=128, blur=4, channels=1):
    """Draw smooth noise with a long tail, normalized to 0 to 1."""
    rng = np.random.default_rng(seed)
    noise = rng.random((channels, size + 4 * blur, size + 4 * blur))
    kernel = np.hanning(2 * blur + 3)[1:-1]
    for axis in (1, 2):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel, mode="valid")
    noise = np.exp(2 * noise[:, :size, :size] / noise.std())
    low, high = np.percentile(noise, (1, 99.8))
    return ((noise - low) / (high - low)).astype(np.float32)


def known(count=4, **more):
    return typical([describe([picture(seed, **more)]) for seed in range(count)])


def test_quantiles_are_those_of_numpy_over_all_blocks():
    image = picture(0, channels=2)
    found = describe([image[:, :50], image[:, 50:]])
    shares = (np.arange(BINS) + 0.5) / BINS
    expected = np.quantile(image.reshape(2, -1), shares, axis=1).T
    np.testing.assert_allclose(found.quantiles, expected, rtol=1e-6)


def test_the_grain_of_a_ramp_and_of_noise_are_known():
    ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))[None]
    assert describe([ramp]).grain == pytest.approx((1 / 8,))
    noise = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
    assert describe([noise]).grain[0] == pytest.approx(1, abs=0.02)
    assert describe([np.zeros((1, 9, 9), np.float32)]).grain == (1.0,)


def test_the_grain_does_not_change_with_contrast_and_falls_with_magnification():
    image = picture(1)
    (grain,) = describe([image]).grain
    assert describe([3 * image + 7]).grain == pytest.approx((grain,), rel=1e-4)
    large = image.repeat(4, axis=1).repeat(4, axis=2)
    assert describe([large]).grain[0] < grain / 2


def test_siblings_are_as_usual_and_an_inverted_or_a_magnified_one_is_not():
    usual = known()
    for seed in range(10, 20):
        assert deviations(usual, describe([picture(seed)])) == []
    (said,) = deviations(usual, describe([1 - picture(10)]))
    assert said.startswith("intensities are spread otherwise, by ")
    large = picture(10, size=64).repeat(4, axis=1).repeat(4, axis=2)
    said = deviations(usual, describe([large]))
    assert any("details are coarser" in one for one in said)
    fine = deviations(usual, describe([picture(10, blur=1)]))
    assert any("details are finer" in one for one in fine)


def test_noise_beyond_twice_the_usual_leaves_a_share_of_the_contrast():
    usual = known()
    most = max(describe([picture(seed)]).roughness[0] for seed in range(4))
    assert usual.roughest == (most,)
    for seed in range(10, 20):
        assert contrast_share(usual, describe([picture(seed)])) == (1.0,)
    noise = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
    # Two even numbers between 0 and 1 differ by a third, along each of two axes.
    (share,) = contrast_share(usual, describe([noise]))
    assert share == pytest.approx(2 * most / (2 / 3), rel=0.01)
    (said,) = deviations(usual, describe([share * noise]))
    assert said.startswith("noise stands out as in a field without anything on it")
    assert contrast_share(usual, describe([np.zeros((1, 64, 64), np.float32)])) == (1.0,)
    flat = typical([describe([np.zeros((1, 64, 64), np.float32)])])
    assert contrast_share(flat, describe([noise])) == (1.0,)
    older = Typical.from_dict({k: v for k, v in usual.to_dict().items() if k != "roughest"})
    assert contrast_share(older, describe([noise])) == (1.0,)


def test_the_channel_is_named_where_there_are_several():
    image = picture(10, channels=2)
    image[1] = 1 - image[1]
    (said,) = deviations(known(channels=2), describe([image]))
    assert "of channel 1" in said


def test_what_varied_among_the_known_may_vary_in_others():
    varied = [picture(0), 1 - picture(1)]
    both = typical([describe([one]) for one in varied])
    assert deviations(both, describe([picture(2)])) == []


def test_another_unit_is_told_where_exposures_varied():
    def noise(strength):
        return describe([strength * np.random.default_rng(0).random((1, 64, 64), np.float32)])

    # Weak and strong light: their spreads alone would let an image pass that is nearly black.
    varied = typical([noise(30), noise(255)])
    for strength in (20, 30, 100, 255, 300):
        assert deviations(varied, noise(strength)) == []
    (said,) = deviations(varied, noise(1))
    assert said.startswith("intensities reach over 0.9")
    assert "as if in another unit, where 29.2 was the least" in said
    (said,) = deviations(varied, noise(65535))
    assert said.startswith("intensities are spread otherwise, by ")
    # What knows no least, as models of before, is silent about the first.
    older = Typical.from_dict({k: v for k, v in varied.to_dict().items() if k != "narrowest"})
    assert older.narrowest == (0.0,)
    assert deviations(older, noise(1)) == []


def test_round_trip_through_json():
    found = known(channels=2)
    assert Typical.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


@pytest.mark.parametrize(
    "change",
    [
        {"quantiles": [[1.0]]},
        {"spread": [1.0, 2.0]},
        {"finest": None},
        {"coarsest": ["x"]},
        {"narrowest": [1.0, 2.0]},
        {"roughest": [1.0, 2.0]},
    ],
    ids=str,
)
def test_what_is_none_is_refused(change):
    with pytest.raises(InputError, match="intensities of a model file"):
        Typical.from_dict(known().to_dict() | change)
    with pytest.raises(InputError, match="'spread'"):
        Typical.from_dict({key: v for key, v in known().to_dict().items() if key != "spread"})


def test_one_value_everywhere_is_called_so_and_says_nothing_of_details():
    usual = known(3)
    black = describe([np.zeros((1, 64, 64), np.float32)])
    (said,) = deviations(usual, black)
    assert said.startswith("intensities are nearly all the same")
    # A blank image among those of the training makes no other magnification usual.
    with_blank = typical([black, *(describe([picture(seed)]) for seed in range(3))])
    assert (with_blank.finest, with_blank.coarsest) == (usual.finest, usual.coarsest)
