"""The twelve networks of segmentation-models-pytorch behind the size contract."""

from __future__ import annotations

import warnings
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import LocalEntryNotFoundError

from unetkit.errors import SurroundingsError, UsageError
from unetkit.models.encoder_decoder import EncoderDecoder, drop_idle, settle
from unetkit.models.encoder_weights import load_encoder
from unetkit.models.smp_architectures import ARCHITECTURES, Architecture, size_contract

if TYPE_CHECKING:
    from collections.abc import Callable


def build(
    architecture: str,
    *,
    in_channels: int,
    classes: int,
    encoder: str,
    encoder_weights: str = "none",
    width: int = 0,
) -> EncoderDecoder:
    """Build one of the networks.

    Parameters
    ----------
    architecture : str
        One of `ARCHITECTURES`.
    in_channels : int
        Channels of the image.
    classes : int
        Classes that the last layer tells apart, at least 2.
    encoder : str
        Name of the encoder.
    encoder_weights : str
        ``none``, ``imagenet`` or a .safetensors file.
    width : int
        Channels of the decoder.

    Returns
    -------
    EncoderDecoder

    Raises
    ------
    UsageError
        If a value is out of its range, or the encoder can't serve this network.
    InputError
        If the file of weights does not fit.
    SurroundingsError
        If ImageNet weights can't be fetched.
    """
    plan = ARCHITECTURES[architecture]
    ranges = {
        "in_channels": (in_channels >= 1, "at least 1", in_channels),
        "classes": (classes >= 2, "at least 2", classes),
        "width": (width >= 1 or not plan.width, "at least 1", width),
    }
    for name, (holds, rule, value) in ranges.items():
        if not holds:
            raise UsageError(
                f"{name} of model 'smp-{architecture}' must be {rule}, got {value};"
                " choose one in that range"
            )
    _check_weights(encoder_weights)
    network = _network(plan, architecture, encoder=encoder, width=width, of=(in_channels, classes))
    contract = size_contract(architecture, encoder=encoder, step=network.encoder.output_stride)
    drop_idle(network, torch.zeros(1, in_channels, contract.minimum, contract.minimum))
    if encoder_weights == "imagenet":
        load_encoder(network.encoder, fetch(encoder))
    elif encoder_weights != "none":
        load_encoder(network.encoder, encoder_weights)
    return EncoderDecoder(network, contract, in_channels=in_channels)


def fetch(encoder: str) -> str:
    """Return a local copy of an encoder's ImageNet weights, from the model hub or its cache.

    Parameters
    ----------
    encoder : str
        Name of the encoder.

    Returns
    -------
    str
        The path of a .safetensors file.

    Raises
    ------
    UsageError
        If nobody published such weights.
    SurroundingsError
        If the hub can't be reached and the cache does not have them.
    """
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
        raise SurroundingsError(
            "encoder_weights=imagenet needs the model hub or what it left in its cache, got"
            f" {type(error).__name__}; connect once, or copy model.safetensors of"
            f" https://huggingface.co/{home} here and set encoder_weights=FILE.safetensors"
        ) from error


def _network(
    plan: Architecture, architecture: str, *, encoder: str, width: int, of: tuple[int, int]
) -> Any:
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
    settle(network)
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


def _with_width(architecture: str) -> Callable[..., EncoderDecoder]:
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

    return _described(build_it, architecture, _WIDTH)


def _without_width(architecture: str) -> Callable[..., EncoderDecoder]:
    plan = ARCHITECTURES[architecture]

    def build_it(
        *,
        in_channels: int,
        classes: int,
        encoder: str = plan.encoder,
        encoder_weights: str = "none",
    ) -> EncoderDecoder:
        return build(
            architecture,
            in_channels=in_channels,
            classes=classes,
            encoder=encoder,
            encoder_weights=encoder_weights,
        )

    return _described(build_it, architecture, "")


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


def _described(
    build_it: Callable[..., EncoderDecoder], architecture: str, more: str
) -> Callable[..., EncoderDecoder]:
    # Under the name that the module has for it, it can be pickled and shows well.
    build_it.__name__ = build_it.__qualname__ = f"build_{architecture}"
    build_it.__doc__ = _OPTIONS.format(name=f"smp-{architecture}") + more
    return build_it


build_unet = _with_width("unet")
build_unetplusplus = _with_width("unetplusplus")
build_manet = _with_width("manet")
build_linknet = _without_width("linknet")
build_fpn = _with_width("fpn")
build_pspnet = _with_width("pspnet")
build_deeplabv3 = _with_width("deeplabv3")
build_deeplabv3plus = _with_width("deeplabv3plus")
build_pan = _with_width("pan")
build_upernet = _with_width("upernet")
build_segformer = _with_width("segformer")
build_dpt = _with_width("dpt")
