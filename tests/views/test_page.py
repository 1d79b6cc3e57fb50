"""The report page: harmless with any names, without any network, and alive in a real browser."""

import json
import re
from importlib.resources import files

import numpy as np
import pytest
from scipy import ndimage

from unetkit.commands.evaluate import report as report_
from unetkit.commands.evaluate.command import evaluate
from unetkit.storage.datasets import DatasetWriter
from unetkit.views.page import BEGINS, overlay, page

# Keys as selenium counts them.
HOME, RIGHT = "\ue011", "\ue014"
# How many pixels of a chart have the colour of the first line, once it is drawn.
DRAWN = """
const [figure, done] = arguments, { width, height } = figure.querySelector("canvas");
requestAnimationFrame(() => requestAnimationFrame(() => {
  const style = getComputedStyle(document.documentElement).getPropertyValue("--first").trim();
  const wanted = [1, 3, 5].map(n => parseInt(style.slice(n, n + 2), 16));
  const copy = Object.assign(document.createElement("canvas"), { width, height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(figure.querySelector("canvas"), 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let count = 0;
  const same = n => wanted.every((v, k) => Math.abs(data[n + k] - v) < 3);
  for (let n = 0; n < data.length; n += 4) count += same(n);
  done(count);
}));
"""
EVIL = "</script><img src=x onerror=alert(1)>"


def labels(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((120, 160)), 4)
    return ndimage.label(noise > 0.51)[0].astype(np.uint16)


def write(url, samples, groups=()):
    writer = DatasetWriter(url)
    for number, (name, one) in enumerate(samples.items()):
        image = np.where(one > 0, 200, 40).astype(np.uint8)
        group = groups[number] if groups else None
        writer.add(name, image, axes="yx", labels=one, group=group)
    writer.finish()
    return url


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write the page of six samples of which the last is worst."""
    folder = tmp_path_factory.mktemp("page")
    truth = {f"s{n}": labels(n) for n in range(6)}
    found = {
        name: np.where(one % (n + 2) == 0, 0, one).astype(np.uint16)
        for n, (name, one) in enumerate(reversed(truth.items()))
    }
    evaluate(
        write(str(folder / "p.zarr"), found),
        write(str(folder / "t.zarr"), truth),
        report=str(folder / "r.html"),
        scheduler="sync",
        bootstrap=50,
    )
    return folder / "r.html"


def test_names_never_become_markup():
    text = page({"prediction": EVIL})
    assert text.startswith(BEGINS)
    assert EVIL not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert json.loads(data.group(1)) == {"prediction": EVIL}


@pytest.mark.parametrize(
    ("template", "name"), [("report", "eval"), ("training", "train"), ("review", "review")]
)
def test_pages_share_a_frame_and_a_style_and_bring_the_charts_only_where_they_have_some(
    template, name
):
    text = page({"a": "{{style}} {{data}}"}, template=f"{template}.html")
    assert f'name="generator" content="unetkit {name}"' in text[:500]
    assert text.count("<style>") == text.count("</style>") == text.count("</body>") == 1
    assert text.count("<script") == text.count("</script>") == 2
    style = (files("unetkit") / "data" / "page.css").read_text().strip()
    assert style in text
    # A value that looks like a place to fill is shown as it is.
    assert re.findall(r"\{\{\w+\}\}", text) == ["{{style}}", "{{data}}"]
    has_charts = template != "review"
    licence = (files("unetkit") / "data" / "uplot" / "LICENSE").read_text().strip()
    assert (licence in text) == ("var uPlot=" in text) == has_charts


def test_the_page_asks_for_nothing(report):
    text = report.read_text()
    assert "default-src 'none'" in text
    # The charts' library says in a remark where it comes from.
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"https://github.com/leeoniya/uPlot"}


def test_outlines_are_layers_of_the_picture():
    one = np.zeros((6, 7), int)
    one[1:5, 1:5] = 1
    drawn = overlay(np.zeros((1, 6, 7)), one, 0 * one)
    assert (drawn["width"], drawn["height"]) == (7, 6)
    assert drawn["truth"] != drawn["prediction"]
    assert all(drawn[n].startswith("data:image/png;base64,") for n in ("image", "truth"))


@pytest.fixture
def opened(browser, report):
    browser.get_log("browser")  # what other pages said
    browser.get(report.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    return browser


def test_it_opens_without_errors_and_asks_no_network(opened):
    assert opened.get_log("browser") == []
    loaded = opened.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert all(name.startswith("data:") for name in loaded)
    assert opened.execute_script("return document.querySelectorAll('#thumbs canvas').length") > 3


def test_samples_sort_and_filter(opened):
    def names():
        return opened.execute_script(
            "const rows = [...document.querySelectorAll('#samples tbody tr')];"
            "return rows.map(row => row.cells[0].innerText)"
        )

    by_precision = names()
    opened.find_element("css selector", "#samples th:first-child button").click()
    assert names() == sorted(by_precision) != by_precision
    opened.find_element("css selector", "#samples th:first-child button").click()
    assert names() == sorted(by_precision, reverse=True)
    head = opened.find_element("css selector", "#samples th:first-child")
    assert head.get_attribute("aria-sort") == "descending"
    opened.find_element("id", "filter").send_keys("s3")
    assert names() == ["s3"]


def test_groups_have_a_line_each_where_there_are_some(browser, opened, tmp_path):
    section = opened.find_element("id", "groups")
    assert not section.is_displayed()
    sure = opened.find_element("id", "sure").text
    assert "resamples of 6 images, of images like these" in sure
    truth = {f"s{n}": labels(n)[:40, :40] for n in range(6)}
    lost = {name: np.where(one % 3 == 0, 0, one).astype(np.uint16) for name, one in truth.items()}
    url, groups = str(tmp_path / "r.html"), ["m1", "m2", "m3", "m4", "m5", EVIL]
    told = evaluate(
        write(str(tmp_path / "p.zarr"), lost),
        write(str(tmp_path / "t.zarr"), truth, groups),
        report=url,
        scheduler="sync",
        bootstrap=50,
    )
    browser.get((tmp_path / "r.html").as_uri())
    head, *rows = browser.execute_script(
        "return [...document.querySelectorAll('#groups tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert head[:3] == ["group", "average precision 50", "average precision"]
    assert [row[0] for row in rows] == list(told.groups)
    assert [float(row[2]) for row in rows] == [
        pytest.approx(one.to_dict()["average_precision"], abs=1e-4) for one in told.groups.values()
    ]
    sure = browser.find_element("id", "sure").text
    assert "resamples of 6 groups, of groups like these" in sure


def test_a_definition_opens_by_keyboard_and_what_a_score_is_for_is_seen(opened):
    rows = opened.find_elements("css selector", "#summary summary")
    (named,) = (row for row in rows if row.text.startswith("adapted rand error"))
    assert named.text == "adapted rand error, for membranes"
    told = named.find_element("xpath", "following-sibling::p")
    assert not told.is_displayed()
    named.send_keys("\n")
    assert told.is_displayed()
    assert told.text.startswith("Measure 1 - F of the pixel pairs")
    named.send_keys("\n")


def test_outlines_switch_and_the_picture_zooms(opened):
    def width():
        return opened.execute_script("return document.getElementById('stack').clientWidth")

    layer = opened.find_element("id", "layer-prediction")
    assert layer.is_displayed()
    opened.execute_script("document.getElementById('prediction').click()")
    assert not layer.is_displayed()
    before = width()
    opened.execute_script("document.getElementById('in').click()")
    assert width() == pytest.approx(1.5 * before, abs=2)
    opened.find_element("id", "frame").send_keys("-")
    assert width() == pytest.approx(before, abs=2)
    # All of it is seen at once.
    opened.execute_script("document.getElementById('fit').click()")
    high = opened.execute_script("return document.getElementById('stack').clientHeight")
    assert high <= 0.75 * opened.execute_script("return window.innerHeight") + 1
    before = width()
    # A thumbnail leads to its place, which is marked, never smaller than the whole fits.
    opened.execute_script("document.querySelector('#thumbs button').click()")
    assert width() >= before - 20  # a scroll bar is there now
    assert opened.find_element("id", "mark").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_either_light(opened, scheme):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        ink, paper = opened.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert wide <= 360
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    assert abs(brightness[0] - brightness[1]) > 450


def test_a_screen_in_the_dark_prints_on_white_with_its_headings_and_charts(opened):
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    figure = opened.find_element("css selector", ".charts figure")
    assert opened.execute_async_script(DRAWN, figure) > 100
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **dark})
    try:
        style = "return getComputedStyle(document.body).backgroundColor"
        assert opened.execute_script(style) == "rgb(255, 255, 255)"
        # The colour of a line on paper is another, and so the chart was drawn anew.
        assert opened.execute_async_script(DRAWN, figure) > 100
        for shown in ("#samples th button", "#samples td", "#thumbs canvas"):
            assert opened.find_element("css selector", shown).is_displayed(), shown
        assert not opened.find_element("id", "filter").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Write the page of an image that is shown smaller, with a probability map."""
    folder = tmp_path_factory.mktemp("large")
    truth = labels(3)
    for name, found in (("p", np.where(truth % 3 == 0, 0, truth).astype(np.uint16)), ("t", truth)):
        writer = DatasetWriter(str(folder / f"{name}.zarr"))
        chance = ndimage.gaussian_filter((found > 0) * 255.0, 2).astype(np.uint8)
        made = {"channel_names": ("foreground",), "attributes": {"scale": 1 / 255}}
        writer.add("a", chance, axes="yx", labels=found, **(made if name == "p" else {}))
        writer.finish()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_, "LONGEST", 100)
        evaluate(*(str(folder / f"{n}.zarr") for n in "pt"), report=str(folder / "r.html"))
    return folder / "r.html"


def test_a_large_image_is_shown_smaller_and_its_objects_as_they_are(browser, large):
    browser.get(large.as_uri())
    assert browser.get_log("browser") == []

    def heading():
        return browser.find_element("id", "seen").text

    assert heading() == "Picture of a: 120 x 160 pixels, one shown of 2 x 2"
    browser.execute_script("document.querySelector('#thumbs button').click()")
    assert heading().startswith("Part of a from row ")
    assert "shown" not in heading()
    assert browser.find_element("id", "layer-truth").is_displayed()
    browser.execute_script("document.querySelector('#samples td button').click()")
    assert heading().startswith("Picture of a")


def test_a_probability_map_has_its_curves_and_what_is_missing_its_reason(browser, large):
    browser.get(large.as_uri())
    titles = [e.text for e in browser.find_elements("css selector", "figcaption")]
    assert titles[1] == "Foreground: precision and recall"
    assert titles[2].startswith("Foreground: Dice by threshold, best 0.")
    # The arrow keys read out what is drawn, point by point.
    figure = browser.find_element("css selector", "figure:nth-of-type(3)")
    data = json.loads(browser.find_element("id", "data").get_attribute("textContent"))
    known = [row for row in data["curve"] if row["dice"] is not None]
    assert len(known) == 50
    figure.send_keys(HOME)
    read = []
    for _ in known:
        cells = figure.find_elements("css selector", ".u-legend .u-value")
        read.append([float(cell.text) for cell in cells])
        figure.send_keys(RIGHT)
    expected = sorted([row["threshold"], row["dice"]] for row in known)
    assert read == [pytest.approx(one, abs=1e-4) for one in expected]
    # And the line is there, in its colour, in either light.
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert browser.execute_async_script(DRAWN, figure) > 100
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    missing = browser.find_element("id", "nulls").text
    assert "boundary f" in missing
    assert "worked out with --borders" in missing
