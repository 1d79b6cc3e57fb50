#!/usr/bin/env bash
# roifile 2026.2.10: names in the properties of an ImageJ ROI come back as other names.
#
# Input: an ROI whose properties are the text that ImageJ keeps, with the class "1e3" (a clone), the well "007"
# and the slide "nan" (initials of a person), written and read again.
# Seen: ImagejRoi.props has the text as it was. ImagejRoi.properties, which is made of it, has the numbers
# 1000.0, 7 and NaN: the classes "1e3" and "1000", and the wells "007" and "7", are one, and NaN is not even
# equal to itself. "D07" and "1 a" stay text, so that the type of a name hangs on how it is spelled.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q roifile==2026.2.10 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
from roifile import ImagejRoi

text = "class: 1e3\nwell: 007\nslide: nan\nplate: D07\nrow: 1 a\n"
drawn = ImagejRoi.frompoints([[1, 1], [5, 1], [5, 5]])
drawn.props = text
found = ImagejRoi.frombytes(drawn.tobytes())
print(found.props)
print(found.properties)
assert found.props == text
names = found.properties
assert names["class"] == 1000.0 and type(names["class"]) is float, "this has changed"
assert names["well"] == 7 and type(names["well"]) is int, "this has changed"
assert names["slide"] != names["slide"], "this has changed"
assert names["plate"] == "D07" and names["row"] == "1 a", "this has changed"
P
