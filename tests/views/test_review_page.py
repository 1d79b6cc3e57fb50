"""The page on which objects are judged, in a real browser, by keyboard alone and on a phone."""

import json
import shlex
import time

import numpy as np
import pytest
from scipy import ndimage

from unetkit.cli.app import main
from unetkit.commands.review import review
from unetkit.storage.datasets import DatasetWriter

NOISE = ndimage.gaussian_filter(np.random.default_rng(2).random((200, 220)), 3)
CELLS = ndimage.label(NOISE > 0.51)[0].astype(np.uint16)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a dataset and the page of twelve of its objects."""
    folder = tmp_path_factory.mktemp("review")
    writer = DatasetWriter(str(folder / "my cells.zarr"))
    image = np.dstack([CELLS % 200, NOISE * 200]).astype(np.uint8).transpose(2, 0, 1)
    evil = "<img src=x onerror=alert(1)>"
    writer.add("one", image, axes="cyx", labels=CELLS, pixel_size={"y": 0.5, "x": 0.5}, group=evil)
    writer.finish()
    review(str(folder / "my cells.zarr"), count=12)
    review(str(folder / "my cells.zarr"), count=15, output=str(folder / "more.html"))
    return folder


@pytest.fixture
def opened(browser, place):
    """Open the page as somebody does who has judged nothing yet."""
    told = {"behavior": "allow", "downloadPath": str(place)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", told)
    show(browser, place)
    browser.execute_script("localStorage.clear()")
    show(browser, place)
    yield browser
    assert browser.get_log("browser") == []


def show(browser, place, name="my cells.review.html"):
    browser.get((place / name).as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"


def press(browser, *keys):
    for key in keys:
        browser.find_element("tag name", "body").send_keys(key)


def state(browser):
    return browser.find_element("id", "state").text


def saved(browser, place, number=0):
    """Save by the key, and read what was saved."""
    name = f"my cells.judged{f' ({number})' if number else ''}.json"
    press(browser, "w")
    for _ in range(100):
        if (place / name).exists():
            return json.loads((place / name).read_text()), name
        time.sleep(0.1)
    raise AssertionError(name)


def test_twelve_objects_are_judged_by_keys_saved_and_scored(opened, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert state(opened) == "Object 1, not judged yet; 0 of 12 judged."
    press(opened, "1", "b", "5", "s", "m", "\ue012", "4", "n")
    # The arrow went back to the third, whose verdict is now another; the fourth came next.
    assert state(opened) == "Object 5, not judged yet; 4 of 12 judged."
    press(opened, "u", "u", "3", "\ue014", "r")
    assert state(opened) == "Object 6, not judged yet; 4 of 12 judged."
    show(opened, place)
    # What was passed over comes first.
    assert state(opened) == "Object 4, not judged yet; 4 of 12 judged."
    press(opened, *"rrrrrrrr")
    assert state(opened) == "All 12 are judged: save them."
    (place / "my cells.judged.json").unlink(missing_ok=True)
    record, _ = saved(opened, place)
    verdicts = [one["verdict"] for one in record["objects"]]
    assert verdicts == ["right", "split", "merged", *["right"] * 9]
    assert [one["missed"] for one in record["objects"]] == [0, 2, *[0] * 10]
    command = opened.find_element("id", "command").text
    assert main([*shlex.split(command)[1:], "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [rate["objects"] for rate in found["rates"]] == [10, 1, 1, 0, 1]
    assert found["missed"] == 2


def test_outlines_lie_on_the_image_and_go_away(opened):
    def shown(name):
        return opened.execute_script(
            "const b = document.getElementById(arguments[0]).getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom]",
            name,
        )

    picture, own = shown("image"), shown("own")
    record = opened.execute_script("return record.objects[0]")
    y0, x0, y1, x1 = record["box"]
    scale = (picture[2] - picture[0]) / opened.execute_script("return pictures[0].width")
    assert own[2] - own[0] == pytest.approx((x1 - x0) * scale, abs=4)
    assert own[3] - own[1] == pytest.approx((y1 - y0) * scale, abs=4)
    assert picture[0] - 3 <= own[0] < own[2] <= picture[2] + 3
    press(opened, "o")
    assert not opened.find_element("id", "own").is_displayed()
    press(opened, "o")
    assert opened.find_element("id", "own").is_displayed()


def test_a_saved_file_and_a_larger_page_go_on_with_what_was_judged(opened, place):
    press(opened, "1", "2")
    show(opened, place, "more.html")
    assert state(opened) == "Object 3, not judged yet; 2 of 15 judged."
    (place / "my cells.judged.json").unlink(missing_ok=True)
    _, name = saved(opened, place)
    opened.execute_script("localStorage.clear()")
    show(opened, place)
    assert "0 of 12 judged" in state(opened)
    opened.find_element("id", "load").send_keys(str(place / name))
    opened.execute_async_script("setTimeout(arguments[0], 300)")
    assert state(opened) == "Object 3, not judged yet; 2 of 12 judged."
    (place / "other.json").write_text("{}")
    opened.find_element("id", "load").send_keys(str(place / "other.json"))
    opened.execute_async_script("setTimeout(arguments[0], 300)")
    assert "holds no judgements of this sample" in opened.find_element("id", "loaded").text
    assert "2 of 12 judged" in state(opened)
    # What the file does not judge stays, and where it judges otherwise that is said.
    opened.execute_script("localStorage.clear()")
    show(opened, place)
    assert "0 of 12 judged" in state(opened)
    press(opened, "3", "\ue014", "4")
    assert "2 of 12 judged" in state(opened)
    opened.find_element("id", "load").send_keys(str(place / name))
    opened.execute_async_script("setTimeout(arguments[0], 300)")
    assert "3 of 12 judged" in state(opened)
    told = opened.find_element("id", "loaded").text
    assert told.endswith("It judges 1 of the objects that you had judged otherwise.")
    verdicts = opened.execute_script("return judged().map(one => one.verdict)")
    assert verdicts[:4] == ["right", "split", "not an object", None]


def test_on_a_phone_nothing_is_wider_than_the_screen_and_buttons_judge(opened, place):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        show(opened, place)
        assert opened.execute_script("return document.documentElement.scrollWidth") == 360
        (right, *others) = opened.find_elements("css selector", "#verdicts button")
        assert len(others) == 4
        assert right.rect["y"] + right.rect["height"] < 740
        right.click()
        assert "1 of 12 judged" in state(opened)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_says_where_a_browser_keeps_nothing(browser, place):
    source = "Object.defineProperty(window, 'localStorage', {get() { throw new Error(); }})"
    told = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
    try:
        show(browser, place)
        press(browser, "1")
        assert "save before you close" in browser.find_element("id", "kept").text
        assert "1 of 12 judged" in state(browser)
        browser.execute_script("window.onbeforeunload = null")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", told)
