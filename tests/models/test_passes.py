import torch

from unetkit.models import unet
from unetkit.models.inference import logits_of, share, tile_gap, tiled_pass, whole_pass


def test_whole_pass_is_one_pass_over_the_mirrored_image():
    torch.manual_seed(0)
    network = unet.build(in_channels=1, classes=2, depth=1, width=2).eval()
    image = torch.randn(1, 5, 6)
    mirrored = image
    for axis in (1, 2):
        # 8 pixels of mirror on 5: torch itself mirrors less than the image's size at once.
        index = [abs(i) % (2 * (image.shape[axis] - 1)) for i in range(-8, image.shape[axis] + 9)]
        last = image.shape[axis] - 1
        mirrored = mirrored.index_select(axis, torch.tensor([min(i, 2 * last - i) for i in index]))
    mirrored = mirrored[:, : 5 + 16 + 1, : 6 + 16]
    with torch.no_grad():
        expected = network(mirrored[None])[0, :, :5, :6]
    torch.testing.assert_close(whole_pass(network, image, overlap=8), expected)
    assert torch.equal(
        tiled_pass(network, image, tile=8, overlap=8), whole_pass(network, image, overlap=8)
    )


def test_logits_keep_no_gradients():
    network = unet.build(in_channels=1, classes=2, depth=1, width=2).eval()
    logits = logits_of(network, torch.zeros(1, 1, 18, 18), precision="float32")
    assert logits.shape == (1, 2, 2, 2)
    assert not logits.requires_grad


def test_a_tile_equals_its_strip_on_the_step_grid_alone():
    torch.manual_seed(0)
    network = unet.build(in_channels=1, classes=2, depth=2, width=2).eval()
    for axis in (2, 3):
        assert tile_gap(network, in_channels=1, axis=axis, start=8) == 0
        assert tile_gap(network, in_channels=1, axis=axis, start=9) > 0.01


def test_a_small_difference_of_small_logits_is_no_large_share():
    assert share(torch.tensor([-0.5, 0.1]), of=torch.tensor([0.2])) == 0.5
    assert share(torch.tensor([-0.5, 0.1]), of=torch.tensor([-5.0])) == 0.1
