"""Tables of places: of objects, of errors and of windows."""

import pytest

from unetkit.errors import InputError, MissingError
from unetkit.storage.marks import Mark, read_marks


def table(folder, text):
    (folder / "t.csv").write_text(text, newline="")
    return str(folder / "t.csv")


def test_objects_are_read_in_pixels_whatever_unit_they_were_measured_in(tmp_path):
    rows = "sample,plane,id,unit,area,centroid_y,centroid_x\r\na,1,7,{},9,{},{}\r\n"
    for unit, y, x in (("pixel", 4.5, 8), ("micrometre", 2.25, 2)):
        (mark,) = read_marks(
            table(tmp_path, rows.format(unit, y, x)), pixel_size={"y": 0.5, "x": 0.25}
        )
        assert (mark.plane, mark.y, mark.x, mark.sample) == (1, 4.5, 8, "a")
        assert mark.text == "id 7, area 9"
    with pytest.raises(InputError, match="in pixels for an image of unknown pixel size"):
        read_marks(table(tmp_path, rows.format("micrometre", 2.25, 2)))


def test_numbers_of_many_places_are_told_short(tmp_path):
    text = "y,x,id,area,length,rate,note\r\n"
    text += "1,2,123456789,70123.45678,33.85863752487145,0.00012345678,v1.23456a\r\n"
    (mark,) = read_marks(table(tmp_path, text))
    assert mark.text == "id 123456789, area 70123, length 33.86, rate 0.0001235, note v1.23456a"


def test_errors_say_first_what_they_are(tmp_path):
    text = "sample,side,plane,id,unit,area,centroid_y,centroid_x,perimeter,kind,partner,iou\r\n"
    text += "a,truth,0,3,pixel,5,1,2,7.5,miss,,0.0\r\n"
    (mark,) = read_marks(table(tmp_path, text))
    assert mark.kind == "miss"
    assert mark.text == "kind miss, side truth, id 3, iou 0.0, area 5, perimeter 7.5"


def test_windows_have_a_box_and_lie_in_its_middle(tmp_path):
    (mark,) = read_marks(table(tmp_path, "\ufeffrank,y0,x0,y1,x1\n1,10,20,13,30\n"))
    assert mark == Mark(0, 11.0, 24.5, "rank 1", box=(10.0, 20.0, 13.0, 30.0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "must have the columns y and x"),
        ("", "must have the columns"),
        ("y,x\n1,two\n", "line 2 of .* must have numbers"),
        ("y,x\n1,nan\n", "must have numbers"),
        ("y,x\n1\n", "must have numbers"),
        ("y,x,plane\n1,2,-1\n", "must have numbers"),
        ("y,x,plane\n1,2,0.5\n", "must have numbers"),
    ],
)
def test_what_is_no_table_of_places_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_marks(table(tmp_path, text))


def test_what_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(MissingError):
        read_marks(str(tmp_path / "absent.csv"))
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="must be a CSV file"):
        read_marks(str(tmp_path / "t.csv"))
