#!/usr/bin/env bash
# Five annotated images and a slide, over night, on a shared machine. Usage: five_images.sh IMAGES MASKS SLIDE
set -euo pipefail

images=$1 masks=$2 slide=$3

# Each command either finishes what it writes or leaves nothing under that name, so a name that exists is done.
[ -e data.zarr ] || unetkit import "$images" --labels "$masks" data.zarr
[ -e more.zarr ] || unetkit augment data.zarr more.zarr --copies 4 --seed 1
unetkit weights more.zarr --overwrite

# The budget is the machine's, not the network's: the pace of the first 20 steps fixes how many fit, so that training ends
# at about that time. TRAIN holds more options, if any.
[ -e model.safetensors ] || unetkit train more.zarr --set width=16 --time-budget "${BUDGET:-30m}" ${TRAIN:-}
[ -e slide.zarr ] || unetkit import "$slide" slide.zarr

code=0
unetkit tile-predict slide.zarr --resume || code=$?
case $code in
  0) unetkit info slide.prediction.zarr ;;
  4) echo "the prediction was begun with other settings; look at it, then use --overwrite" >&2 ;;
  6) echo "the slide holds NaN; --nonfinite fill takes them for 0" >&2 ;;
  *) echo "tile-predict ended with $code; the README lists the exit codes" >&2 ;;
esac
exit "$code"
