"""Predictions from and to a real S3 server and a website: the same bytes, resumable, never half."""

import os
import signal
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from unetkit.commands.augment.command import augment
from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.import_images.command import import_images
from unetkit.commands.info import info
from unetkit.commands.tile_predict.command import tile_predict
from unetkit.commands.verify import verify
from unetkit.commands.weights.command import weights
from unetkit.errors import (
    InputError,
    OutputError,
    StoppedError,
    UnavailableError,
    UsageError,
)
from unetkit.storage import urls
from unetkit.storage.datasets import open_dataset
from unetkit.storage.images import open_image
from unetkit.storage.outputs import partial_url

OPTIONS = {"tile": 16, "precision": "exact"}


def upload(folder, url):
    """Copy a folder into a store, file by file."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            urls.write(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


class Folder(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


# It tells one copy of the input from another.
FINGERPRINT = ".unetkit/fingerprint.json"


def objects(url):
    """Return what is stored below a URL."""
    return {name: urls.read(f"{url}/{name}") for name in urls.files_below(url)}


def alike(one, other, *, but=()):
    """Tell whether two predictions of copies of an image are the same."""
    assert one.keys() == other.keys()
    return all(one[name] == other[name] for name in one if name not in (FINGERPRINT, *but))


@pytest.fixture
def here(slide, kit):
    """Predict on this machine; everything that is made elsewhere must equal it."""
    output = tile_predict(slide, **OPTIONS).output
    return kit.contents(output)


@pytest.mark.usefixtures("here")
def test_a_bucket_gets_the_bytes_that_a_folder_gets(bucket, slide, here):
    source = upload(slide, f"{bucket}/slide.zarr")
    model = f"{bucket}/model.safetensors"
    urls.write(model, Path("model.safetensors").read_bytes())
    output = f"{bucket}/slide.prediction.zarr"
    report = tile_predict(source, model=model, output=output, **OPTIONS)
    assert (report.output, report.disk_free) == (output, None)
    assert alike(objects(output), here)
    assert urls.children(bucket) == ["model.safetensors", "slide.prediction.zarr", "slide.zarr"]
    again = tile_predict(source, model=model, output=output, resume=True, **OPTIONS)
    assert again.status == "nothing to do"
    # All but what is in `.unetkit`.
    assert verify(output).chunks == len(here) - 3
    assert info(output)["labels"].keys() == {"classes", "instances"}
    with pytest.raises(OutputError, match="add --overwrite"):
        tile_predict(source, model=model, output=output, **OPTIONS)
    tile_predict(source, model=model, output=output, overwrite=True, **OPTIONS)
    assert alike(objects(output), here)


def test_a_website_is_read_and_never_written_to(website, slide, here, kit):
    source, model = f"{website}/{slide}", f"{website}/model.safetensors"
    with pytest.raises(UsageError, match="-o NAME"):
        tile_predict(source, model=model, **OPTIONS)
    report = tile_predict(source, model=model, output="copy.zarr", **OPTIONS)
    # Nobody can list a website, so that nobody knows whether the input is complete.
    but = ("zarr.json", ".unetkit/chunks.jsonl")
    assert alike(kit.contents(report.output), here, but=but)
    with pytest.raises(UsageError, match="where one can write"):
        tile_predict(source, model=model, output=f"{website}/out.zarr", **OPTIONS)
    assert open_dataset(f"{website}/copy.zarr").samples[0].label_kind == "instances"


@pytest.mark.slow
def test_other_processes_find_a_bucket_too(bucket, slide, here):
    output = f"{bucket}/out.zarr"
    tile_predict(slide, output=output, scheduler="processes", workers=2, **OPTIONS)
    assert objects(output) == here


def stopped_after(tiles, kit):
    return kit.watching(tiles, lambda: signal.raise_signal(signal.SIGTERM))


def test_a_stopped_run_is_gone_on_with_and_shows_nothing_before(bucket, slide, here, kit):
    output = f"{bucket}/out.zarr"
    with pytest.raises(StoppedError, match="--resume"):
        tile_predict(slide, output=output, progress=stopped_after(5, kit), **OPTIONS)
    assert not urls.exists(output)
    with pytest.raises(InputError, match="nothing there"):
        open_image(output)
    with pytest.raises(OutputError, match="--resume goes on"):
        tile_predict(slide, output=output, **OPTIONS)
    report = tile_predict(slide, output=output, resume=True, **OPTIONS)
    assert report.tiles_reused >= 5
    assert objects(output) == here
    assert urls.children(bucket) == ["out.zarr"]


def test_a_chunk_that_was_lost_meanwhile_is_made_again(bucket, slide, here, kit):
    output = f"{bucket}/out.zarr"
    with pytest.raises(StoppedError):
        tile_predict(slide, output=output, progress=stopped_after(5, kit), **OPTIONS)
    partial = partial_url(output)
    chunk = next(name for name in urls.files_below(partial) if name.startswith("0/c/"))
    urls.write(f"{partial}/{chunk}", b"other")
    report = tile_predict(slide, output=output, resume=True, **OPTIONS)
    assert report.tiles_reused < report.tiles_total
    assert objects(output) == here


def test_a_process_that_is_killed_leaves_nothing_that_reads_as_finished(bucket, slide, here):
    output = f"{bucket}/out.zarr"
    program = (
        "import os, signal\n"
        "from unetkit.commands.tile_predict.command import tile_predict\n"
        "class Kill:\n"
        "    left = 6\n"
        "    def start(self, what, *, total): pass\n"
        "    def note(self, text): pass\n"
        "    def advance(self, parts=1, *, status=''):\n"
        "        self.left -= 1\n"
        "        if not self.left: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"tile_predict({slide!r}, output={output!r}, tile=16, precision='exact', progress=Kill())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not urls.exists(output)
    # Its lock is still there, and the process is not.
    report = tile_predict(slide, output=output, resume=True, **OPTIONS)
    assert report.tiles_reused >= 5
    assert objects(output) == here


def test_a_dataset_in_a_bucket_is_predicted_weighed_and_scored(bucket, tmp_path, kit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.model(tmp_path / "model.safetensors")
    local = kit.cells(tmp_path / "data.zarr")
    source, output = upload(local, f"{bucket}/data.zarr"), f"{bucket}/out.zarr"
    tile_predict(source, output=output, **OPTIONS)
    made = tile_predict(local, **OPTIONS).output
    assert alike(objects(output), kit.contents(made))
    there, nearby = evaluate(output, source), evaluate(made, local)
    assert there.to_dict()["overall"] == nearby.to_dict()["overall"]
    weights(source)
    weights(local)
    for far, near in zip(open_dataset(source).samples, open_dataset(local).samples, strict=True):
        np.testing.assert_array_equal(kit.read(far.weights), kit.read(near.weights))


def test_a_silent_server_is_exit_75(slide):
    nowhere = "http://127.0.0.1:1"
    with pytest.raises(UnavailableError) as caught:
        tile_predict(f"{nowhere}/slide.zarr", output="out.zarr")
    assert caught.value.exit_code == 75
    with pytest.raises(UnavailableError):
        tile_predict(slide, model=f"{nowhere}/model.safetensors")
    program = [sys.executable, "-m", "unetkit", "info", "s3://bucket/slide.zarr"]
    secret = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "swordfish"}
    env = {**os.environ, **secret, "AWS_ENDPOINT_URL": nowhere, "AWS_DEFAULT_REGION": "x"}
    done = subprocess.run(program, check=False, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, "")
    assert "must answer" in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    assert "swordfish" not in done.stderr


def test_a_publishing_that_broke_off_is_resumed_and_read_by_nobody_before(
    bucket, slide, here, monkeypatch
):
    output, real = f"{bucket}/out.zarr", urls.copy

    def half(source, target, relative):
        real(source, target, relative[: len(relative) // 2])
        raise UnavailableError("the store must answer, got nothing; try again")

    with monkeypatch.context() as patch:
        patch.setattr(urls, "copy", half)
        with pytest.raises(UnavailableError):
            tile_predict(slide, output=output, **OPTIONS)
    assert urls.files_below(output)
    with pytest.raises(InputError):
        open_image(output)
    report = tile_predict(slide, output=output, resume=True, **OPTIONS)
    assert report.tiles_reused == report.tiles_total
    assert objects(output) == here


def test_datasets_are_made_in_a_bucket(lab, bucket):
    source, more = f"{bucket}/data.zarr", f"{bucket}/more.zarr"
    import_images(str(lab / "images"), source, labels=str(lab / "masks"))
    augment(source, more, copies=1)
    made = open_dataset(more)
    assert len(made.samples) == 2 * len(open_dataset(source).samples)
    assert all(sample.label_kind == "instances" for sample in made.samples)
    assert urls.children(bucket) == ["data.zarr", "more.zarr"]
    with pytest.raises(OutputError, match="must lie apart"):
        augment(source, f"{source}/more.zarr", copies=1)
    with pytest.raises(OutputError, match="bucket does not exist; create the bucket first"):
        import_images(str(lab / "images"), f"{bucket}-none/data.zarr")


def test_a_server_that_goes_away_is_no_damage(tmp_path, kit):
    kit.image(tmp_path / "slide.zarr", (40, 40))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Folder, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        data = open_image(f"http://127.0.0.1:{server.server_address[1]}/slide.zarr").data
        first = data.read(0, 0, 32, 0, 32)
        chunk = tmp_path / "slide.zarr" / "0" / "c" / "0" / "0"
        kept = chunk.read_bytes()
        chunk.write_bytes(b"damaged")
        with pytest.raises(InputError, match="rows 0:32, columns 0:32"):
            data.read(0, 0, 32, 0, 32)
        chunk.write_bytes(kept)
        np.testing.assert_array_equal(data.read(0, 0, 32, 0, 32), first)
        server.shutdown()
        thread.join()
    with pytest.raises(UnavailableError, match="Cannot connect"):
        data.read(0, 0, 32, 0, 32)
