"""Judge a random sample of a prediction's objects by eye, and reckon its error rate from that."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from unetkit.arrays.objects import centroid_pixels
from unetkit.engine.measuring import (
    ListedPlane,
    list_objects,
    measure_labels,
    measure_pieces,
    piece_count,
    pieces_with,
)
from unetkit.engine.regions import count_in_regions, open_regions
from unetkit.errors import InputError, UsageError, command_line
from unetkit.progress import SILENT, Progress, Together, collects_warnings, warn
from unetkit.scores.bootstrap import LEVEL, share_interval
from unetkit.storage import urls
from unetkit.storage.atomic import write_text
from unetkit.storage.datasets import listed_names, open_dataset
from unetkit.storage.images import detect
from unetkit.storage.journal import CHUNK_LIST, FOLDER
from unetkit.storage.outputs import HEADER_LIMIT, check_file, output_name
from unetkit.storage.pixel_size import plane_pixel
from unetkit.storage.predicted_images import predicted_images
from unetkit.storage.pyramids import downscale_factor, downscaled
from unetkit.views.page import edge_path, image_uri, page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from unetkit.engine.regions import Regions
    from unetkit.options import (
        Axes,
        Channels,
        ImageOf,
        LabelName,
        Opt,
        SchedulerName,
        Seed,
        Store,
        Workers,
    )
    from unetkit.storage.datasets import Dataset, Sample
    from unetkit.storage.images import Image
    from unetkit.storage.planes import PlaneArray

    Json = dict[str, Any]

# What an object may be judged to be; what was missed beside it is counted apart.
VERDICTS = ("right", "split", "merged", "not an object")
MISSED = "missed beside it"
# The version of the files of judgements.
VERSION = 1
TEMPLATE = "review.html"
BEGINS = "<!doctype html><!-- unetkit review -->"
# Our choice: nobody judges more, and a page has to fit into a browser.
MOST = 10_000
# The side of what is shown around an object: times its own, at least in pixels, and as drawn.
AROUND, NEAR, DRAWN = 3, 64, 256
# Python's whole numbers have no end, those of a browser do.
EXACT = 2**53


@dataclass(frozen=True)
class ReviewPage:
    """What is to be judged, and where."""

    output: str
    objects: int  # of the prediction
    drawn: int  # of these, to be judged
    samples: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**asdict(self), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Rate:
    """How many of the judged objects are of a kind, and what that says of all."""

    kind: str
    objects: int
    share: float | None  # None where none is judged
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Rates:
    """What was found of the objects of an image, of a region, or of all."""

    place: dict[str, Any]  # its names
    objects: int  # there are
    judged: int
    missed: int  # objects that were noted as missed beside the judged ones
    rates: tuple[Rate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        told = {name: item for name, item in asdict(self).items() if name != "place"}
        return {**self.place, **told, "rates": [asdict(rate) for rate in self.rates]}


@dataclass(frozen=True)
class ReviewScore:
    """The error rate of a prediction, as far as a sample of its objects tells."""

    prediction: str
    judgement: str  # the file
    drawn: int
    overall: Rates
    level: float = LEVEL
    samples: tuple[Rates, ...] = ()  # those with judged objects, where there are several
    regions: tuple[Rates, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "prediction": self.prediction,
            "judgement": self.judgement,
            "drawn": self.drawn,
            "level": self.level,
            **self.overall.to_dict(),
            "samples": [one.to_dict() for one in self.samples],
            "regions": [one.to_dict() for one in self.regions],
            "warnings": list(self.warnings),
        }


@collects_warnings
def review(
    prediction: Store,
    *,
    score: Annotated[
        str | None, Opt(metavar="JUDGED", check="unetkit.storage.urls:check_there")
    ] = None,
    region: Annotated[str | None, Opt(check="unetkit.storage.urls:check_there")] = None,
    count: Annotated[int, Opt(min=1, max=10_000)] = 100,
    seed: Seed = 0,
    image: ImageOf = None,
    channels: Channels = None,
    labels: LabelName = None,
    axes: Axes = None,
    output: Annotated[
        str | None,
        Opt(flags=("--output", "-o"), default="NAME.review.html", panel="Output"),
    ] = None,
    overwrite: Annotated[
        bool, Opt(panel="Output", check="unetkit.storage.outputs:check_new_review")
    ] = False,
    scheduler: SchedulerName = "threads",
    workers: Workers = None,
    progress: Progress = SILENT,
) -> ReviewPage | ReviewScore:
    """Find the error rate without a truth: judge some objects by eye, as drawn by lot.

    Writes a page to be opened in any browser, with as many objects as `count` says in random
    order, each to be judged by a key: right, split, merged, or not an object. The page saves what
    was judged as a file. With `score` that file gives the share of right objects and of each kind
    of fault, with a 95 % interval that is exact for the objects of this prediction, also region
    by region.

    Every object is drawn with the same chance, whatever its size, the same ones for the same seed
    in any chunks; more objects begin with the same ones. Objects that the prediction missed can't
    be drawn: what is seen of them beside judged ones is counted, and is no rate of all that was
    missed.

    Parameters
    ----------
    prediction : str
        A prediction, dataset or plate with instances.
    score : str, optional
        The file that the page saved, to be scored.
    region : str, optional
        Regions to score in, as ``unetkit measure`` takes them: a label image or outlines. An
        object is of the region with its centroid.
    count : int
        How many objects to judge, at most 10,000.
    seed : int
        Same seed, same objects.
    image : str, optional
        The image of the prediction, where it is no longer beside it.
    channels : str, optional
        Which channels to show: `0,2` or `DAPI,GFP`.
    labels : str, optional
        Which labels, by name, where other writers named them.
    axes : str, optional
        Names of the array's axes, slowest first, such as ``zyx``; needed where the file does not
        say.
    output : str, optional
        Where the page is written; left out, beside the prediction.
    overwrite : bool
        Replace an earlier page.
    scheduler : str
        Who looks through the objects: threads, sync, processes, local:4, tcp://host:8786 or
        file:PATH.
    workers : int, optional
        How many work at once.
    progress : Progress
        Told of each block and each picture.

    Returns
    -------
    ReviewPage, or ReviewScore with `score`

    Raises
    ------
    UsageError
        If options of the page come with those of the score.
    InputError
        If there are no instances, the image is not found or of another size, or what was judged
        is of another prediction or was changed.
    OutputError
        If a page is there already.
    """
    of_page = {"count": count != 100, "seed": seed != 0, "image": image, "channels": channels}
    of_page |= {"labels": labels, "axes": axes, "output": output, "overwrite": overwrite}
    _check_options(score, region, count, [name for name, value in of_page.items() if value])
    run = {"scheduler": scheduler, "workers": workers}
    if score is not None:
        judged = _read_judged(score)
        found = _open(prediction, judged["axes"], judged["labels"], progress)
        return _score(_Judgement(prediction, score, judged, found), region, run, progress)
    target = output or output_name(prediction, ".review.html")
    check_file(target, overwrite=overwrite, begins=BEGINS)
    found = _open(prediction, axes, labels, progress)
    images = predicted_images(found, image, axes=axes, channels=channels)
    population = _listed(found, run, progress)
    if count > population.total:
        warn(progress, f"there are only {population.total:,} objects, which are all to be judged")
    sample = population.draw(count, seed=seed)
    told = {"seed": _exact(seed), "labels": labels, "axes": axes}
    record = _record(prediction, population, told, population.measure(sample, run, progress))
    progress.start("draw", total=len(sample))
    pictures = []
    for one, own in zip(sample, record["objects"], strict=True):
        labels_of, picture = found.samples[one.sample].labels("instances"), images[one.sample]
        pictures.append(_picture(labels_of, picture, one, own["box"]))
        progress.advance()
    name, file = urls.base_name(prediction), f"{urls.stem(prediction)}.judged.json"
    contents = {
        "name": name,
        "command": command_line("review", name, "--score", file),
        "file": file,
        "verdicts": VERDICTS,
        "planes": max(sample.labels("instances").planes for sample in found.samples),
        "record": record,
        "pictures": pictures,
    }
    write_text(target, page(contents, template=TEMPLATE))
    return ReviewPage(target, population.total, len(sample), len(found.samples))


def _check_options(
    score: str | None, region: str | None, count: int, of_page: Sequence[str]
) -> None:
    if region is not None and score is None:
        raise UsageError(
            f"region must be given to score what was judged, got {region}; add --score"
        )
    if score is not None and of_page:
        raise UsageError(
            f"{' and '.join(of_page)} must be given to make a page, got --score beside; leave"
            " --score out, or the rest"
        )
    if not 1 <= count <= MOST:
        raise UsageError(f"count must lie in 1 to {MOST:,}, got {count:,}; judge fewer")


def _open(url: str, axes: str | None, labels: str | None, progress: Progress) -> Dataset:
    """Open a prediction; images without instances are left out, and named."""
    axes = axes if detect(url) in ("stack", "array") else None
    found = open_dataset(url, axes=axes, labels=labels, mixed=True)
    kept = tuple(sample for sample in found.samples if "instances" in sample.image.labels)
    if not kept:
        # The error that says what there is instead.
        found.samples[0].labels("instances")
    left = [one.name for one in found.samples if "instances" not in one.image.labels]
    if left:
        warn(progress, f"{listed_names(left)} of {url} have no instances and are left out")
    return replace(found, samples=kept)


@dataclass(frozen=True)
class _Drawn:
    """An object that was drawn: its sample and plane by their numbers, and its id."""

    sample: int
    plane: int
    id: int


@dataclass(frozen=True, eq=False)
class _Population:
    """All objects of a prediction, in the order of samples, planes and ids."""

    dataset: Dataset
    planes: tuple[list[ListedPlane], ...]  # of each sample
    ids: tuple[list[NDArray[np.uint64]], ...]  # likewise

    @property
    def counts(self) -> list[int]:
        """How many objects each sample has."""
        return [sum(map(len, planes)) for planes in self.ids]

    @property
    def total(self) -> int:
        """How many objects there are."""
        return sum(self.counts)

    @property
    def checksum(self) -> str:
        """What tells these objects from others, in any chunks."""
        digest = sha256()
        for plane in (plane for planes in self.ids for plane in planes):
            digest.update(f"{len(plane)} ".encode() + plane.astype("<u8").tobytes())
        return digest.hexdigest()

    def draw(self, count: int, *, seed: int) -> list[_Drawn]:
        """Draw objects in random order, without putting them back; more begin with the same."""
        places = np.random.default_rng([seed, self.total]).permutation(self.total)[:count]
        flat = [(n, z, ids) for n, planes in enumerate(self.ids) for z, ids in enumerate(planes)]
        ends = np.cumsum([len(ids) for *_, ids in flat])
        found = []
        for place in places.tolist():
            at = int(np.searchsorted(ends, place, side="right"))
            number, plane, ids = flat[at]
            found.append(_Drawn(number, plane, int(ids[place - ends[at]])))
        return found

    def measure(
        self, drawn: Sequence[_Drawn], run: Mapping[str, Any], progress: Progress
    ) -> list[Json]:
        """Say of each object how many pixels it has and where they are."""
        chosen: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for one in drawn:
            chosen[one.sample, one.plane].append(one.id)
        pieces = [
            pieces_with(listed, [np.array(chosen[n, z], np.uint64) for z in range(len(listed))])
            for n, listed in enumerate(self.planes)
        ]
        progress.start("find", total=sum(map(len, pieces)))
        rows: dict[tuple[int, int, int], Json] = {}
        for number, (name, own) in enumerate(zip(self.dataset.names, pieces, strict=True)):
            for plane, part in measure_pieces(own, **run, progress=progress).items():
                columns = (part.ids, centroid_pixels(part), part.sums[:, 0], part.box)
                for key, (y, x), area, box in zip(*(c.tolist() for c in columns), strict=True):
                    place = {"sample": name, "plane": plane, "id": _exact(key)}
                    rows[number, plane, key] = {**place, "y": y, "x": x, "area": area, "box": box}
        return [rows.get((one.sample, one.plane, one.id), {}) for one in drawn]


def _exact(number: int) -> int | str:
    """Return a whole number as a browser keeps it."""
    return number if number < EXACT else str(number)


def _listed(found: Dataset, run: Mapping[str, Any], progress: Progress) -> _Population:
    """List all objects."""
    arrays = [sample.labels("instances") for sample in found.samples]
    together = Together(progress, "list", total=sum(map(piece_count, arrays)))
    planes = tuple(list_objects(array, **run, progress=together) for array in arrays)
    ids = tuple([plane.ids for plane in listed] for listed in planes)
    population = _Population(found, planes, ids)
    if not population.total:
        raise InputError(f"{found.url} must have objects to be judged, got none; look at its image")
    return population


def _published(prediction: str) -> str | None:
    """Return the checksum of a prediction's list of chunks, by which it is known at once."""
    listed = urls.join(prediction, FOLDER, CHUNK_LIST)
    return sha256(urls.read(listed)).hexdigest() if urls.exists(listed) else None


def _record(
    prediction: str, population: _Population, told: Mapping[str, Any], objects: list[Json]
) -> Json:
    """Say which objects of what are to be judged, so that nobody takes them for others."""
    counted = zip(population.dataset.names, population.counts, strict=True)
    record = {
        "unetkit": "review",
        "version": VERSION,
        "prediction": urls.base_name(prediction),
        "published": _published(prediction),
        "population": population.checksum,
        **told,
        "samples": [{"name": name, "objects": count} for name, count in counted],
        "objects": objects,
    }
    return {**record, "checksum": _checksum(record)}


def _checksum(record: Mapping[str, Any]) -> str:
    """Return the checksum of what the page was made with, whatever was judged since."""
    told = {name: item for name, item in record.items() if name not in ("objects", "checksum")}
    judged = ("verdict", "missed")
    told["objects"] = [
        {name: item for name, item in one.items() if name not in judged}
        for one in record["objects"]
    ]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _picture(labels: PlaneArray, image: Image, one: _Drawn, box: Sequence[int]) -> Json:
    """Draw an object and what is around it, in the pixels of its labels."""
    y0, x0, y1, x1 = box
    side = max(NEAR, AROUND * max(y1 - y0, x1 - x0))
    sizes = [min(side, length) for length in (labels.height, labels.width)]
    factor = downscale_factor(*sizes, longest=DRAWN, pixels=DRAWN**2)
    (top, bottom), (left, right) = (
        _window((low + high - size) // 2, size, whole, factor)
        for low, high, size, whole in zip(
            (y0, x0), (y1, x1), sizes, (labels.height, labels.width), strict=True
        )
    )
    near = downscaled(labels, one.plane, factor=factor, box=(top, bottom, left, right))
    own = near == one.id
    pixel = plane_pixel(image.pixel_size) if labels.width == image.data.width else None
    return {
        "height": bottom - top,
        "width": right - left,
        "factor": factor,
        "own": edge_path(own),
        "others": edge_path(np.where(own, 0, near)),
        "micrometres": None if pixel is None else (right - left) * pixel[1],
        **_pixels(labels, image.data, one.plane, (top, bottom, left, right)),
    }


def _window(start: int, size: int, whole: int, factor: int) -> tuple[int, int]:
    """Place a window inside of a plane, so that it begins and ends on multiples of `factor`."""
    first = min(max(start, 0), whole - size) // factor * factor
    return first, min(first + -(-size // factor) * factor, whole)


def _pixels(
    labels: PlaneArray, data: PlaneArray, plane: int, box: tuple[int, int, int, int]
) -> Json:
    """Draw the image below a box of the labels, which may be at another scale."""
    down, across = data.height / labels.height, data.width / labels.width
    ends = (box[0] * down, box[1] * down, box[2] * across, box[3] * across)
    y0, y1, x0, x1 = int(ends[0]), int(np.ceil(ends[1])), int(ends[2]), int(np.ceil(ends[3]))
    factor = downscale_factor(y1 - y0, x1 - x0, longest=DRAWN, pixels=DRAWN**2)
    (y0, y1), (x0, x1) = (
        (first // factor * factor, min(-(-last // factor) * factor, whole))
        for first, last, whole in ((y0, y1, data.height), (x0, x1, data.width))
    )
    pixels = downscaled(data, plane, factor=factor, box=(y0, y1, x0, x1))
    return {
        "image": image_uri(pixels),
        "y": y0 / down - box[0],
        "x": x0 / across - box[2],
        "high": (y1 - y0) / down,
        "wide": (x1 - x0) / across,
    }


def _read_judged(path: str) -> Json:
    """Read what a page saved, as it saved it."""
    text = urls.read_small(path, limit=16 * HEADER_LIMIT)
    try:
        found = json.loads(text or b"")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("unetkit") != "review":
        raise InputError(
            f"{path} must be what a page of 'unetkit review' saved, got something else; open the"
            " page and save once more"
        )
    if found.get("version") != VERSION:
        raise InputError(
            f"{path} must be of version {VERSION}, got {found.get('version')!r:.20}; score it with"
            " the unetkit that made its page"
        )
    objects = found.get("objects")
    whole = isinstance(objects, list) and all(isinstance(one, dict) for one in objects)
    if not whole or found.get("checksum") != _checksum(found):
        raise InputError(
            f"{path} must be of one page, as it was saved, got objects that were changed since;"
            " open the page and save once more"
        )
    for number, one in enumerate(found["objects"], start=1):
        verdict, missed = one.get("verdict"), one.get("missed", 0)
        if verdict not in (None, *VERDICTS) or type(missed) is not int or missed < 0:
            raise InputError(
                f"object {number} of {path} must be judged {', '.join(VERDICTS)} or not at all, and"
                f" count what is {MISSED}, got {verdict!r:.40} and {missed!r:.40}; judge it on the"
                " page"
            )
    return found


@dataclass(frozen=True, eq=False)
class _Judgement:
    """What was judged, beside the prediction whose objects these are said to be."""

    prediction: str
    path: str
    told: Json
    dataset: Dataset

    @property
    def objects(self) -> list[Json]:
        """The drawn objects, in the order in which they were drawn."""
        found: list[Json] = self.told["objects"]
        return found

    def at(self, one: Json) -> _Drawn:
        """Say which object of the prediction one is."""
        names = [sample["name"] for sample in self.told["samples"]]
        return _Drawn(names.index(one["sample"]), one["plane"], int(one["id"]))

    def check(self, run: Mapping[str, Any], progress: Progress) -> None:
        """Make sure that they are objects of this prediction.

        Its list of chunks tells at once. Where that is another, as after a prediction in other
        tiles, or where there is none, the objects themselves do.
        """
        published = _published(self.prediction)
        if published is not None and published == self.told["published"]:
            return
        population = _listed(self.dataset, run, progress)
        same = population.checksum == self.told["population"] and (
            population.counts == [sample["objects"] for sample in self.told["samples"]]
        )
        keys = ("y", "x", "area", "box")
        wanted = [[one[key] for key in keys] for one in self.objects]
        if same:
            measured = population.measure([self.at(one) for one in self.objects], run, progress)
            same = wanted == [[one.get(key) for key in keys] for one in measured]
        if not same:
            raise InputError(
                f"{self.path} must be of the objects of {self.prediction}, got those of"
                f" {self.told['prediction']!r} as it was then; judge a new page"
            )


def _rates(place: Json, chosen: Sequence[Json], *, total: int) -> Rates:
    """Reckon the rates among `total` objects of which some were drawn."""
    done = [one for one in chosen if one.get("verdict")]
    counts = Counter(one["verdict"] for one in done)
    counts[MISSED] = sum(one.get("missed", 0) > 0 for one in done)
    rates = tuple(_rate(kind, counts[kind], len(done), total) for kind in (*VERDICTS, MISSED))
    return Rates(place, total, len(done), sum(one.get("missed", 0) for one in done), rates)


def _rate(kind: str, count: int, judged: int, total: int) -> Rate:
    if not judged:
        return Rate(kind, count, None, None, None)
    return Rate(kind, count, count / judged, *share_interval(count, drawn=judged, total=total))


def _score(
    judged: _Judgement, region: str | None, run: Mapping[str, Any], progress: Progress
) -> ReviewScore:
    """Reckon the rates of what was judged, for all objects, by sample and by region."""
    done = [bool(one.get("verdict")) for one in judged.objects]
    if not any(done):
        raise InputError(
            f"{judged.path} must hold judged objects, got none of {len(done)}; judge some on the"
            " page and save"
        )
    judged.check(run, progress)
    if not all(done):
        warn(
            progress,
            f"{sum(done)} of {len(done)} objects are judged, and the rates are those of these",
        )
    if passed := done[: len(done) - done[::-1].index(True)].count(False):
        warn(
            progress,
            f"{passed} {'object was' if passed == 1 else 'objects were'} passed over; if these are"
            " the hard ones, the rates are those of easy ones",
        )
    counts = [sample["objects"] for sample in judged.told["samples"]]
    by_sample: list[list[Json]] = [[] for _ in counts]
    for one in judged.objects:
        by_sample[judged.at(one).sample].append(one)
    samples = [
        _rates({"name": sample.name}, chosen, total=count)
        for sample, chosen, count in zip(judged.dataset.samples, by_sample, counts, strict=True)
    ]
    return ReviewScore(
        judged.prediction,
        judged.path,
        drawn=len(done),
        overall=_rates({}, judged.objects, total=sum(counts)),
        samples=tuple(one for one in samples if one.judged) if len(samples) > 1 else (),
        regions=() if region is None else tuple(_by_region(judged, region, run, progress)),
    )


def _by_region(
    judged: _Judgement, url: str, run: Mapping[str, Any], progress: Progress
) -> Iterator[Rates]:
    """Reckon the rates of the objects of each region, whose centroid's pixel lies in it.

    Those of a region that were drawn are drawn by lot among all of the region, which are counted.
    """
    samples = judged.dataset.samples
    regions, remarks = open_regions(url, judged.dataset)
    for remark in remarks:
        warn(progress, remark)
    total = sum(piece_count(sample.labels("instances")) for sample in samples)
    told = {**run, "progress": Together(progress, "regions", total=2 * total)}
    for number, sample in enumerate(samples):
        drawn = {
            (at.plane, at.id): one
            for one in judged.objects
            if (at := judged.at(one)).sample == number
        }
        counts, inside = _members(sample, regions[sample.name], told)
        for region in sorted(counts):
            place = {
                "sample": sample.name,
                "region": region,
                "region_name": regions[sample.name].names.get(region, ""),
            }
            own = [one for key, one in drawn.items() if region in inside.get(key, ())]
            yield _rates(place, own, total=counts[region])


def _members(
    sample: Sample, regions: Regions, told: Mapping[str, Any]
) -> tuple[Counter[int], dict[tuple[int, int], list[int]]]:
    """Count the objects of each region of an image, and say in which regions each object is."""
    labels = sample.labels("instances")
    planes = measure_labels(labels, **told)
    points = [centroid_pixels(plane) for plane in planes]
    found = count_in_regions(regions, None, blocks=labels, ignore=None, points=points, **told)
    counts: Counter[int] = Counter()
    inside: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (plane, one) in enumerate(zip(planes, found, strict=True)):
        counts.update(dict.fromkeys(regions.on(number, one.table), 0))
        for at, region in one.members.tolist():
            counts[region] += 1
            inside[number, int(plane.ids[at])].append(region)
    return counts, inside
