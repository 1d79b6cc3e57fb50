import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from unetkit.training import distributed
from unetkit.training.distributed import SINGLE, ProcessGroup, init_distributed

# Trains the classic network for 20 steps in float64 and writes down its weights.
SCRIPT = """
import json, os, sys
import numpy as np, torch
from dataclasses import replace
from itertools import islice
from unetkit.arrays.normalization import Normalization
from unetkit.models.build import build_model
from unetkit.training.block_cache import BlockCache
from unetkit.training.trainer import Trainer
from unetkit.training.distributed import init_distributed
from unetkit.training.recipes import RECIPES
from unetkit.training.sampler import TrainingSample
from unetkit.training.sampler import ClassCounts
from unetkit.training.sampler import Sampler
from unetkit.training.split import Region

class Memory:
    def __init__(self, array):
        self.array, (self.planes, *_, self.height, self.width) = array, array.shape
    def read(self, plane, y0, y1, x0, x1):
        return self.array[plane, ..., y0:y1, x0:x1].copy()

rng = np.random.default_rng(0)
image = rng.random((1, 1, 60, 60), dtype=np.float32)
target = (image[:, 0] > 0.5).astype(np.uint8)
weights = rng.random((1, 60, 60), dtype=np.float32)
weights[:, :20, :35] = 0
planes = (Memory(a) for a in (image, target, weights))
class_counts = ClassCounts(np.array([[0, 0, 0, 60, 60]]), np.bincount(target[weights > 0])[None])
same = Normalization("none", (0.0,), (1.0,))
sample = TrainingSample(*planes, normalization=same, class_counts=class_counts)
recipe = replace(RECIPES["default"], batch=4, tile=16, loss="unet+0.5*ce")
with init_distributed(torch.device("cpu")) as group:
    torch.manual_seed(0)
    network = build_model("unet", in_channels=1, classes=2,
                   options={"depth": 1, "width": 4, "dropout": 0.0,
                            "norm": os.environ.get("NORM", "none")}).double()
    sampler = Sampler({"a": sample}, [Region("a", 0, 0, 60, 60)], contract=network.contract,
                      recipe=recipe, cache=BlockCache(), seed=3, group=group)
    trainer = Trainer(network, recipe, precision="float32", group=group,
                      accumulate=int(os.environ.get("PARTS", "1")))
    with sampler.batches(workers=1) as batches:
        losses = [trainer.learn(batch, rate=1e-3) for batch in islice(batches, 20)]
    shares = group.highest(len(sampler.batch(0).images))
    sent = group.first_bytes(b"hello" if group.is_main else None)
    nothing = group.first_bytes(None)
    if group.is_main:
        found = torch.cat([p.detach().reshape(-1) for p in trainer.average.tensors.values()])
        said = {"size": group.size, "losses": losses, "weights": found.tolist()}
        said |= {"share": shares, "sent": sent.decode(), "nothing": nothing}
        json.dump(said, open(sys.argv[1], "w"))
"""


def train(folder, name, *, processes=1, **environment):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    front = [sys.executable]
    if processes > 1:
        front += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*front, str(script), str(folder / name)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / name).read_text())


def test_two_processes_equal_one_in_float64(tmp_path):
    one, two = train(tmp_path, "one"), train(tmp_path, "two", processes=2)
    assert (one["size"], two["size"]) == (1, 2)
    assert (one["share"], two["share"]) == (4, 2)
    assert (two["sent"], two["nothing"]) == ("hello", None)
    assert len(np.asarray(one["losses"])) == 20
    for name in ("losses", "weights"):
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-9)
    # Nor do the parts in which a batch is computed make a difference.
    parts = train(tmp_path, "parts", PARTS="3")
    np.testing.assert_allclose(parts["weights"], one["weights"], rtol=0, atol=1e-9)
    # The control: weights moved, and float32 would not agree as well.
    assert np.ptp(np.asarray(one["losses"])) > 1e-3


def test_batch_normalization_sees_the_tiles_of_all_processes(tmp_path):
    one = train(tmp_path, "one", NORM="batch")
    two = train(tmp_path, "two", processes=2, NORM="batch")
    for name in ("losses", "weights"):
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-9)
    # The control: parts of a batch that are normalized each for itself lead elsewhere.
    parts = train(tmp_path, "parts", NORM="batch", PARTS="2")
    assert not np.allclose(parts["weights"], one["weights"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(5, 2), (4, 4), (7, 3)])
def test_shares_are_all_there_is_and_nearly_equal(count, size):
    shares = [list(ProcessGroup(rank, size).share(count)) for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    SINGLE.sum_gradients([weight])
    assert weight.grad.tolist() == [1, 2]
    assert (SINGLE.total(3.0), SINGLE.highest(2.0), SINGLE.first([1.0, 2.0])) == (3, 2, [1, 2])
    assert SINGLE.first_bytes(b"a") == b"a"
    with init_distributed(torch.device("cpu")) as group:
        assert (group.size, group.is_main) == (1, True)


def test_the_end_waits_until_what_was_sent_is_let_go(monkeypatch):
    held = []
    tensor = torch.arange(3.0)
    # Other tests of this process may have sent something.
    distributed._settle()
    # As the thread of gloo does, which needs the interpreter to let go of what it sent.
    distributed._send(tensor, lambda sent: held.append(sent.mul_(2)))
    assert tensor.tolist() == [0.0, 2.0, 4.0]
    (sent,) = distributed._sent
    letting_go = threading.Timer(0.2, held.clear)
    letting_go.start()
    distributed._settle()
    assert sent() is None
    assert not distributed._sent
    letting_go.join()
    # The control: what is never let go doesn't hold the end up for ever.
    monkeypatch.setattr(distributed, "SETTLE_S", 0.01)
    distributed._send(tensor, held.append)
    (sent,) = distributed._sent
    distributed._settle()
    assert sent() is held[0]
