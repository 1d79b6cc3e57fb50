from __future__ import annotations

import json

from unetkit.cli.app import main
from unetkit.progress import noted_if_slow

SMALL = ["--set", "depth=1", "--set", "width=2"]


def test_models_are_listed_as_a_table_and_as_a_list_of_objects(capsys):
    assert main(["models"]) == 0
    assert "unet" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "unet" in [row["name"] for row in listed]
    assert set(listed[0]) == {"name", "distribution", "version", "status"}


def test_a_model_is_shown_with_its_options(capsys):
    assert main(["models", "show", "unet", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "Channels of the first level" in out
    assert main(["models", "show", "unet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contract"]["need"] == 92
    assert main(["models", "show", "unett"]) == 2
    assert main(["models", "show", "unet", "--set", "wide=2"]) == 2
    assert "options: depth=4" in capsys.readouterr().err


def test_a_check_that_holds_is_0_and_one_that_does_not_is_7(lay, capsys):
    assert main(["models", "check", "unet", *SMALL, "-q"]) == 0
    out, err = capsys.readouterr()
    assert "aligned tiles need 8, the contract says 8" in out
    assert err == ""
    code = "import torch\nfrom unetkit.models.unet import UNet\nfrom unetkit import SizeContract\n"
    code += "def build(*, in_channels, classes):\n"
    code += '    wish = {"in_channels": in_channels, "classes": classes}\n'
    code += "    net = UNet(**wish, depth=1, width=2, dropout=0)\n"
    code += "    net.contract = SizeContract(step=1, minimum=18, margin=8)\n    return net\n"
    lay("odd-nets", {"unetkit.models": {"odd": "build"}}, code=code)
    assert main(["models", "check", "odd", "--json", "-q"]) == 7
    out, err = capsys.readouterr()
    assert json.loads(out)["holds"] is False
    assert err.startswith("error: model 'odd' must keep every rule, got 1 broken (sizes)")


def test_a_model_file_is_exported(small_model, capsys):
    assert main(["models", "export", str(small_model), "--size", "30", "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["size"]) == ("pt2", 30)
    assert main(["models", "export", str(small_model), "-q"]) == 4


def test_a_package_is_started(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "unetkit-mynet", "-q"]) == 0
    assert capsys.readouterr().out == "unetkit-mynet\n"
    assert (tmp_path / "unetkit-mynet" / "pyproject.toml").is_file()
    assert main(["plugins", "new", "unetkit-mynet"]) == 4


def test_plugins_are_listed_with_their_errors(lay, capsys):
    lay("sad-nets", {"unetkit.models": {"sad": "build"}}, code="raise ValueError('bad day')")
    assert main(["plugins", "--json", "-q"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sad"]["status"] == "broken"
    assert "bad day" in rows["sad"]["error"]
    assert rows["unet"]["error"] is None


def test_a_command_that_unetkit_has_is_listed_by_its_full_name(lay, capsys):
    points = {"unetkit.commands": {"train": "app", "count": "app"}}
    lay("my-tools", points, code="import typer\napp = typer.Typer()")
    assert main(["plugins", "--json", "-q"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in rows if r["distribution"] == "my-tools"] == [
        "count",
        "my-tools/train",
    ]


def test_a_model_that_sleeps_while_it_is_imported_is_named(lay, capsys, monkeypatch):
    monkeypatch.setitem(noted_if_slow.__wrapped__.__kwdefaults__, "patience", 0.1)
    code = "import time\ntime.sleep(2)\nfrom unetkit.models.unet import build"
    lay("slow-nets", {"unetkit.models": {"slow": "build"}}, code=code)
    assert main(["models", "show", "slow", *SMALL, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["distribution"] == "slow-nets"
    assert err.startswith("waiting for model slow (slow-nets 0.1) to be imported; Ctrl-C ends it")
