"""Every format of outlines gives the pixels that its own program sees in it, and its classes."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from unetkit.arrays.outlines import edges, polygons
from unetkit.arrays.polygons import Painter, joined
from unetkit.errors import InputError
from unetkit.storage.annotations import annotation_files, read_annotations

HEIGHT, WIDTH = 24, 30


def reference():
    """Return a disc with a hole, a pixel, a line, and two boxes that touch."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[(x - 9) ** 2 + (y - 10) ** 2 <= 49] = 1
    mask[(x - 9) ** 2 + (y - 10) ** 2 <= 6] = 0
    mask[2, 25] = 2
    mask[5, 18:28] = 3
    mask[12:18, 19:23], mask[12:18, 23:28] = 4, 5
    return mask


MASK = reference()
OBJECTS = [number == MASK for number in range(1, 6)]


def outlined():
    """Return the rings of each object along the edges of its pixels."""
    found = edges(np.pad(MASK, 1), y0=0, x0=0, width=WIDTH)
    return [parts for _, parts in polygons(*found, height=HEIGHT, width=WIDTH)]


def painted(drawing, size=(HEIGHT, WIDTH)):
    on_centres = [drawing.convention == "centres" and not s.is_mask for s in drawing.shapes]
    shapes = joined([shape.parts for shape in drawing.shapes], on_centres)
    values = np.arange(1, len(drawing.shapes) + 1)
    found = Painter(shapes, values).paint(0, size[0], 0, size[1])
    return np.zeros(size, int) if found is None else found


def read(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotations(str(path), **options)


def runs(mask, *, order):
    """Return the lengths of runs, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order).astype(int), [2]])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], ends])).tolist()


def packed(counts):
    """Pack counts as COCO does."""
    text = ""
    for number, count in enumerate(counts):
        value = count - (counts[number - 2] if number > 2 else 0)
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
            if not more:
                break
    return text


def coco(segmentations):
    return json.dumps(
        {
            "annotations": [
                {"id": n, "image_id": 7, "category_id": 3, "segmentation": one}
                for n, one in enumerate(segmentations)
            ],
            "images": [
                {"id": 7, "file_name": "train/a.png", "height": HEIGHT, "width": WIDTH},
                {"id": 8, "file_name": "b.png"},
            ],
            "categories": [{"id": 3, "name": "nucleus"}],
        }
    )


@pytest.mark.parametrize("form", ["counts", "packed", "polygons"])
def test_coco(form, tmp_path):
    counts = [runs(mask, order="F") for mask in OBJECTS]
    size = [HEIGHT, WIDTH]
    made = {
        "counts": [{"size": size, "counts": one} for one in counts],
        "packed": [{"size": size, "counts": packed(one)} for one in counts],
        # COCO has no holes, and adds up the rings of an object.
        "polygons": [[part[0].ravel().tolist() for part in parts] for parts in outlined()],
    }
    first, second = read(tmp_path, "a.json", coco([*made[form], []]))
    assert (first.image, first.size, first.empty) == ("train/a.png", (HEIGHT, WIDTH), 1)
    assert (second.image, second.size, second.shapes) == ("b.png", None, [])
    assert {shape.label for shape in first.shapes} == {"nucleus"}
    expected = MASK.copy()
    if form == "polygons":
        expected[8:13, 7:12] = 1
    np.testing.assert_array_equal(painted(first), expected)


def test_runs_over_many_columns(tmp_path):
    mask = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.8
    mask[:, 4:9] = True
    counts = {"size": [HEIGHT, WIDTH], "counts": packed(runs(mask, order="F"))}
    (drawing, _) = read(tmp_path, "a.json", coco([counts]))
    np.testing.assert_array_equal(painted(drawing), mask)


def test_a_list_of_rings_adds_up(tmp_path):
    ring = [2, 2, 10, 2, 10, 10, 2, 10]
    (drawing, _) = read(tmp_path, "a.json", coco([[ring, [4, 4, 6, 4, 6, 6, 4, 6]]]))
    assert painted(drawing).sum() == 64


def test_rims_on_centres_are_closed(tmp_path):
    """What OpenCV traced: the centres of rim pixels, of one pixel a point."""
    rims = [[18, 5, 27, 5], [25, 2], [19, 12, 22, 12, 22, 17, 19, 17]]
    found = painted(read(tmp_path, "a.json", coco([rims]), outlines="centres")[0])
    np.testing.assert_array_equal(found, np.isin(MASK, [2, 3, 4]))


def labelme(*shapes):
    head = {"version": "6.3.1", "imagePath": "..\\images\\a.png", "imageData": "AAAA"}
    return json.dumps({**head, "shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH})


def labelme_mask(mask, **marks):
    y, x = np.nonzero(mask)
    corners = [[float(x.min()), float(y.min())], [float(x.max()), float(y.max())]]
    part = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
    file = io.BytesIO()
    Image.fromarray(part.astype(np.uint8)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return {"shape_type": "mask", "points": corners, "mask": text, "group_id": None, **marks}


def test_labelme(tmp_path):
    masks = [labelme_mask(mask, label="nucleus") for mask in OBJECTS]
    (drawing,) = read(tmp_path, "b.json", labelme(*masks))
    assert (drawing.image, drawing.size) == ("..\\images\\a.png", (HEIGHT, WIDTH))
    np.testing.assert_array_equal(painted(drawing), MASK)
    # A polygon runs through the centres of its rim, which is what labelme fills.
    box = [[19, 12], [22, 12], [22, 17], [19, 17]]
    shapes = [
        {"label": "a", "points": box, "shape_type": "polygon"},
        {"label": "a", "points": [[23, 12], [27, 17]], "shape_type": "rectangle"},
        {"label": "a", "points": [[9, 10], [9, 17]], "shape_type": "circle"},
        {"label": "a", "points": [[9, 10], [9, 17]], "shape_type": "line"},
    ]
    (drawing,) = read(tmp_path, "b.json", labelme(*shapes))
    expected = np.select([MASK == 4, MASK == 5, MASK == 1], [1, 2, 3])
    expected[8:13, 7:12] = 3
    np.testing.assert_array_equal(painted(drawing), expected)
    assert drawing.flat == {"line": 1}
    (drawing,) = read(tmp_path, "b.json", labelme(*shapes[:1]), outlines="corners")
    assert painted(drawing).sum() == 15


def test_labelme_joins_what_is_of_a_group(tmp_path):
    masks = [labelme_mask(mask, label="a", group_id=4) for mask in OBJECTS[:3]]
    masks[2]["label"] = "b"
    (drawing,) = read(tmp_path, "b.json", labelme(*masks))
    np.testing.assert_array_equal(
        painted(drawing), np.select([MASK == 3, (MASK > 0) & (MASK < 3)], [2, 1])
    )


def via(*regions):
    image = {"filename": "a.png", "size": 100, "regions": list(regions)}
    return {"_via_settings": {}, "_via_img_metadata": {"a.png100": image}}


@pytest.mark.parametrize("form", ["project", "export", "first"])
def test_via(form, tmp_path):
    regions = []
    for parts in outlined()[1:]:
        x, y = parts[0][0].T.tolist()
        shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
        regions.append({"shape_attributes": shape, "region_attributes": {"cell": "nucleus"}})
    box = {"name": "rect", "x": 2, "y": 1, "width": 3, "height": 2}
    circle = {"name": "circle", "cx": 9.5, "cy": 10.5, "r": 7}
    for shape in (box, circle, {"name": "point", "cx": 1, "cy": 1}):
        regions.append(
            {"shape_attributes": shape, "region_attributes": {"type": {"dead": True}, "size": "x"}}
        )
    document = via(*regions)
    if form != "project":
        document = document["_via_img_metadata"]
    if form == "first":
        document["a.png100"]["regions"] = dict(enumerate(regions))
    (drawing,) = read(tmp_path, "a.json", json.dumps(document))
    assert [shape.label for shape in drawing.shapes] == ["nucleus"] * 4 + ["dead"] * 2
    assert drawing.flat == {"point": 1}
    expected = np.where(MASK > 1, MASK - 1, 0).astype(int)
    expected[MASK == 1] = expected[8:13, 7:12] = 6
    expected[1:3, 2:5] = 5
    np.testing.assert_array_equal(painted(drawing), expected)


def cvat(*elements):
    image = f'<image id="0" name="sub/a.png" width="{WIDTH}" height="{HEIGHT}">'
    head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    return f"{head}{image}{''.join(elements)}</image></annotations>"


def cvat_mask(mask, order):
    y, x = np.nonzero(mask)
    part = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
    box = f'left="{x.min()}" top="{y.min()}" width="{part.shape[1]}" height="{part.shape[0]}"'
    rle = ", ".join(map(str, runs(part, order="C")))
    return f'<mask label="nucleus" {box} rle="{rle}" z_order="{order}"></mask>'


@pytest.mark.parametrize("packed_", [False, True])
def test_cvat(packed_, tmp_path):
    # What lies higher comes later, wherever it stands in the file.
    elements = [cvat_mask(mask, 9 - n) for n, mask in enumerate(OBJECTS)][::-1]
    points = ";".join(f"{x},{y}" for x, y in [(19, 12), (23, 12), (23, 18), (19, 18)])
    elements += [
        f'<polygon label="a" points="{points}" z_order="20"><attribute name="x"/></polygon>',
        '<box label="b" xtl="23" ytl="12" xbr="28" ybr="18" rotation="180" z_order="21"/>',
        '<ellipse label="c" cx="9.5" cy="10.5" rx="7" ry="7" rotation="30" z_order="22"/>',
        '<points label="d" points="1,1"/>',
        '<tag label="e"/>',
    ]
    text, name = cvat(*elements).encode(), "annotations.xml"
    if packed_:
        file, name = io.BytesIO(), "a.zip"
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("annotations.xml", text)
        text = file.getvalue()
    (drawing,) = read(tmp_path, name, text)
    assert (drawing.image, drawing.size) == ("sub/a.png", (HEIGHT, WIDTH))
    assert [shape.label for shape in drawing.shapes] == ["nucleus"] * 5 + list("abc")
    assert drawing.flat == {"points": 1}
    expected = np.select([MASK == 1, MASK > 3, MASK > 0], [8, MASK + 2, 6 - MASK]).astype(int)
    expected[8:13, 7:12] = 8
    np.testing.assert_array_equal(painted(drawing), expected)


def test_image_scope(tmp_path):
    def region(ring, **marks):
        made = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
        own = " ".join(f'{key}="{value}"' for key, value in marks.items())
        return f"<Region {own}><Attributes/><Vertices>{made}</Vertices></Region>"

    (disc, hole), line = outlined()[0][0], outlined()[2][0][0]
    text = (
        '<Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="" LineColor="65280">'
        '<Attributes><Attribute Name="tumour" Id="0" Value=""/></Attributes><Regions>'
        f"{region(hole, Type=0, NegativeROA=1)}{region(disc, Type=0, NegativeROA=0)}</Regions>"
        f'</Annotation><Annotation Name="gland"><Regions>{region(line, Type=0)}'
        f"{region([(19, 12), (23, 18)], Type=1)}{region([(23, 12), (28, 18)], Type=2)}"
        f"{region([(0, 0), (4, 4)], Type=4)}</Regions></Annotation></Annotations>"
    )
    (drawing,) = read(tmp_path, "a.xml", text)
    assert [shape.label for shape in drawing.shapes] == ["tumour"] + ["gland"] * 3
    assert (drawing.image, drawing.flat) == (None, {"ruler": 1})
    found = painted(drawing)
    np.testing.assert_array_equal(found == 1, MASK == 1)
    np.testing.assert_array_equal(found == 2, MASK == 3)
    np.testing.assert_array_equal(found == 3, MASK == 4)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    np.testing.assert_array_equal(found == 4, ((x - 25.5) / 2.5) ** 2 + ((y - 15) / 3) ** 2 <= 1)


def test_xml_defines_nothing(tmp_path):
    entity = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    with pytest.raises(InputError, match="must not define document types or entities"):
        read(tmp_path, "a.xml", f"{entity}<annotations>&x;</annotations>")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xml", "<svg/>", "CVAT or ImageScope, got <svg>"),
        ("a.xml", "<annotations><image", "a.xml"),
        ("a.xml", "<annotations><track/></annotations>", "CVAT for images"),
        (
            "a.xml",
            cvat('<mask label="a" rle="3" width="2" height="2"/>'),
            "counts must add up to 2 x 2",
        ),
        ("a.xml", cvat('<polygon label="a" points="1,2;x"/>'), "a.xml"),
        ("a.json", coco([{"size": [2, 2], "counts": [1, 2]}]), "counts must add up to 2 x 2"),
        ("a.json", coco([{"size": [2, 2], "counts": [-1, 5]}]), "counts must add up"),
        ("a.json", coco([[1, 2, 3]]), "a.json"),
        ("a.json", labelme({"points": [[0, 0]], "shape_type": "mask", "mask": "AAAA"}), "a.json"),
        ("a.json", json.dumps(via({"shape_attributes": {}})), "a.json"),
        ("a.zip", "PK", "a.zip"),
    ],
)
def test_what_is_damaged_is_one_sentence(name, content, words, tmp_path):
    with pytest.raises(InputError, match=words) as refused:
        read(tmp_path, name, content)
    assert "\n" not in str(refused.value)
    assert "save or copy" in str(refused.value)


def test_rois(tmp_path):
    roifile = pytest.importorskip("roifile", reason="ImageJ's ROIs need roifile")
    types = roifile.ROI_TYPE
    rois = [roifile.ImagejRoi.frompoints(parts[0][0], name="x") for parts in outlined()[1:3]]
    rois.append(roifile.ImagejRoi(roitype=types.RECT, left=19, top=12, right=23, bottom=18))
    rois.append(roifile.ImagejRoi.frompoints([[23.0, 12], [28, 12], [28, 18], [23, 18]]))
    rois.append(roifile.ImagejRoi(roitype=types.OVAL, left=6, top=7, right=13, bottom=14))
    path = []
    for ring in outlined()[0][0]:
        for n, (x, y) in enumerate([*ring.tolist(), ring[0].tolist()]):
            path += [0.0 if n == 0 else 1.0, x, y]
        path.append(4.0)
    (left, top), (right, bottom) = outlined()[0][0][0].min(0), outlined()[0][0][0].max(0)
    whole = {"left": left, "top": top, "right": right, "bottom": bottom}
    multi = {"multi_coordinates": np.array(path, np.float32), "shape_roi_size": len(path)}
    rois.append(
        roifile.ImagejRoi(roitype=types.RECT, **{k: int(v) for k, v in whole.items()}, **multi)
    )
    rois.append(roifile.ImagejRoi(roitype=types.POINT, n_coordinates=0))
    for n, roi in enumerate(rois):
        roi.name = f"cell-{n}"
    rois[0].group = 3
    rois[1].props = "class: axon\n"
    rois[2].z_position = 2
    roifile.roiwrite(tmp_path / "a.zip", rois)
    (drawing,) = read_annotations(str(tmp_path / "a.zip"))
    assert [shape.label for shape in drawing.shapes][:3] == ["3", "axon", "cell-2"]
    assert [shape.plane for shape in drawing.shapes] == [None, None, (0, 1), None, None, None]
    assert drawing.flat == {"point": 1}
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    oval = (x - 9.5) ** 2 + (y - 10.5) ** 2 <= 3.5**2
    expected = np.select([MASK == 1, oval, MASK > 1], [6, 5, np.maximum(MASK, 1) - 1])
    np.testing.assert_array_equal(painted(drawing), expected)
    rois[3].tofile(tmp_path / "b.roi")
    (drawing,) = read_annotations(str(tmp_path / "b.roi"))
    np.testing.assert_array_equal(painted(drawing), MASK == 5)


def test_a_zip_that_claims_too_much_is_refused(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.roi", b"Iout")
    data = bytearray(file.getvalue())
    at = data.index(b"PK\x01\x02") + 24  # the size of what is packed, in the list of files
    data[at : at + 4] = struct.pack("<I", 2**32 - 2)
    with pytest.raises(InputError, match="must be at most 2,147,483,648 bytes"):
        read(tmp_path, "a.zip", bytes(data))


def test_a_folder_leads_to_outlines_where_it_holds_no_masks(tmp_path):
    for folder, names in {"images": "a.png a.json", "shapes": "a.json b.xml readme.txt"}.items() | {
        "masks": "a.png dataset.json"
    }.items():
        (tmp_path / folder).mkdir()
        for name in names.split():
            (tmp_path / folder / name).touch()

    def found(labels):
        files = annotation_files(str(tmp_path / labels), beside=str(tmp_path / "images"))
        return [file.removeprefix(f"{tmp_path}/") for file in files]

    assert found("images") == ["images/a.json"]
    assert found("shapes") == ["shapes/a.json", "shapes/b.xml"]
    assert found("masks") == found("masks/a.png") == found("nothing") == []
    assert found("masks/dataset.json") == ["masks/dataset.json"]
    assert found("shapes/{stem}.json") == ["shapes/a.json"]
