"""Fixtures that many tests share: real microscopy, and a folder as a lab has it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings
from PIL import Image

ROOT = Path(__file__).parents[1]

# Tests run side by side, one core each; torch reads this when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What one test measured is not remembered by the next, nor by whoever runs them.
os.environ["UNETKIT_CACHE_DIR"] = os.devnull

# Nothing is timed by a test: a busy machine is no fault of the code. What runs unattended draws
# the same cases each time; at a desk they are drawn anew.
settings.register_profile(
    "unetkit",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unetkit")


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal():
    """Undo what `nohup` or a background job of a shell did to the signals that tests send."""
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    }
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def test_data():
    """Return the folder of real microscopy that `UNETKIT_TEST_DATA` names; without it, skip."""
    folder = os.environ.get("UNETKIT_TEST_DATA")
    if not folder:
        pytest.skip("UNETKIT_TEST_DATA is not set, so there is no real microscopy to test on")
    return Path(folder)


class Faults:
    """Lets the operating system refuse: an audit hook is asked before each call of its kind.

    Hooks can't be taken away again, hence one that does nothing outside a test's block.
    """

    def __init__(self):
        self.plans: list[tuple[str, str, int, list[int]]] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def at(self, event, path, number, *, times=10**9):
        """Refuse the next `times` events whose first argument holds `path`."""
        self.plans.append((event, path, number, [times]))
        try:
            yield
        finally:
            self.plans.pop()

    def _hook(self, event, arguments):
        for name, path, number, left in self.plans:
            if event == name and left[0] and path in str(arguments[0]):
                left[0] -= 1
                raise OSError(number, os.strerror(number), str(arguments[0]))


@pytest.fixture(scope="session")
def faults():
    """Return what lets opening, renaming or removing files fail."""
    return Faults()


def lay_lab(folder):
    """Lay out five images, their masks, and a slide with its truth."""
    data = ROOT / "unetkit" / "data"
    image = np.asarray(Image.open(data / "demo_image.png"))
    labels = np.asarray(Image.open(data / "demo_labels.png"))
    for name in ("images", "masks", "big_masks"):
        (folder / name).mkdir()
    for k in range(5):
        window = np.s_[: 128 + 8 * k, 70 * k : 70 * k + 140]
        Image.fromarray(image[window]).save(folder / "images" / f"cells{k}.png")
        Image.fromarray(labels[window]).save(folder / "masks" / f"cells{k}.png")
    tifffile.imwrite(folder / "big.tif", image, tile=(128, 128), compression="zlib")
    Image.fromarray(labels).save(folder / "big_masks" / "big.png")
    return folder


@pytest.fixture
def lab(tmp_path):
    """Return a folder with five images, their masks, and a slide with its truth."""
    return lay_lab(tmp_path)


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory):
    """Return such a folder for all tests of a module."""
    return lay_lab(tmp_path_factory.mktemp("lab"))


class Layer:
    """Lays distributions on disk as an installer would, where Python finds them."""

    def __init__(self, folder):
        self.folder = folder
        self.modules: list[str] = []

    def __call__(self, distribution, points, *, version="0.1", code="", more=""):
        """Lay one: its entry points by group and name, and the code of its only module."""
        module = distribution.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(text)
        lines = [
            f"[{group}]\n" + "".join(f"{name} = {module}:{what}\n" for name, what in named.items())
            for group, named in points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + more)
        sys.modules.pop(module, None)
        self.modules.append(module)
        return module


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Return what lays plugins on disk; they are gone after the test."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    layer = Layer(folder)
    yield layer
    for module in layer.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def small_model(tmp_path):
    """Return a model file of the narrowest classic network, untrained."""
    import torch

    from unetkit.models.build import build_model
    from unetkit.models.model_file import to_bytes
    from unetkit.models.model_header import ModelHeader

    torch.manual_seed(0)
    options = {"depth": 1, "width": 2}
    module = build_model("unet", in_channels=1, classes=2, options=options)
    header = ModelHeader(
        model="unet",
        options=options,
        in_channels=1,
        class_names=("background", "foreground"),
        target="foreground",
        contract=module.contract,
        normalization="percentile",
    )
    path = tmp_path / "small.safetensors"
    path.write_bytes(to_bytes(module, header))
    return path


@pytest.fixture(scope="session")
def _s3_server():
    """Run an S3 server in a process of its own, and return where it answers."""
    program = (
        "import sys\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n"
        "server.start()\n"
        "print(*server.get_host_and_port(), sep=':', flush=True)\n"
        # It ends with whoever started it, however that ends.
        "sys.stdin.read()\n"
        "server.stop()\n"
    )
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", program], text=True, **streams) as server:
        yield f"http://{server.stdout.readline().strip()}"
        server.stdin.close()


_BUCKETS = itertools.count()


@pytest.fixture
def bucket(_s3_server, monkeypatch):
    """Return the URL of an empty bucket on a real S3 server, reached as a user would reach it."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Clients are kept by their arguments, and one made before knows other keys.
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"unetkit-{os.getpid()}-{next(_BUCKETS)}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def website(tmp_path):
    """Serve the folder of the test over HTTP, for reading only, and return its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
