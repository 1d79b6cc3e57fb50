"""How imported images come into their place: strip by strip, sample by sample, all or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unetkit.commands.import_images.masks import MaskRules, make_labels, read_mask
from unetkit.errors import InputError, OutputError, UsageError
from unetkit.storage.datasets import Dataset, DatasetWriter, open_dataset
from unetkit.storage.image_writer import create_image
from unetkit.storage.outputs import check_output, discard, staged
from unetkit.storage.pyramids import add_pyramid
from unetkit.storage.urls import exists, join
from unetkit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unetkit.commands.import_images.pairing import Pair
    from unetkit.progress import Progress
    from unetkit.storage.image_file import ImageFile

CHUNK = 512  # rows of a strip, and the side of the chunks that it fills


class DatasetOutput:
    """What is written, and how it comes into its place; with `append`, more samples of it."""

    def __init__(self, url: str, *, append: bool, overwrite: bool) -> None:
        self.url = url
        self.append = append
        self.overwrite = overwrite
        self.known: dict[int, int] | None = None

    def check(self, pairs: Sequence[Pair]) -> None:
        """Refuse an output that may not be written, before anything is read."""
        if not self.append:
            check_output(self.url, inputs=_inputs(pairs), overwrite=self.overwrite)

    def check_appended(
        self,
        pairs: Sequence[Pair],
        files: Sequence[ImageFile],
        rules: MaskRules,
        *,
        labelled: bool,
    ) -> MaskRules:
        """Hold new samples against those there are; the classes that these have go on."""
        dataset = open_dataset(self.url)
        if dataset.kind != "dataset":
            raise InputError(
                f"output must be a dataset to add samples, got the {dataset.kind} {self.url};"
                " import into a new dataset"
            )
        taken = sorted(set(dataset.names) & {pair.name for pair in pairs})
        if taken:
            raise OutputError(
                f"samples must have new names, got {', '.join(map(repr, taken[:3]))}, which"
                f" {self.url} has; rename the files"
            )
        count = dataset.samples[0].data.channel_count
        if files[0].size("c") != count:
            raise InputError(
                f"images must have as many channels as {self.url}, {count}, got"
                f" {files[0].size('c')} in {files[0].path!r}; choose some with --channels"
            )
        kinds = {sample.label_kind for sample in dataset.samples} - {None}
        if labelled and kinds - {rules.kind}:
            raise InputError(
                f"labels must be of the kind that {self.url} has, {kinds.pop()}, got {rules.kind};"
                " choose it with --kind"
            )
        return self._check_classes(dataset, rules) if rules.kind == "classes" else rules

    def _check_classes(self, dataset: Dataset, rules: MaskRules) -> MaskRules:
        for sample in dataset.samples:
            notes = sample.image.label_attributes.get("classes", {})
            if "mapping" in notes:
                self.known = {int(value): number for value, number in notes["mapping"].items()}
                if rules.names not in (None, sample.class_names):
                    raise UsageError(
                        f"classes must be those of {self.url}, {', '.join(sample.class_names)},"
                        f" got {', '.join(rules.names or ())}; leave --classes out"
                    )
                return replace(rules, names=sample.class_names)
        return rules

    def write_image(self, file: ImageFile, pair: Pair, progress: Progress) -> None:
        """Write one image strip by strip, each as high as a chunk."""
        with staged(self.url, inputs=_inputs([pair]), overwrite=self.overwrite) as partial:
            data = create_image(
                partial,
                shape=file.shape,
                axes=file.axes,
                dtype=file.dtype,
                chunk=CHUNK,
                channel_names=file.channel_names,
                pixel_size=file.pixel_size,
                attributes=_provenance(file),
                name=pair.name,
            )
            progress.start("importing", total=file.planes * -(-file.size("y") // CHUNK))
            for plane, y0, block in file.strips(CHUNK):
                data.write(plane, y0, 0, block)
                progress.advance()
            add_pyramid(partial)

    def write_dataset(
        self,
        pairs: Sequence[Pair],
        files: Sequence[ImageFile],
        rules: MaskRules,
        *,
        progress: Progress,
    ) -> None:
        """Write sample by sample; what is listed is complete."""
        progress.start("importing", total=len(pairs))
        if self.append:
            self._add(DatasetWriter(self.url), pairs, files, rules=rules, progress=progress)
            return
        with staged(self.url, inputs=_inputs(pairs), overwrite=self.overwrite) as partial:
            writer = DatasetWriter(partial, attributes={"command": "import", **_version()})
            self._add(writer, pairs, files, rules=rules, progress=progress)

    def _add(
        self,
        writer: DatasetWriter,
        pairs: Sequence[Pair],
        files: Sequence[ImageFile],
        *,
        rules: MaskRules,
        progress: Progress,
    ) -> None:
        before = writer.names
        try:
            for pair, file in zip(pairs, files, strict=True):
                _add_sample(writer, pair, file, rules=rules)
                progress.advance(status=pair.name)
            writer.finish()
        except BaseException:
            # In a dataset that was there before, only whole additions may stay.
            for name in set(writer.names) - set(before):
                if exists(join(writer.url, name)):
                    discard(join(writer.url, name))
            raise


def _inputs(pairs: Sequence[Pair]) -> list[str]:
    return [path for pair in pairs for path in (pair.image, pair.mask) if path]


def _add_sample(writer: DatasetWriter, pair: Pair, file: ImageFile, *, rules: MaskRules) -> None:
    image = file.load()
    drawn = read_mask(pair.mask, file) if pair.mask else None
    numbers = ignored = None
    notes: dict[str, Any] = {}
    if drawn is not None:
        at = file.axes.find("c")
        _check_differs(image[None] if at < 0 else np.moveaxis(image, at, 0), drawn, pair)
        numbers, ignored = make_labels(drawn, rules)
        notes = {"source": Path(str(pair.mask)).name}
        if rules.ignore is not None:
            notes["ignore_value"] = rules.ignore
        if rules.split:
            notes["connected_components"] = True
        if rules.kind == "classes":
            notes["mapping"] = {str(value): number for value, number in rules.mapping.items()}
    writer.add(
        pair.name,
        image,
        axes=file.axes,
        labels=numbers,
        kind=rules.kind,
        ignore=ignored,
        class_names=rules.class_names,
        channel_names=file.channel_names,
        pixel_size=file.pixel_size,
        attributes=_provenance(file),
        label_attributes=notes,
    )


def _check_differs(channels: NDArray[Any], mask: NDArray[Any], pair: Pair) -> None:
    if all(np.array_equal(channel, mask) for channel in channels):
        raise InputError(
            f"mask must differ from its image, got the same pixels in {pair.mask!r} and"
            f" {pair.image!r}; check --labels"
        )


def _provenance(file: ImageFile) -> dict[str, Any]:
    notes: dict[str, Any] = {"command": "import", "source_file": Path(file.path).name, **_version()}
    if file.alpha_dropped:
        notes["alpha_dropped"] = True
    return notes


def _version() -> dict[str, str]:
    return {"unetkit_version": __version__}
