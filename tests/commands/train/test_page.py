import json
import os
import shutil
import signal

import pytest

from unetkit.commands.train.command import train
from unetkit.errors import StoppedError
from unetkit.storage.outputs import written_by_unetkit
from unetkit.training.run_folder import logged


def contents(page):
    text = page.read_text()
    data = text.split('id="data">', 1)[1].split("</script>", 1)[0]
    return json.loads(data)


@pytest.fixture
def here(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.cells(tmp_path / "<b>data.zarr")
    return tmp_path


def run(**changes):
    options = {"options": ("depth=1", "width=2"), "steps": 6, "device": "cpu"}
    # So that a step costs enough for a validation after every second one.
    options["recipe_set"] = ("batch=2",)
    train("<b>data.zarr", **{**options, "precision": "float32", **changes})


def test_it_shows_what_the_log_knows_and_a_picture_of_each_validation(here):
    run()
    shown = contents(here / "model.training.html")
    lines = [json.loads(line) for line in (here / "model.log.jsonl").read_text().splitlines()]
    assert shown["validations"] == [line for line in lines if line["event"] == "validation"]
    assert shown["steps"] == [line for line in lines if line["event"] == "step"]
    assert [p["step"] for p in shown["pictures"]] == [v["step"] for v in shown["validations"]]
    uris = [shown["image"], shown["truth"], *(p["uri"] for p in shown["pictures"])]
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)
    assert shown["image"] != shown["truth"]
    assert not shown["running"]
    assert shown["state"].startswith("Finished after 6 of 6 steps")
    assert shown["held"] == "held out"


def test_it_says_from_which_step_statistics_stay_as_they_are(here):
    run()
    assert contents(here / "model.training.html")["frozen"] == 4
    for changes in (
        {"options": ("depth=1", "width=2", "norm=none")},
        {"recipe_set": ("batch=2", "frozen=0")},
    ):
        run(overwrite=True, **changes)
        assert contents(here / "model.training.html")["frozen"] is None


def test_no_name_can_become_part_of_the_page(here):
    run()
    assert "<b>" not in (here / "model.training.html").read_text()
    assert contents(here / "model.training.html")["title"] == "Training on <b>data.zarr"


def test_it_can_be_read_while_it_runs_and_after_a_stop(here):
    seen = []
    page = here / "model.train" / "training.html"

    class Looking:
        def start(self, what, *, total): ...
        def note(self, text): ...
        def advance(self, parts=1, *, status=""):
            if page.exists():
                seen.append(contents(page))
                if len(seen[-1]["validations"]) == 3:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=Looking())
    assert all(one["running"] for one in seen)
    assert {len(one["pictures"]) for one in seen} == {1, 2, 3}
    assert contents(page) == seen[-1]


def test_a_training_that_goes_on_shows_what_was_before(here):
    page = here / "model.train" / "training.html"

    class Stopping:
        asked = False

        def start(self, what, *, total): ...
        def note(self, text): ...
        def advance(self, parts=1, *, status=""):
            if not self.asked and page.exists() and len(contents(page)["validations"]) == 2:
                self.asked = True
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        run(progress=Stopping())
    before = contents(page)
    run(resume=True)
    after = contents(here / "model.training.html")
    assert len(after["validations"]) == len(after["pictures"]) == 3
    assert after["pictures"][:2] == before["pictures"][:2]
    assert [line["step"] for line in after["steps"]] == list(range(1, 7))


def test_the_page_of_an_earlier_training_is_replaced_only_where_asked_for(here):
    run()
    page = here / "model.training.html"
    assert written_by_unetkit(str(page))
    before = page.read_bytes()
    (here / "model.safetensors").unlink()
    (here / "model.log.jsonl").unlink()
    with pytest.raises(FileExistsError, match=r"model\.training\.html.*--overwrite"):
        run()
    assert page.read_bytes() == before
    run(seed=1, overwrite=True)
    assert page.read_bytes() != before
    page.write_text("<!doctype html> my notes")
    with pytest.raises(FileExistsError, match=r"training\.html must be an earlier output"):
        run(overwrite=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_opens_it_at_a_phones_width_and_asks_no_network(here, scheme):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with its chromedriver to open the page in")
    run()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((here / "model.training.html").as_uri())
        ready, wide, charts, pictures, paper, loaded, unsaid = browser.execute_script(
            "return [document.documentElement.dataset.ready,"
            " document.documentElement.scrollWidth,"
            " document.querySelectorAll('.charts .u-legend .u-series:not(:first-child)').length,"
            " [...document.images].filter(i => i.naturalWidth > 0).length,"
            " getComputedStyle(document.body).backgroundColor,"
            " performance.getEntriesByType('resource').map(e => e.name),"
            " document.getElementById('scored').hidden]"
        )
        problems = browser.get_log("browser")
    finally:
        browser.quit()
    assert (ready, problems) == ("yes", [])
    assert wide <= 360
    assert charts >= 4
    assert pictures >= 3
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert all(name.startswith("data:") for name in loaded)
    # What the score is of is said where it is another than the column of the same name.
    lines = map(json.loads, (here / "model.log.jsonl").read_text().splitlines())
    checks = [line for line in lines if line["event"] == "validation"]
    assert unsaid == all(check["score"] == check["average_precision"] for check in checks)


def test_a_line_of_the_log_that_was_cut_or_edited_is_left_out():
    whole = [
        {"event": "start", "steps": 9},
        {"event": "step", "step": 1, "loss": 0.5},
        {"event": "validation", "step": 1, "score": 0.5, "loss": 1.0, "best": True},
        {"event": "warning", "step": 1, "text": "a word"},
    ]
    edited = [
        3,
        {},
        {"event": 3},
        {"event": "step", "step": 1},
        {"event": "step", "loss": 0.5},
        {"event": "warning", "step": None},
        {"event": "planned", "step": 1, "steps": "9"},
        {"event": "validation", "step": 1, "loss": 1.0, "best": True},
    ]
    lines = "\n".join(map(json.dumps, [*whole, *edited]))
    assert list(logged(f'{lines}\n{{"event": "st'.encode())) == whole
