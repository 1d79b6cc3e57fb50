"""Collections of images as others lay them out: plates of wells and fields, series of a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from unetkit.errors import InputError
from unetkit.storage.nodes import GroupNode, create_group, judging, read_node
from unetkit.storage.ome import COLLECTION, FORMATS, SCHEMA, OmeVersion, ome, ome_part
from unetkit.storage.urls import inside, is_segment, join, stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CollectionKind = Literal["plate", "well", "series"]
COLLECTIONS: tuple[CollectionKind, ...] = ("plate", "well", "series")
KEYS: dict[str, CollectionKind] = {
    **{"plate": "plate", "well": "well"},
    "bioformats2raw.layout": "series",
}
# Documents that are read at once, since a store takes its time over each.
CONCURRENCY = 16
# Our own choice: a plate of 1536 wells with 65 fields each; what lists more is damaged or hostile.
FIELDS_LIMIT = 100_000


@dataclass(frozen=True)
class Field:
    """An image that a collection lists; nothing of it was read."""

    path: str  # below the collection, such as A/01/0
    in_plate: bool = False
    acquisition: int | None = None  # its number, where a plate tells of several

    @property
    def name(self) -> str:
        """What the image is called as a sample.

        >>> Field("A/01/0").name
        'A-01-0'
        """
        return self.path.replace("/", "-")

    @property
    def well(self) -> str:
        """The path of the well; of other collections nothing.

        >>> Field("A/01/0", in_plate=True).well
        'A/01'
        """
        return self.path.rpartition("/")[0] if self.in_plate else ""

    @property
    def source(self) -> str:
        """What the sample is made from: fields of one well are of one kind."""
        return self.well.replace("/", "-") or self.name

    @property
    def position(self) -> dict[str, str]:
        """Where it lies on its plate; empty for other collections."""
        if not self.in_plate:
            return {}
        return dict(zip(("row", "column", "field"), self.path.split("/"), strict=True))


def kind_of_collection(node: GroupNode) -> CollectionKind | None:
    """Tell which kind of collection a group is; None where it is none."""
    return next((kind for key, kind in KEYS.items() if key in ome(node)), None)


def list_fields(node: GroupNode, *, broken: dict[str, str] | None = None) -> list[Field]:
    """List the images of a collection by its own lists, without a look at the images.

    A well that can't be read is refused, or noted in `broken` by its path where that is given.
    """
    rule = f"the list of images of {node.url} must follow OME-Zarr 0.4 or 0.5"
    with judging(rule, "write it again with the tool that made it"):
        kind = kind_of_collection(node)
        if kind == "plate":
            fields = _of_plate(node, broken)
        else:
            fields = _of_well(node) if kind == "well" else _of_series(node)
        if len(fields) > FIELDS_LIMIT:
            raise ValueError(f"more than {FIELDS_LIMIT:,} images")
        names = [field.name for field in fields]
        if len(set(names)) < len(names):
            raise ValueError(f"{next(n for n in names if names.count(n) > 1)} twice")
    return fields


def each_at_once(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Do the same with several, many at a time."""
    pool = ThreadPoolExecutor(CONCURRENCY)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _of_plate(node: GroupNode, broken: dict[str, str] | None) -> list[Field]:
    plate = ome(node)["plate"]
    paths = [_well_path(plate, well) for well in plate["wells"]]
    if len(paths) > FIELDS_LIMIT:
        raise ValueError(f"more than {FIELDS_LIMIT:,} wells")

    def look(path: str) -> list[Field] | InputError:
        try:
            return _fields_of_well(node, path)
        except InputError as error:
            return error

    fields: list[Field] = []
    for path, found in zip(paths, each_at_once(look, paths), strict=True):
        if isinstance(found, list):
            fields += found
        elif broken is None:
            raise found
        else:
            broken[path] = str(found)
    return fields


def _well_path(plate: dict[str, Any], well: dict[str, Any]) -> str:
    """Return the path of a well, whose numbers of row and column must not say otherwise."""
    path = well["path"]
    parts = path.split("/")
    if len(parts) != 2 or not all(map(is_segment, parts)):
        raise ValueError(f"a well at {path!r:.80}, where ROW/COLUMN belongs")
    for part, key, names in zip(
        parts, ("rowIndex", "columnIndex"), ("rows", "columns"), strict=True
    ):
        number = well.get(key)
        if number is not None and _plain(plate[names][number]["name"]) != _plain(part):
            raise ValueError(f"a well at {path!r:.80} with {key} {number}")
    return str(path)


def _plain(name: str) -> str:
    """Return a name as it is compared: some write columns with leading zeros in one place alone."""
    return name.lstrip("0") or "0" if name.isdecimal() else name


def _fields_of_well(plate: GroupNode, path: str) -> list[Field]:
    url = inside(plate.url, path, what="a well's path")
    well = read_node(url)
    if not isinstance(well, GroupNode) or "well" not in ome(well):
        raise InputError(f"{url} must be a well, got none there; restore it from the original")
    rule = f"the list of images of {url} must follow OME-Zarr 0.4 or 0.5"
    with judging(rule, "write it again with the tool that made it"):
        return [
            Field(f"{path}/{_field_path(image)}", in_plate=True, acquisition=_acquisition(image))
            for image in ome(well)["well"]["images"]
        ]


def _field_path(image: dict[str, Any]) -> str:
    path = image["path"]
    if not is_segment(path):
        raise ValueError(f"an image at {path!r:.80}")
    return str(path)


def _acquisition(image: dict[str, Any]) -> int | None:
    number = image.get("acquisition")
    return number if type(number) is int and number >= 0 else None


def _of_well(node: GroupNode) -> list[Field]:
    return [Field(_field_path(image)) for image in ome(node)["well"]["images"]]


def _of_series(node: GroupNode) -> list[Field]:
    """List what the group OME does, or groups that are numbered from 0 on."""
    listing = read_node(join(node.url, COLLECTION))
    series = ome(listing).get("series") if isinstance(listing, GroupNode) else None
    if series is None:
        numbered = (str(number) for number in range(FIELDS_LIMIT))
        there = takewhile(lambda n: isinstance(read_node(join(node.url, n)), GroupNode), numbered)
        return [Field(name) for name in there]
    for path in series:
        if not all(map(is_segment, path.split("/"))):
            raise ValueError(f"an image at {path!r:.80}")
    return [Field(path) for path in series]


def create_plate(
    url: str,
    like: GroupNode,
    fields: Sequence[Field],
    *,
    attributes: Mapping[str, Any],
    ome_version: OmeVersion = "0.5",
) -> None:
    """Create the groups of a plate with these fields, its rows and columns called as in another.

    The fields themselves come later. `attributes` go under `unetkit`.
    """
    told, zarr_format = ome(like)["plate"], FORMATS[ome_version]
    wells: dict[str, list[Field]] = {}
    for field in fields:
        wells.setdefault(field.well, []).append(field)
    names: dict[str, list[str]] = {}
    for place, key in enumerate(("rows", "columns")):
        used = {_plain(part): part for part in (path.split("/")[place] for path in wells)}
        listed = {_plain(entry["name"]): entry["name"] for entry in told.get(key, ())}
        names[key] = list({**listed, **used}.values())
    document: dict[str, Any] = {
        "name": str(told.get("name") or stem(like.url)),
        "field_count": max(map(len, wells.values())),
        **{key: [{"name": name} for name in listed] for key, listed in names.items()},
        "wells": [
            {
                "path": path,
                "rowIndex": names["rows"].index(path.split("/")[0]),
                "columnIndex": names["columns"].index(path.split("/")[1]),
            }
            for path in wells
        ],
    }
    if "acquisitions" in told:
        document["acquisitions"] = told["acquisitions"]
    own = {"unetkit": {**attributes, "schema": SCHEMA, "kind": "plate"}}
    plate = ome_part({"plate": document}, zarr_format=zarr_format)
    create_group(url, {**plate, **own}, zarr_format=zarr_format)
    for row in dict.fromkeys(path.split("/")[0] for path in wells):
        create_group(join(url, row), {}, zarr_format=zarr_format)
    for path, images in wells.items():
        well = ome_part({"well": {"images": [_listed(f) for f in images]}}, zarr_format=zarr_format)
        create_group(join(url, path), well, zarr_format=zarr_format)


def _listed(field: Field) -> dict[str, Any]:
    listed: dict[str, Any] = {"path": field.path.rpartition("/")[2]}
    return listed if field.acquisition is None else {**listed, "acquisition": field.acquisition}
