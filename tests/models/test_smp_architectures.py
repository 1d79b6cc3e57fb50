import pytest

from unetkit.models import smp
from unetkit.models.receptive_field import receptive_field
from unetkit.models.smp import ARCHITECTURES, DEFAULT_HALO, FARTHEST, HALOS, size_contract


def test_the_twelve_networks_are_there():
    assert list(ARCHITECTURES) == [
        *("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3"),
        *("deeplabv3plus", "pan", "upernet", "segformer", "dpt"),
    ]


@pytest.mark.parametrize("name", HALOS)
def test_measured_halos_are_steps_and_not_too_far(name):
    for encoder, halo in HALOS[name].items():
        contract = size_contract(name, encoder=encoder, step=32)
        assert (contract.halo, contract.exact) == (halo, True)
        assert halo % 32 == 0
        assert halo <= FARTHEST


@pytest.mark.parametrize(
    ("name", "encoder"), [("unet", "resnet34"), ("deeplabv3", "resnet18"), ("dpt", "tu-test_vit")]
)
def test_a_network_that_was_not_measured_is_not_called_exact(name, encoder):
    contract = size_contract(name, encoder=encoder, step=16)
    assert (contract.halo, contract.exact) == (DEFAULT_HALO, False)


@pytest.mark.slow
@pytest.mark.parametrize("name", HALOS)
@pytest.mark.parametrize("encoder", HALOS["unet"])
def test_every_halo_is_what_is_measured(name, encoder):
    if encoder not in HALOS[name]:
        pytest.skip(f"{name} with {encoder} was not measured")
    options = {} if name == "linknet" else {"width": 1}
    builder = getattr(smp, f"build_{name}")
    network = builder(in_channels=1, classes=2, encoder=encoder, **options).eval()
    field = receptive_field(network, in_channels=1)
    assert field.least_need(network.contract) == network.contract.need
