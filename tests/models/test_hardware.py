import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from unetkit.errors import ResourceError, UsageError
from unetkit.models import hardware
from unetkit.models.hardware import (
    PRECISIONS,
    computing,
    forward,
    lay_out,
    low_precision,
    pick_device,
    thread_count,
    tune_allocator,
)
from unetkit.models.unet import build

CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return build(in_channels=1, classes=2, depth=2, width=8).eval()


def predict(module, image, precision):
    with torch.inference_mode():
        return forward(module, image, precision=precision)


def test_the_words_for_devices():
    assert pick_device("cpu") == CPU
    best = "cuda" if torch.cuda.is_available() else "mps" if hardware._has_mps() else "cpu"
    assert pick_device("auto").type == best
    # One that is not there is the surroundings' fault.
    with pytest.raises(ResourceError, match=r"got 'cuda:99' with .* use --device cpu"):
        pick_device("cuda:99")


@pytest.mark.parametrize("name", ["gpu", "", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "mps:1", "CPU"])
def test_a_word_that_names_no_device_is_refused(name):
    with pytest.raises(UsageError, match="device must be auto, cpu, cuda, cuda:NUMBER or mps"):
        pick_device(name)


def test_low_precision_is_offered_only_where_the_processor_has_it(monkeypatch):
    facts = {"avx512_bf16": False, "amx_bf16": False, "avx2": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
    assert low_precision(CPU) is None
    facts["amx_bf16"] = True
    assert low_precision(CPU) == "bfloat16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert low_precision(CPU) is None


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), None)]
)
def test_low_precision_of_a_gpu_goes_by_its_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert low_precision(torch.device("cuda")) == expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_are_float32_and_near_those_in_double(precision):
    module, image = network(), torch.randn(2, 1, 60, 52)
    with torch.no_grad():
        true = network().double()(image.double())
        logits = forward(module, image, precision=precision)
    assert (logits.dtype, logits.is_contiguous()) == (torch.float32, True)
    gap = ((logits - true).abs().max() / true.abs().max().clamp(min=1)).item()
    assert gap < {"exact": 1e-5, "float32": 1e-5, "float16": 0.01, "bfloat16": 0.05}[precision]


def test_exact_has_the_same_bits_after_other_precisions_and_with_other_threads():
    module, image = network(), torch.randn(1, 1, 60, 52)
    threads = torch.get_num_threads()
    first, _ = (predict(module, image, precision) for precision in ("exact", "float32"))
    try:
        torch.set_num_threads(threads + 1)
        again = predict(module, image, "exact")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, again)


def test_exact_has_the_same_bits_while_other_threads_use_other_precisions():
    run = partial(predict, network(), torch.randn(1, 1, 60, 52))
    expected = run("exact")
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, ["exact", "float32", "bfloat16"] * 6))
    assert all(torch.equal(r, expected) for r in results[::3])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_that_predicted_in_inference_mode_can_still_learn(precision):
    module, image = network().train(), torch.randn(1, 1, 44, 44)
    with torch.inference_mode():
        forward(module, image, precision=precision)
    assert not any(p.is_inference() for p in module.parameters())
    forward(module, image, precision=precision).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_layout_follows_the_precision_and_keeps_the_parameters():
    module = network()
    kernels = [p for p in module.parameters() if p.dim() == 4]
    lay_out(module, precision="float32")
    before = [p.stride() for p in module.parameters()]
    with torch.no_grad():
        forward(module, torch.zeros(1, 1, 44, 44), precision="float32")
        assert [p.stride() for p in module.parameters()] == before
        assert all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
        forward(module, torch.zeros(1, 1, 44, 44), precision="exact")
    assert all(k.is_contiguous() for k in kernels)
    now = [p for p in module.parameters() if p.dim() == 4]
    assert all(a is b for a, b in zip(kernels, now, strict=True))


def test_the_allocator_is_tuned_once_and_only_with_glibc(monkeypatch):
    assert tune_allocator() == (platform.libc_ver()[0] == "glibc")
    assert tune_allocator() is tune_allocator()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    assert tune_allocator.__wrapped__() is False


FAULTS = """
import resource, sys, threading
import torch
from unetkit.models import hardware

def again():
    # Both are large enough that glibc would map them each time; the second fits where the first
    # one was, whatever small things came to lie beside it.
    torch.zeros(32 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(24 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "tuned":
    hardware.tune_allocator()
thread = threading.Thread(target=again)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is nothing to tune")
def test_a_thread_keeps_the_pages_of_a_large_tensor(run_python):
    # 96 MiB are 48 pages even of the largest kind.
    assert int(run_python(FAULTS, "tuned")) < 24 < int(run_python(FAULTS, "untuned"))


LARGE = """
import re, resource, sys
from pathlib import Path
from unetkit.models import hardware

if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_DATA, (2**33, resource.getrlimit(resource.RLIMIT_DATA)[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asked = hardware.ask_for_large_pages()
maps = Path("/proc/self/smaps").read_text()
parts = re.findall(r"Size: +([0-9]+) kB[^-]*?VmFlags:([^\\n]*)", maps)
large = sum(int(size) for size, flags in parts if "hg" in flags.split())
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(int(asked), large * 1024 > 2**30, used < 2**15)
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir() or platform.libc_ver()[0] != "glibc",
    reason="the kernel has no large pages to give, or there is no glibc to ask for them",
)
def test_large_pages_are_asked_for_and_not_taken(run_python):
    assert run_python(LARGE, "free").split() == ["1", "True", "True"]
    # A limit would count them from the start.
    assert run_python(LARGE, "limited").split()[:2] == ["0", "False"]


def test_threads_are_shared_out_among_workers(monkeypatch):
    monkeypatch.setattr(hardware, "processor_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [thread_count(n) for n in (0, 1, 2, 3, 8, 20)] == [8, 8, 4, 2, 1, 1]
    assert thread_count() == 8


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("9", 4), ("", 4), ("many", 4), ("0", 4)])
def test_threads_are_no_more_than_those_asked_of_openmp(monkeypatch, text, count):
    monkeypatch.setattr(hardware, "processor_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == count


def test_two_threads_may_lay_out_a_model_at_once():
    module, image = network(), torch.randn(1, 1, 44, 44)
    expected = predict(module, image, "exact")
    together = threading.Barrier(4)

    def run(_):
        together.wait(30)
        return predict(module, image, "float32")

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(run, range(4)):
            torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_forward_runs_any_module_and_one_in_double_in_double():
    logits = forward(nn.Identity(), torch.ones(1, 2, 3, 4), precision="float32")
    assert torch.equal(logits, torch.ones(1, 2, 3, 4))
    module = network().double()
    found = forward(module, torch.zeros(1, 1, 44, 44).double(), precision="float32")
    assert found.dtype == torch.float64


needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU of NVIDIA here"
)


def test_a_gpu_is_not_woken_up_to_give_nothing_back():
    before = torch.cuda.is_initialized()
    hardware.free_unused("cpu")
    assert torch.cuda.is_initialized() == before


@needs_gpu
def test_what_torch_keeps_of_a_gpu_is_given_back():
    torch.zeros(2**26, device="cuda")
    kept = torch.cuda.memory_reserved()
    hardware.free_unused("cuda")
    assert torch.cuda.memory_reserved() < kept


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_batch_arrives_whole(kind):
    device, batch = torch.device(kind), torch.rand(2, 1, 700, 700)
    there = hardware.upload(batch, device)
    assert there.device.type == kind
    assert torch.equal((there * 2).cpu(), batch * 2)


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
        exact, product = precision == "exact", torch.ones(2, 2) @ torch.ones(2, 2)
        assert torch.backends.mkldnn.enabled != exact
        assert torch.are_deterministic_algorithms_enabled() == exact
        if precision in ("exact", "float32"):
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert product.dtype == torch.float32
        else:
            assert product.dtype == getattr(torch, precision)
    assert settings() == before
    with pytest.raises(KeyError), computing(CPU, precision):
        raise KeyError
    assert settings() == before


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
    words = "one of exact, float32, bfloat16, float16, got 'double'"
    with pytest.raises(UsageError, match=words), computing(CPU, "double"):
        pass
    with pytest.raises(UsageError, match="precision must be one of"):
        forward(network(), torch.zeros(1, 1, 44, 44), precision="auto")
