import json

from unetkit.cli.app import main
from unetkit.progress import noted_if_slow

SMALL = ["--set", "depth=1", "--set", "width=2"]


def test_models_are_listed_as_a_table_and_as_a_list_of_objects(typed):
    assert "unet" in typed(["models"]).out
    listed = json.loads(typed(["models", "--json"]).out)
    assert "unet" in [row["name"] for row in listed]
    assert set(listed[0]) == {"name", "distribution", "version", "status"}


def test_a_model_is_shown_with_its_options(typed):
    out = typed(["models", "show", "unet", *SMALL]).out
    assert "Channels of the first level" in out
    assert json.loads(typed(["models", "show", "unet", "--json"]).out)["contract"]["need"] == 92
    assert main(["models", "show", "unett"]) == 2
    assert "options: depth=4" in typed(["models", "show", "unet", "--set", "wide=2"], 2).err


def test_a_check_that_holds_is_0_and_one_that_does_not_is_7(lay, typed):
    out, err = typed(["models", "check", "unet", *SMALL, "-q"])
    assert "8 pixels of context make tiles exact" in out
    assert err == ""
    code = "import torch\nfrom unetkit.models.unet import UNet\nfrom unetkit import SizeContract\n"
    code += "def build(*, in_channels, classes):\n"
    code += '    wish = {"in_channels": in_channels, "classes": classes}\n'
    code += "    net = UNet(**wish, depth=1, width=2, dropout=0)\n"
    code += "    net.contract = SizeContract(step=1, minimum=18, margin=8)\n    return net\n"
    lay("odd-nets", {"unetkit.models": {"odd": "build"}}, code=code)
    out, err = typed(["models", "check", "odd", "--json", "-q"], 7)
    assert json.loads(out)["holds"] is False
    assert err.startswith("error: model 'odd' must keep every rule, got 1 broken (sizes)")


def test_a_model_file_is_exported(small_model, typed):
    report = json.loads(
        typed(["models", "export", str(small_model), "--size", "30", "--json", "-q"]).out
    )
    assert (report["format"], report["minimum"], report["step"]) == ("pt2", 30, 0)
    assert main(["models", "export", str(small_model), "-q"]) == 4


def test_a_package_is_started(tmp_path, typed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert typed(["plugins", "new", "unetkit-mynet", "-q"]).out == "unetkit-mynet\n"
    assert (tmp_path / "unetkit-mynet" / "pyproject.toml").is_file()
    assert main(["plugins", "new", "unetkit-mynet"]) == 4


def test_plugins_are_listed_with_their_errors(lay, typed):
    lay("sad-nets", {"unetkit.models": {"sad": "build"}}, code="raise ValueError('bad day')")
    rows = {row["name"]: row for row in json.loads(typed(["plugins", "--json", "-q"]).out)}
    assert rows["sad"]["status"] == "broken"
    assert "bad day" in rows["sad"]["error"]
    assert rows["unet"]["error"] is None


def test_a_command_that_unetkit_has_is_listed_by_its_full_name(lay, typed):
    points = {"unetkit.commands": {"train": "app", "count": "app"}}
    lay("my-tools", points, code="import typer\napp = typer.Typer()")
    rows = json.loads(typed(["plugins", "--json", "-q"]).out)
    assert [r["name"] for r in rows if r["distribution"] == "my-tools"] == [
        "count",
        "my-tools/train",
    ]


def test_a_model_that_sleeps_while_it_is_imported_is_named(lay, typed, monkeypatch):
    monkeypatch.setitem(noted_if_slow.__wrapped__.__kwdefaults__, "patience", 0.1)
    code = "import time\ntime.sleep(2)\nfrom unetkit.models.unet import build"
    lay("slow-nets", {"unetkit.models": {"slow": "build"}}, code=code)
    out, err = typed(["models", "show", "slow", *SMALL, "--json"])
    assert json.loads(out)["distribution"] == "slow-nets"
    assert err.startswith("waiting for model slow (slow-nets 0.1) to be imported; Ctrl-C ends it")
