import threading

import pytest
import torch

from unetkit.errors import UsageError
from unetkit.models.hardware import PRECISIONS, computing

CPU = torch.device("cpu")


def settings():
    return (
        torch.backends.mkldnn.enabled,
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cuda.matmul.fp32_precision,
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_setting_is_put_back_also_after_an_error(precision):
    before = settings()
    with computing(CPU, precision):
        assert settings() != before
    assert settings() == before
    with pytest.raises(KeyError), computing(CPU, precision):
        raise KeyError
    assert settings() == before


def test_exact_switches_onednn_off_and_float32_keeps_it():
    with computing(CPU, "exact"):
        assert not torch.backends.mkldnn.enabled
        assert torch.are_deterministic_algorithms_enabled()
    with computing(CPU, "float32"):
        assert torch.backends.mkldnn.enabled
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_autocast(precision):
    with computing(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == getattr(torch, precision)


def test_a_thread_that_leaves_does_not_undo_the_setting_of_one_inside():
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with computing(CPU, "exact"):
            inside.set()
            leave.wait(30)

    before = settings()
    thread = threading.Thread(target=stay)
    with computing(CPU, "exact"):
        thread.start()
        assert inside.wait(30)
    assert not torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    leave.set()
    thread.join()
    assert settings() == before


def test_an_unknown_precision_is_refused():
    with (
        pytest.raises(UsageError, match="one of exact, float32, bfloat16, float16, got 'double'"),
        computing(CPU, "double"),
    ):
        pass
