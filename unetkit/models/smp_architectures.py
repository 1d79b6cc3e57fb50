"""What is particular to each network of segmentation-models-pytorch, in numbers; imports none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unetkit.geometry.sizes import SizeContract

if TYPE_CHECKING:
    from collections.abc import Callable

# The least context on each side with which tiles equal one pass over the whole image, measured by
# `unetkit.models.receptive_field`; it is the same for every width. Only networks that look at
# their surroundings and nothing else have such a number (no attention, no squeeze-and-excitation,
# no pooling of the whole tile, no group norm), and only those that need at most FARTHEST pixels
# are listed.
HALOS = {
    "unet": {
        "mobilenet_v2": 320,
        "mobileone_s0": 320,
        "resnet18": 288,
        "tu-test_resnet": 160,
        "tu-tf_mobilenetv3_small_minimal_100": 256,
        "vgg11_bn": 192,
        "vgg16_bn": 224,
    },
    "unetplusplus": {
        "mobilenet_v2": 320,
        "mobileone_s0": 320,
        "resnet18": 288,
        "tu-test_resnet": 160,
        "tu-tf_mobilenetv3_small_minimal_100": 256,
        "vgg11_bn": 128,
    },
    "linknet": {
        "mobilenet_v2": 288,
        "mobileone_s0": 288,
        "resnet18": 256,
        "tu-test_resnet": 128,
        "tu-tf_mobilenetv3_small_minimal_100": 224,
        "vgg11_bn": 96,
        "vgg16_bn": 128,
    },
    "segformer": {
        "mobilenet_v2": 288,
        "mobileone_s0": 288,
        "resnet18": 256,
        "tu-test_resnet": 128,
        "tu-tf_mobilenetv3_small_minimal_100": 224,
        "vgg11_bn": 96,
        "vgg16_bn": 128,
    },
}
FARTHEST = 320
# What every other network gets, which is then not exact. Our own choice: beyond it a tile of 512
# pixels would compute each pixel more than four times.
DEFAULT_HALO = 256
# Two positions are left on the coarsest grid, so that batch norm has more than one value.
MINIMUM = 64


@dataclass(frozen=True)
class Architecture:
    """What is particular to one of the networks.

    Parameters
    ----------
    kind : str
        The name of its class there.
    encoder : str
        The encoder that it has when none is named.
    width : int
        The channels of its decoder; 0 where they follow from the encoder.
    decoder : callable
        Turns a width into the keywords that the class knows.
    step : int
        The pooling grid, where the class does not tell it.
    minimum : int
        Smallest input.
    """

    kind: str
    encoder: str = "resnet18"
    width: int = 0
    decoder: Callable[[int], dict[str, Any]] = field(default=lambda _: {})
    step: int = 0
    minimum: int = MINIMUM


def _five_levels(width: int) -> dict[str, Any]:
    return {"decoder_channels": tuple(width * 2**level for level in (4, 3, 2, 1, 0))}


def _one_width(width: int) -> dict[str, Any]:
    return {"decoder_channels": width}


ARCHITECTURES = {
    "unet": Architecture("Unet", width=16, decoder=_five_levels),
    "unetplusplus": Architecture("UnetPlusPlus", width=16, decoder=_five_levels),
    "manet": Architecture(
        "MAnet",
        width=16,
        decoder=lambda width: {**_five_levels(width), "decoder_pab_channels": 4 * width},
    ),
    "linknet": Architecture("Linknet"),
    # Group norm splits the channels of the second number into 32 groups.
    "fpn": Architecture(
        "FPN",
        width=256,
        decoder=lambda width: {
            "decoder_pyramid_channels": width,
            "decoder_segmentation_channels": max(32, width // 64 * 32),
        },
    ),
    "pspnet": Architecture("PSPNet", width=512, decoder=lambda w: {"psp_out_channels": w}),
    "deeplabv3": Architecture("DeepLabV3", width=256, decoder=_one_width),
    "deeplabv3plus": Architecture("DeepLabV3Plus", width=256, decoder=_one_width),
    # Its attention halves the coarsest grid, 1/16 of the input, three times.
    "pan": Architecture("PAN", width=32, decoder=_one_width, minimum=128),
    "upernet": Architecture("UPerNet", width=256, decoder=_one_width),
    "segformer": Architecture(
        "Segformer", width=256, decoder=lambda w: {"decoder_segmentation_channels": w}
    ),
    # The decoder halves the transformer's grid of patches of 16 once more.
    "dpt": Architecture(
        "DPT",
        encoder="tu-vit_small_patch16_224",
        width=256,
        decoder=lambda width: {
            "decoder_fusion_channels": width,
            "decoder_intermediate_channels": (width, 2 * width, 4 * width, 4 * width),
            "dynamic_img_size": True,
        },
        step=32,
    ),
}


def size_contract(architecture: str, *, encoder: str, step: int) -> SizeContract:
    """Return the sizes that a network takes and the context that it needs.

    Parameters
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    encoder : str
        Name of the encoder.
    step : int
        How many pixels one position of the encoder's coarsest grid stands for.

    Returns
    -------
    SizeContract
        With a measured halo and ``exact`` where `HALOS` has one, else with `DEFAULT_HALO`.

    Examples
    --------
    >>> size_contract("unet", encoder="resnet18", step=32).need
    288
    """
    plan = ARCHITECTURES[architecture]
    halo = HALOS.get(architecture, {}).get(encoder)
    return SizeContract(
        step=plan.step or step,
        minimum=plan.minimum,
        halo=halo or DEFAULT_HALO,
        exact=halo is not None,
    )
