import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from unetkit import registry
from unetkit.errors import ResourceError, UsageError
from unetkit.registry import Registry, status

GROUP = "unetkit.models"


@pytest.fixture
def install(lay):
    """Return a function that lays a distribution with models on disk."""
    return lambda distribution, points, **more: lay(distribution, {GROUP: points}, **more)


def models():
    return Registry(GROUP, noun="model")


def test_built_ins_come_in_by_the_same_door():
    from unetkit.models.unet import build

    assert "unet" in models().names()
    assert models().get("unet") is build
    assert models().get("unetkit/unet") is build


def test_an_empty_group_has_no_names():
    empty = Registry("unetkit.nothing", noun="thing")
    assert empty.names() == []
    with pytest.raises(UsageError, match="no thing named 'a' is installed; installed: none"):
        empty.get("a")


def test_names_and_entries_import_nothing(install):
    module = install("my-nets", {"good": "build"}, code="raise RuntimeError('imported')")
    assert "good" in models().names()
    entry = models().entry("good")
    assert (entry.name, entry.distribution, entry.version) == ("good", "my-nets", "0.1")
    assert str(entry) == "good (my-nets 0.1)"
    assert module not in sys.modules
    with pytest.raises(ResourceError, match="imported"):
        models().get("good")


def test_a_plugin_is_found_by_both_of_its_names(install):
    install("my-nets", {"good": "build"}, code="build = 'a network'")
    assert models().get("good") == "a network"
    assert models().get("my-nets/good") == "a network"
    assert models().get("My_Nets/good") == "a network"


def test_what_is_installed_is_looked_at_once_until_it_changes(install, lay, monkeypatch):
    install("my-nets", {"good": "build"})
    an_hour_ago = time.time() - 3600
    os.utime(lay.folder, (an_hour_ago, an_hour_ago))
    looks: list[int] = []
    real = registry.distributions
    monkeypatch.setattr(registry, "distributions", lambda: looks.append(1) or real())
    for _ in range(3):
        assert "good" in models().names()
    assert len(looks) == 1
    # What came this instant may not be all that comes in it.
    install("more-nets", {"better": "build"})
    assert {"good", "better"} <= set(models().names())
    install("most-nets", {"best": "build"})
    assert {"good", "better", "best"} <= set(models().names())


def test_an_unknown_name_is_answered_with_the_nearest_and_all(install):
    install("unetkit-attention", {"attention-unet": "build"})
    with pytest.raises(UsageError) as caught:
        models().get("unett")
    message = str(caught.value)
    assert message.startswith("no model named 'unett' is installed; did you mean 'unet'? ")
    assert "installed: attention-unet (unetkit-attention 0.1), " in message
    assert "unet (unetkit " in message
    with pytest.raises(UsageError, match="named 'elsewhere/unet' is installed"):
        models().get("elsewhere/unet")


def test_two_distributions_with_one_name_must_be_told_apart(install):
    install("first-nets", {"net": "build"}, code="build = 1")
    install("second-nets", {"net": "build"}, version="2.0", code="build = 2")
    with pytest.raises(UsageError) as caught:
        models().get("net")
    assert str(caught.value) == (
        "model must come from one distribution, got 'net' of first-nets 0.1 and second-nets 2.0;"
        " say 'first-nets/net' or 'second-nets/net'"
    )
    assert models().get("second-nets/net") == 2
    listed = models().names()
    assert models().offers("net")
    assert not models().offers("nett")
    assert not models().offers("third-nets/net")
    assert "net" not in listed
    assert {"first-nets/net", "second-nets/net"} <= set(listed)


def test_a_built_in_can_not_be_shadowed(install):
    install("a-forger", {"unet": "build"}, code="build = 'forged'")
    assert models().get("unet") != "forged"
    assert models().entry("unet").distribution == "unetkit"
    assert models().get("a-forger/unet") == "forged"
    assert {"unet", "a-forger/unet"} <= set(models().names())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("raise ValueError('bad day')", "ValueError: bad day"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("pass", "AttributeError"),
        ("def", "SyntaxError"),
        ("raise GeneratorExit('gone')", "GeneratorExit: gone"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_no_other(install, code, words):
    install("broken-nets", {"broken": "build"}, code=code)
    with pytest.raises(ResourceError, match=rf"model broken \(broken-nets 0.1\).*{words}"):
        models().get("broken")
    assert models().get("unet")


def test_what_a_plugin_prints_is_no_result(install, capsys):
    install("loud-nets", {"loud": "build"}, code="print('hello')\nbuild = 1")
    assert models().get("loud") == 1
    assert capsys.readouterr() == ("", "hello\n")


def test_threads_that_look_up_plugins_at_once_leave_stdout_where_it_is(install):
    own, slow = sys.stdout, "import time\nprint('hello')\ntime.sleep(0.02)\nbuild = 1"
    names = [f"slow{number}" for number in range(8)]
    for name in names:
        install(f"{name}-nets", {name: "build"}, code=slow)
    found = models()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(found.get, names)) == [1] * 8
    assert sys.stdout is own


def test_ctrl_c_while_a_plugin_is_imported_is_no_fault_of_the_plugin(install):
    install("slow-nets", {"slow": "build"}, code="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        models().get("slow")


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("", True),
        ("1 = m", True),
        ("2 = m", False),
        ("1 = m\n2 = m", True),
        ("2 = m\n3 = m", False),
    ],
)
def test_a_plugin_for_another_interface_is_refused_in_one_sentence(install, said, fits):
    more = f"\n[unetkit.api]\n{said}\n" if said else ""
    module = install("new-nets", {"new": "build"}, version="4", code="build = 1", more=more)
    assert models().entry("new").fits == fits
    assert status(models().entry("new")).startswith("installed" if fits else "for plugin interface")
    if fits:
        assert models().get("new") == 1
        return
    with pytest.raises(ResourceError) as caught:
        models().get("new")
    got = " and ".join(line[0] for line in said.splitlines())
    assert str(caught.value) == (
        f"model new (new-nets 4) must be for version 1 of the plugin interface, got {got};"
        " install another version of new-nets or of unetkit"
    )
    assert module not in sys.modules


def test_the_rest_of_a_broken_installation_is_no_distribution(install, lay):
    install("half-nets", {"half": "build"})
    (lay.folder / "half_nets-0.1.dist-info" / "METADATA").unlink()
    assert "half" not in models().names()


def test_every_name_is_listed_with_its_origin(install):
    install("a-forger", {"unet": "build"})
    listed = dict(models().entries())
    assert listed["unet"].is_own
    assert status(listed["unet"]) == "installed"
    assert listed["a-forger/unet"].distribution == "a-forger"
    assert list(listed) == models().names()


def test_every_name_of_the_package_loads():
    for group in ("unetkit.models", "unetkit.readers"):
        registry = Registry(group, noun="thing")
        own = [n for n in registry.names() if registry.entry(n).distribution == "unetkit"]
        assert own
        assert all(callable(registry.get(name)) for name in own)
