"""The twelve networks of segmentation-models-pytorch behind the size contract.

What they take is known at once; the library is loaded, with torch, when one of them is built.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.errors import ResourceError, UsageError
from unetkit.geometry.sizes import SizeContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.models.encoder_decoder import EncoderDecoder

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
# Options that a model file stores in place of those that it was built with: its encoder's first
# weights need not be fetched again.
REBUILT_WITH = {"encoder_weights": "none"}


@dataclass(frozen=True)
class Architecture:
    """What is particular to one of the networks."""

    kind: str  # the name of its class there
    encoder: str = "resnet18"
    width: int = 0  # the channels of its decoder; 0 where they follow from the encoder
    # Turns a width into the keywords that the class knows.
    decoder: Callable[[int], dict[str, Any]] = field(default=lambda _: {})
    step: int = 0  # the pooling grid, where the class does not tell it
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

    `step` is how many pixels one position of the encoder's coarsest grid stands for. The halo is
    measured, and the contract ``exact``, where `HALOS` has one; else it is `DEFAULT_HALO`.

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


def build(
    architecture: str,
    *,
    in_channels: int,
    classes: int,
    encoder: str,
    encoder_weights: str = "none",
    width: int = 0,
) -> EncoderDecoder:
    """Build one of `ARCHITECTURES`, as the entry points below do, with options as these say."""
    import torch

    from unetkit.models import encoder_decoder
    from unetkit.models.build import check_ranges

    plan = ARCHITECTURES[architecture]
    given = {"in_channels": in_channels, "classes": classes}
    check_ranges(f"smp-{architecture}", **given, **({"width": width} if plan.width else {}))
    _check_weights(encoder_weights)
    network = _network(plan, architecture, encoder=encoder, width=width, of=(in_channels, classes))
    contract = size_contract(architecture, encoder=encoder, step=network.encoder.output_stride)
    smallest = torch.zeros(1, in_channels, contract.minimum, contract.minimum)
    encoder_decoder.drop_unused_layers(network, smallest)
    if encoder_weights == "imagenet":
        encoder_decoder.load_encoder(network.encoder, fetch(encoder))
    elif encoder_weights != "none":
        encoder_decoder.load_encoder(network.encoder, encoder_weights)
    built = encoder_decoder.EncoderDecoder(network, contract, in_channels=in_channels)
    built.rebuilt_with = REBUILT_WITH
    return built


def fetch(encoder: str) -> str:
    """Return the path of an encoder's ImageNet weights, from the model hub or its cache."""
    import segmentation_models_pytorch as smp
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    home, revision = None, None
    if encoder.startswith("tu-"):
        # timm raises where a name has a tag of which it knows no weights.
        with suppress(RuntimeError):
            published = timm.models.get_pretrained_cfg(encoder.removeprefix("tu-"))
            home = published and published.hf_hub_id
    else:
        kinds = smp.encoders.encoders[encoder]["pretrained_settings"]
        home, revision = (kinds.get("imagenet", {}).get(key) for key in ("repo_id", "revision"))
    if not home:
        raise UsageError(
            f"encoder_weights must be none or a .safetensors file for encoder {encoder!r}, got"
            " imagenet; nobody published such weights"
        )
    name = "model.safetensors"
    try:
        with suppress(LocalEntryNotFoundError):
            return str(hf_hub_download(home, name, revision=revision, local_files_only=True))
        # Asked once: without a network, the download itself tries again and again, aloud.
        get_hf_file_metadata(hf_hub_url(home, name, revision=revision))
        return str(hf_hub_download(home, name, revision=revision))
    # Without a network the client fails in as many ways as there are proxies and caches.
    except Exception as error:
        raise ResourceError(
            "encoder_weights=imagenet needs the model hub or what it left in its cache, got"
            f" {type(error).__name__}; connect once, or copy model.safetensors of"
            f" https://huggingface.co/{home} here and set encoder_weights=FILE.safetensors"
        ) from error


def _network(
    plan: Architecture, architecture: str, *, encoder: str, width: int, of: tuple[int, int]
) -> Any:
    import segmentation_models_pytorch as smp

    from unetkit.models.encoder_decoder import remove_size_dependence

    _check_encoder(encoder)
    in_channels, classes = of
    try:
        with warnings.catch_warnings():
            # Names that begin with "timm-" are deprecated there, and still the only ones of some.
            warnings.simplefilter("ignore")
            network = getattr(smp, plan.kind)(
                encoder_name=encoder,
                encoder_weights=None,
                in_channels=in_channels,
                classes=classes,
                **plan.decoder(width),
            )
    except (ValueError, KeyError, NotImplementedError, AttributeError, TypeError) as error:
        raise UsageError(
            f"encoder of model 'smp-{architecture}' must be one that it can use, got {encoder!r}"
            f" ({error!s:.150}); try {plan.encoder}"
        ) from error
    # Not all of the classes do so themselves; without it a head's offset can hide its classes.
    network.initialize()
    remove_size_dependence(network)
    return network


def _check_weights(weights: str) -> None:
    """Refuse a word that is neither one of ours nor could be a file."""
    words = ("none", "imagenet")
    if weights in words or weights.endswith(".safetensors") or Path(weights).exists():
        return
    near = get_close_matches(weights, words, n=1)
    raise UsageError(
        f"encoder_weights must be none, imagenet or a .safetensors file, got {weights!r};"
        f" {f'did you mean {near[0]}?' if near else 'leave it out to start from chance'}"
    )


def _check_encoder(encoder: str) -> None:
    """Refuse a name that neither library has."""
    import segmentation_models_pytorch as smp
    import timm

    known = smp.encoders.encoders
    if encoder in known or (
        encoder.startswith("tu-") and timm.is_model(encoder.removeprefix("tu-").partition(".")[0])
    ):
        return
    near = get_close_matches(encoder, [*known, *(f"tu-{name}" for name in timm.list_models())], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "try resnet18, vgg16_bn or mit_b0"
    raise UsageError(
        f"encoder must be one of segmentation-models-pytorch, or tu- and one of timm, got"
        f" {encoder!r}; {hint}"
    )


def _builder(architecture: str) -> Callable[..., EncoderDecoder]:
    """Return what the entry point of a network names, its own defaults in its signature."""
    plan = ARCHITECTURES[architecture]

    def build_it(
        *,
        in_channels: int,
        classes: int,
        encoder: str = plan.encoder,
        encoder_weights: str = "none",
        width: int = plan.width,
    ) -> EncoderDecoder:
        return build(
            architecture,
            in_channels=in_channels,
            classes=classes,
            encoder=encoder,
            encoder_weights=encoder_weights,
            width=width,
        )

    # Under the name that the module has for it, it can be pickled and shows well.
    build_it.__name__ = build_it.__qualname__ = f"build_{architecture}"
    # A model file's options are these, whatever it says, so that it can't make anybody fetch.
    build_it.rebuilt_with = REBUILT_WITH  # type: ignore[attr-defined]
    build_it.__doc__ = _OPTIONS.format(name=f"smp-{architecture}") + (_WIDTH if plan.width else "")
    if not plan.width:
        own = signature(build_it)
        known = [parameter for name, parameter in own.parameters.items() if name != "width"]
        build_it.__signature__ = own.replace(parameters=known)  # type: ignore[attr-defined]
    return build_it


_OPTIONS = """Build {name} of segmentation-models-pytorch, padded, with fresh weights.

Parameters
----------
in_channels : int
    Channels of the image.
classes : int
    Classes that the last layer tells apart, at least 2.
encoder : str
    An encoder of segmentation-models-pytorch, such as resnet18, or one of timm after tu-.
encoder_weights : str
    The encoder's first weights: none (chance), imagenet (fetched once from the model hub), or a
    .safetensors file, for which no network is needed.
"""
_WIDTH = """width : int
    Channels of the decoder, of its last level where they differ; fewer are faster.
"""


build_unet = _builder("unet")
build_unetplusplus = _builder("unetplusplus")
build_manet = _builder("manet")
build_linknet = _builder("linknet")
build_fpn = _builder("fpn")
build_pspnet = _builder("pspnet")
build_deeplabv3 = _builder("deeplabv3")
build_deeplabv3plus = _builder("deeplabv3plus")
build_pan = _builder("pan")
build_upernet = _builder("upernet")
build_segformer = _builder("segformer")
build_dpt = _builder("dpt")
