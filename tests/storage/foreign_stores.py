"""Write the same image with other programs: python foreign_stores.py PACKAGE VERSION FOLDER.

It runs in the environment of the package, which need not be that of unetkit, and prints versions.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

# ruff: noqa: T201 - it says which versions have written

CHANNELS = ("DAPI", "GFP")
Y, X, Z = 0.5, 0.25, 2.0  # micrometres
UNIT = "micrometer"
WELLS = ("A/1", "B/2")


def pixels():
    """Return an image, (2, 70, 90)."""
    return np.random.default_rng(0).integers(0, 4000, (2, 70, 90)).astype(np.uint16)


def cells():
    """Return its instances, (70, 90)."""
    return np.random.default_rng(1).integers(0, 90_000, (7, 9)).repeat(10, 0).repeat(10, 1)


def ngio(kind, url):
    """Write an image with labels."""
    import ngio

    told = {"shards": (2, 64, 64), "chunks": (1, 32, 32)} if kind == "0.5 shards" else {}
    number, separator = kind.split()[0], "." if kind.endswith("dots") else "/"
    image = ngio.create_ome_zarr_from_array(
        store=url,
        array=pixels(),
        pixelsize=(Y, X),
        axes_names=["c", "y", "x"],
        channels_meta=CHANNELS,
        levels=2,
        ngff_version=number,
        dimension_separator=separator,
        **told,
    )
    labels = image.derive_label("nuclei", dtype="uint32")
    labels.set_array(cells().astype(np.uint32))
    labels.consolidate()


def ngff_zarr(kind, url):
    """Write an image; the package has no way to list labels."""
    import ngff_zarr

    image = ngff_zarr.to_ngff_image(
        pixels(),
        dims=("c", "y", "x"),
        scale={"c": 1.0, "y": Y, "x": X},
        axes_units={"y": UNIT, "x": UNIT},
        channel_names=CHANNELS,
    )
    told = {"chunks_per_shard": 2} if kind == "0.5 shards" else {}
    levels = ngff_zarr.to_multiscales(image, scale_factors=[2], chunks=32)
    levels.metadata.omero = ngff_zarr.compute_omero_from_multiscales(levels)
    ngff_zarr.to_ngff_zarr(url, levels, version=kind.split()[0], **told)


def ome_zarr(kind, url):
    """Write an image with labels."""
    import ome_zarr.format
    import ome_zarr.writer
    import zarr

    layout = getattr(ome_zarr.format, f"FormatV{kind.replace('.', '')}")()
    group = zarr.open_group(url, mode="w", zarr_format=layout.zarr_format)
    told = {"fmt": layout, "scale_factors": [2]}
    told |= {"scale": {"y": Y, "x": X}, "axes_units": {"y": UNIT, "x": UNIT}}
    ome_zarr.writer.write_image(
        pixels(), group, axes="cyx", **{**told, "scale": {"c": 1.0, "y": Y, "x": X}}
    )
    ome_zarr.writer.write_labels(cells().astype(np.uint32), group, name="nuclei", axes="yx", **told)
    named = {"channels": [{"label": name, "color": "FF0000"} for name in CHANNELS]}
    holder = dict(group.attrs)
    if kind == "0.5":
        group.attrs["ome"] = {**holder["ome"], "omero": named}
    else:
        group.attrs["omero"] = named


def bioio(kind, url):
    """Write an image."""
    from bioio_ome_zarr.writers import Channel, OMEZarrWriter

    told = {"shard_shape": [(2, 64, 64), (2, 32, 32)]} if kind == "0.5 shards" else {}
    writer = OMEZarrWriter(
        url,
        level_shapes=[(2, 70, 90), (2, 35, 45)],
        dtype="uint16",
        chunk_shape=[(1, 32, 32)] * 2,
        zarr_format=2 if kind == "0.4" else 3,
        channels=[Channel(label=name, color="FF0000") for name in CHANNELS],
        axes_names=["c", "y", "x"],
        axes_types=["channel", "space", "space"],
        axes_units=[None, UNIT, UNIT],
        physical_pixel_size=[1.0, Y, X],
        **told,
    )
    writer.write_full_volume(pixels())


def iohub(kind, url):
    """Write an image of five axes, or a plate of such."""
    from iohub.ngff import TransformationMeta, open_ome_zarr

    number, plate = kind.split()[0], kind.endswith("plate")
    layout = "hcs" if plate else "fov"
    with open_ome_zarr(
        url, layout=layout, mode="w", channel_names=list(CHANNELS), version=number
    ) as store:
        wells = [well.split("/") for well in WELLS]
        fields = [store.create_position(*well, "0") for well in wells] if plate else [store]
        for field in fields:
            scale = TransformationMeta(type="scale", scale=[1, 1, Z, Y, X])
            field.create_image("0", pixels()[None, :, None], transform=[scale])


def spatialdata(kind, url):
    """Write an image and labels, which lie beside each other."""
    import spatialdata as sd
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Scale

    scale = {"global": Scale([Y, X], axes=("y", "x"))}
    images = {
        "raw": Image2DModel.parse(
            pixels(),
            dims=("c", "y", "x"),
            c_coords=list(CHANNELS),
            scale_factors=[2],
            transformations=scale,
        )
    }
    labels = {
        "nuclei": Labels2DModel.parse(
            cells().astype(np.uint32), dims=("y", "x"), transformations=scale
        )
    }
    sd.SpatialData(images=images, labels=labels).write(url)


WRITERS = {
    "ngio": ngio,
    "ngff-zarr": ngff_zarr,
    "ome-zarr": ome_zarr,
    "bioio-ome-zarr": bioio,
    "iohub": iohub,
    "spatialdata": spatialdata,
}

if __name__ == "__main__":
    package, kind, folder = sys.argv[1:]
    WRITERS[package](kind, str(Path(folder)))
    print({name: version(name) for name in (package, "zarr")})
