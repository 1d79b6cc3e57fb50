"""Files that only look like models: each is refused in one sentence, and none can run code."""

import ast
import io
import json
import pickle
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from unetkit.errors import InputError
from unetkit.models.model_file import load
from unetkit.models.model_header import KEY, LARGEST_HEADER, read_header

PACKAGE = Path(__file__).parents[2] / "unetkit"


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def in_memory(write):
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def zip_of(canary, *, compression=zipfile.ZIP_STORED):
    def write(stream):
        with zipfile.ZipFile(stream, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(canary))

    return in_memory(write)


def tar_of(canary):
    def write(stream):
        payload, member = pickle.dumps(canary), tarfile.TarInfo("pickle")
        member.size = len(payload)
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(member, io.BytesIO(payload))

    return in_memory(write)


def torch_file_of(canary, *, zipped=True):
    state = {"head.bias": torch.ones(2), "x": canary}
    return in_memory(partial(torch.save, state, _use_new_zipfile_serialization=zipped))


FORMATS = {
    "raw pickle": (pickle.dumps, "a Python pickle"),
    "torch": (torch_file_of, "a zip file .*pickle"),
    "old torch": (partial(torch_file_of, zipped=False), "a Python pickle"),
    "zip": (zip_of, "a zip file .*TorchScript.* hold a pickle"),
    "deflated zip": (partial(zip_of, compression=zipfile.ZIP_DEFLATED), "a zip file"),
    "tar": (tar_of, "a tar file"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("read", [load, read_header])
def test_a_pickle_in_any_wrapping_is_named_and_never_run(kind, read, tmp_path, stored, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (wrap, words), canary = FORMATS[kind], tmp_path / "canary"
    with pytest.raises(InputError, match=words):
        read(stored(wrap(Canary(canary))))
    assert not canary.exists()
    # The control: the payload does what it is feared for where somebody unpickles it.
    pickle.loads(pickle.dumps(Canary(canary))).close()
    assert canary.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused(stored):
    script = in_memory(partial(torch.jit.save, torch.jit.script(nn.Identity())))
    with pytest.raises(InputError, match=r"a zip file .*TorchScript"):
        load(stored(script))


def test_every_truncation_is_refused(small_model):
    content = small_model.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    # Every byte of the frame, and every hundredth of the weights.
    for length in [*range(header + 1), *range(header, len(content), 100), len(content) - 1]:
        small_model.write_bytes(content[:length])
        for read in (load, read_header):
            with pytest.raises(InputError, match="model file must be"):
                read(str(small_model))
    small_model.write_bytes(content + b"x")
    with pytest.raises(InputError, match="damaged"):
        load(str(small_model))


def framed(header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + data


def bad_frames():
    whole = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "a header of 2**62 bytes": (2**62).to_bytes(8, "little") + b"{",
        "a header past the limit": (LARGEST_HEADER + 1).to_bytes(8, "little") + b"{" * 100,
        "nesting": framed(b'{"a":' * 100_000),
        "overlap": framed({"a": whole, "b": whole}, bytes(8)),
        "a hole": framed({"a": whole, "b": {**whole, "data_offsets": [12, 20]}}, bytes(20)),
        "beyond the end": framed({"a": {**whole, "data_offsets": [0, 2**40]}}, bytes(8)),
        "terabytes": framed({"a": {**whole, "shape": [2**40, 2**20]}}, bytes(8)),
        "an unknown dtype": framed({"a": {**whole, "dtype": "object"}}, bytes(8)),
        "a negative size": framed({"a": {**whole, "shape": [-2]}}, bytes(8)),
        "a list": framed([1, 2]),
        "no header of ours": framed({"a": whole}, bytes(8)),
    }


@pytest.mark.parametrize("name", bad_frames())
def test_a_bomb_or_a_lie_in_the_frame_is_refused(name, stored):
    path = stored(bad_frames()[name])
    for read in (load, read_header):
        with pytest.raises(InputError, match=r"model file must be|without its header"):
            read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "../../unet"},
        {"model": "os:system"},
        {"options": {"depth": "__import__('os').getcwd()"}},
        {"options": {"_target_": "os.system"}},
    ],
)
def test_a_forged_header_is_refused(change, small_model):
    header = read_header(str(small_model)).to_dict()
    state = safetensors.torch.load(small_model.read_bytes())
    text = json.dumps({**header, **change})
    small_model.write_bytes(safetensors.torch.save(state, metadata={KEY: text}))
    with pytest.raises((InputError, RuntimeError), match="model"):
        load(str(small_model))


def test_nothing_in_the_package_can_run_what_it_reads():
    """No pickle, no eval, no torch.load; torch.export.load reads only what was just written."""
    forbidden = {"eval", "exec", "compile", "__import__", "extractall", "unsafe_load"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            # re.compile and module.eval are other things than the built-ins of these names.
            assert called not in forbidden, f"{called} in {path.name}"
            assert called not in ("torch.load", "torch.jit.load", "pickle.load", "pickle.loads")
            strict = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("strict", "True")
            assert not (called.endswith("load_state_dict") and strict != "True"), path.name
