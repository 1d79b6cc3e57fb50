import shutil
import subprocess
import sys

import pytest

from unetkit.commands.models import check_model, list_models, show_model
from unetkit.errors import MissingError, ResourceError, UsageError
from unetkit.models.conformance import CHECKS

SMALL = ("depth=1", "width=2")


def test_the_list_names_who_offers_what():
    listed = {row["name"]: row for row in list_models()}
    assert list(listed) == sorted(listed)
    assert listed["unet"]["distribution"] == "unetkit"
    assert listed["unet"]["status"] == "installed"
    assert listed["unet"]["version"]


def test_an_installed_model_is_described_at_the_options_asked_for():
    shown = show_model("unet")
    assert (shown["parameters"], shown["contract"]["need"]) == (31030658, 92)
    small = show_model("unetkit/unet", options=SMALL)
    assert small["name"] == "unet"
    assert small["contract"]["need"] == 8
    options = {row["name"]: row for row in small["options"]}
    assert (options["width"]["value"], options["width"]["takes"]) == (2, "a whole number")
    assert options["width"]["meaning"].startswith("Channels of the first level")


def test_a_file_is_described_as_it_was_trained(small_model):
    shown = show_model(str(small_model))
    assert (shown["name"], shown["in_channels"], shown["classes"]) == ("unet", 1, 2)
    assert {row["name"]: row["value"] for row in shown["options"]}["depth"] == 1
    with pytest.raises(MissingError):
        show_model(str(small_model.with_name("nothing.safetensors")))


def test_what_is_not_there_is_told():
    with pytest.raises(UsageError, match="did you mean 'unet'"):
        show_model("unett")
    with pytest.raises(UsageError, match="options: depth=4"):
        check_model("unet", options=("wide=3",))
    for look in (show_model, check_model):
        with pytest.raises(UsageError, match="options must be set for an installed model"):
            look("some.safetensors", options=("width=3",))


def test_a_check_tells_of_every_rule(small_model):
    for report in (check_model("unet", options=SMALL), check_model(str(small_model))):
        assert report.holds
        assert report.broken == ()
        document = report.to_dict()
        assert [row["check"] for row in document["findings"]] == list(CHECKS)
        assert (document["holds"], document["options"]["depth"]) == (True, 1)


def test_a_plugin_that_breaks_a_rule_is_found_out(lay):
    lay(
        "proud-nets",
        {"unetkit.models": {"proud": "build"}},
        code="""
import torch
from unetkit import SizeContract

class Proud(torch.nn.Conv2d):
    contract = SizeContract(step=1, minimum=4)

def build(*, in_channels, classes):
    return Proud(in_channels, classes, 3, padding=1)
""",
    )
    report = check_model("proud")
    assert report.broken == ("context", "tiling")
    assert report.to_dict()["holds"] is False


def test_a_model_file_whose_plugin_is_gone_says_what_to_install(small_model, lay):
    from unetkit.models.model_file import load, to_bytes
    from unetkit.models.model_header import ModelHeader

    lay(
        "good-nets",
        {"unetkit.models": {"good": "build"}},
        version="1.2",
        code="from unetkit.models.unet import build",
    )
    loaded = load(str(small_model))
    header = ModelHeader(**{**vars(loaded.header), "model": "good", "distribution": ""})
    path = small_model.with_name("good.safetensors")
    header = ModelHeader(**{**vars(header), "version": ""})
    path.write_bytes(to_bytes(loaded.module, header))
    assert show_model(str(path))["distribution"] == "good-nets"
    shutil.rmtree(lay.folder / "good_nets-1.2.dist-info")
    for look in (show_model, check_model):
        with pytest.raises(ResourceError, match=r"needs model 'good' of good-nets 1\.2, which"):
            look(str(path))


def test_the_list_takes_no_torch():
    code = (
        "import sys; from unetkit.cli.app import main; main(['models', '--json'])\n"
        "print([name for name in ('torch', 'numba', 'zarr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert '"unet"' in done.stdout
