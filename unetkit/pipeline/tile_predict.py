"""Predict images of any size, tile by tile, without a seam."""

from __future__ import annotations

from unetkit.pipeline.tile_predict_network import predict_array

__all__ = ["predict_array"]
