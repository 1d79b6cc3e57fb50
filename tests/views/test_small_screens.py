"""Every page on a phone and by keyboard: nothing sticks out, is too small, pale or unreached."""

import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate.command import evaluate
from unetkit.commands.review import review
from unetkit.commands.train.curve import CurveReport, CurveTraining
from unetkit.commands.train.curve import _contents as curve_contents
from unetkit.scores.learning_curve import ScorePrediction
from unetkit.storage.datasets import DatasetWriter
from unetkit.views.page import image_uri, page

action_chains = pytest.importorskip(
    "selenium.webdriver.common.action_chains", reason="selenium is not installed"
)
PAGES = ("eval", "train", "review", "curve")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
ENTER, TAB = "\ue007", "\ue004"
# The least side of what is to be hit by a finger, and the least contrast of text (WCAG 2.2, AA).
TARGET, CONTRAST = 24, 4.5
LONG = "a-sample-with-a-long-name-of-one-word-that-no-line-of-a-phone-can-hold"
CONTROLS = """
const shown = e => e.getClientRects().length && getComputedStyle(e).visibility !== "hidden";
const named = e => `${e.tagName} ${e.id} ${(e.getAttribute("aria-label") || e.innerText).trim()}`;
const controls = [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
  .filter(e => shown(e) && !e.disabled);
"""
SMALL = """
return controls.map(e => [named(e), (e.closest("label") || e).getBoundingClientRect()])
  .filter(([_, r]) => r.width < arguments[0] || r.height < arguments[0]).map(([name]) => name);
"""
# Whatever scrolls sideways has to be reached by keys, and a reader has to be told what it is.
SCROLLS = """
return [...document.querySelectorAll("body *")]
  .filter(e => shown(e) && e.scrollWidth > e.clientWidth + 1 && e.clientWidth
    && /auto|scroll/.test(getComputedStyle(e).overflowX))
  .map(e => [named(e), e.tabIndex, e.getAttribute("role"), e.getAttribute("aria-label")]);
"""
NEXT = """
const e = document.activeElement, style = getComputedStyle(e);
return e === document.body ? null
  : [controls.indexOf(e), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1];
"""
PALE = """
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, n) => sum + v * [.2126, .7152, .0722][n], 0);
const behind = e => { for (; e; e = e.parentElement) {
  const colour = getComputedStyle(e).backgroundColor;
  if ((parts(colour)[3] ?? 1) === 1) return colour;
} };
return [...document.querySelectorAll("body *")]
  .filter(e => shown(e) && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .filter(e => !e.closest("svg, canvas, :disabled"))
  .map(e => [named(e), light(getComputedStyle(e).color) + .05, light(behind(e)) + .05])
  .filter(([_, a, b]) => Math.max(a, b) / Math.min(a, b) < arguments[0]).map(([name]) => name);
"""


def cells(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((120, 160)), 4)
    return ndimage.label(noise > 0.51)[0].astype(np.uint16)


def dataset(path, samples):
    writer = DatasetWriter(str(path))
    for name, labels in samples.items():
        writer.add(name, np.where(labels > 0, 200, 40).astype(np.uint8), axes="yx", labels=labels)
    writer.finish()
    return str(path)


def training():
    """Return what the page of a training of two datasets shows."""
    names = "loss score average_precision average_precision_50 seg dice pixel_error objects_true"
    names += " objects_predicted old_score new_score seconds"
    picture = image_uri(np.zeros((1, 40, 40), np.uint8))
    checks = [
        {"event": "validation", "step": s, "best": s == 20, **dict.fromkeys(names.split(), 1 / s)}
        for s in (10, 20)
    ]
    return {
        "title": f"Training on {LONG}.zarr",
        "state": "Finished after 20 of 20 steps; the network of step 20 was kept.",
        "running": False,
        "warnings": ["one sample has no objects"],
        "facts": [["model", "unet"], ["depth", "4"]],
        "held": "held out",
        "score": "mean average precision (AP)",
        "frozen": 11,
        "decision": None,
        "steps": [{"step": s, "loss": 1 / s, "learning_rate": 1e-3} for s in range(1, 21)],
        "validations": checks,
        **{"image": picture, "truth": picture},
        "pictures": [{"uri": picture, "step": c["step"], "score": c["score"]} for c in checks],
    }


def curve():
    """Return what the page of a learning curve shows."""
    sizes = (2, 4, 8, 16)
    report = CurveReport(
        *("a.html", "a.json", "8 more images: +0.03 (0.01 to 0.05) of AP", "AP", "image", 8),
        held_out=2,
        more=8,
        gain=0.03,
        gain_low=0.01,
        gain_high=0.05,
        fit={"top": 0.7, "drop": 0.6, "exponent": 0.9},
        trainings=tuple(CurveTraining(1, n, 0.5, 60, 1.0) for n in sizes[:3]),
        trainings_reused=0,
        expected=tuple(ScorePrediction(n, 0.6, 0.5, 0.7) for n in sizes),
        seconds=1.0,
        warnings=(),
    )
    return curve_contents(report, f"{LONG}.zarr", [("model", "unet")])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Write a page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    truth = {LONG: cells(1), "b": cells(2)}
    lost = {name: np.where(one % 4 == 0, 0, one).astype(np.uint16) for name, one in truth.items()}
    found, right = dataset(folder / "p.zarr", lost), dataset(folder / "t.zarr", truth)
    paths = {name: folder / f"{name}.html" for name in PAGES}
    evaluate(found, right, report=str(paths["eval"]), scheduler="sync", bootstrap=20)
    review(right, count=5, output=str(paths["review"]))
    paths["train"].write_text(page(training(), template="training.html"))
    paths["curve"].write_text(page(curve(), template="curve.html"))
    return paths


@pytest.fixture
def show(browser, pages):
    """Return what opens a page on a phone, in one light."""

    def opened(name, scheme="light"):
        light = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        browser.get(pages[name].as_uri())
        assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def press(browser, key):
    action_chains.ActionChains(browser).send_keys(key).perform()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone_or_too_small_for_a_finger(show, name):
    opened = show(name)
    assert opened.execute_script("return document.documentElement.scrollWidth") == PHONE["width"]
    assert opened.execute_script(CONTROLS + SMALL, TARGET) == []
    for told, reached, role, label in opened.execute_script(CONTROLS + SCROLLS):
        assert reached == 0, told
        assert role == "region", told
        assert label, told


@pytest.mark.parametrize("name", ["eval", "train"])
def test_names_stay_where_they_are_while_a_table_scrolls(show, name):
    opened = show(name)
    table = opened.execute_script(
        "const tables = [...document.querySelectorAll('.wide')];"
        "return tables.reduce((a, b) => a.scrollWidth > b.scrollWidth ? a : b)"
    )
    place = (
        "const row = arguments[0].querySelector('tbody tr');"
        "return [0, 1].map(n => row.cells[n].getBoundingClientRect().left)"
    )
    before = opened.execute_script(place, table)
    opened.execute_script("arguments[0].scrollLeft = 999", table)
    named, value = opened.execute_script(place, table)
    assert named == pytest.approx(before[0], abs=1)
    assert value < before[1] - 20


@pytest.mark.parametrize("name", PAGES)
def test_the_tab_key_reaches_each_control_in_order_shows_where_it_is_and_leads_out(show, name):
    opened = show(name)
    count = opened.execute_script(CONTROLS + "return controls.length")
    reached = []
    for _ in range(count + 5):
        press(opened, TAB)
        at = opened.execute_script(CONTROLS + NEXT)
        if at is None:
            break
        assert at[1], at
        reached.append(at[0])
    assert reached == list(range(count))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_is_told_from_what_is_behind_it(show, name, scheme):
    assert show(name, scheme).execute_script(CONTROLS + PALE, CONTRAST) == []


def test_who_chooses_a_picture_by_keyboard_goes_on_in_it(show):
    opened = show("eval")
    for chosen in ("#samples td button", "#thumbs button"):
        opened.find_element("css selector", chosen).send_keys(ENTER)
        frame = opened.switch_to.active_element
        assert frame.get_attribute("id") == "frame"
        wide = "return document.getElementById('stack').clientWidth"
        before = opened.execute_script(wide)
        frame.send_keys("+")
        assert opened.execute_script(wide) > before
