"""The page of a learning curve, in a real browser: its sentence, its chart, its tables."""

from unetkit.commands.train.curve import BEGINS, CurveReport, CurveTraining, _contents
from unetkit.scores.learning_curve import ScorePrediction
from unetkit.views.page import page


def test_the_page_shows_the_sentence_the_chart_and_the_tables(browser, tmp_path):
    scores = {(1, 2): 0.4, (1, 4): 0.5, (1, 8): 0.6, (2, 2): 0.42, (2, 4): 0.5, (2, 8): 0.61}
    report = CurveReport(
        *("a.html", "a.json", "8 more images: +0.03 (0.01 to 0.05) of AP", "AP", "image", 8),
        held_out=2,
        more=8,
        gain=0.03,
        gain_low=0.01,
        gain_high=0.05,
        fit={"top": 0.7, "drop": 0.6, "exponent": 0.9},
        trainings=tuple(CurveTraining(d, n, s, 60, 1.0) for (d, n), s in scores.items()),
        trainings_reused=0,
        expected=tuple(ScorePrediction(n, 0.6, 0.5, 0.7) for n in (2, 4, 8, 12, 16)),
        seconds=1.0,
        warnings=("<b>one</b>",),
    )
    text = page(_contents(report, "x/data.zarr", [("model", "unet")]), template="curve.html")
    assert text.startswith(BEGINS)
    path = tmp_path / "a.html"
    path.write_text(text)
    browser.get(path.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    seen = browser.find_element("tag name", "body").text
    assert "Learning curve of data.zarr" in seen
    assert report.sentence in seen
    assert "<b>one</b>" in seen
    rows = browser.find_elements("css selector", "#expected tbody tr")
    assert [row.text.split()[0] for row in rows] == ["2", "4", "8", "16"]
    assert len(browser.find_elements("css selector", "#trainings tbody tr")) == 6
    assert browser.find_elements("css selector", "#charts canvas")
    # The sizes of a phone: nothing sticks out.
    browser.set_window_size(500, 900)
    wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.execute_script(wide)
    browser.set_window_size(1000, 900)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
