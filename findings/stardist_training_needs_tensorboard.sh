#!/usr/bin/env bash
# stardist 0.9.1 with tensorflow-cpu 2.21.0: a training with StarDist's defaults ends in an error about TensorBoard.
#
# Input: one image of 64 x 64 with two rectangles, and their labels. Seen: Config2D has train_tensorboard=True
# by default, and neither stardist, csbdeep nor tensorflow-cpu 2.21.0 names TensorBoard among what it needs
# (pip check is content), so that a fresh environment lacks it. Training learns for the whole first epoch
# and then ends in "TBNotInstalledError: TensorBoard is not installed"; no epoch is ever completed, and no
# weights are kept. With train_tensorboard=False the same training ends well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip" python="$folder/venv/bin/python"
"$pip" install -q --only-binary stardist stardist==0.9.1 csbdeep==0.8.2 tensorflow-cpu==2.21.0 keras==3.15.1 \
  numba==0.68.1 scikit-image==0.26.0 numpy==1.26.4
"$pip" check
cat >"$folder/learn.py" <<'P'
import sys
from importlib.metadata import requires
from pathlib import Path

import numpy as np
from stardist.models import Config2D, StarDist2D

for package in ("stardist", "csbdeep", "tensorflow-cpu"):
    always = [line for line in requires(package) if "extra ==" not in line]
    assert not any(line.lower().startswith("tensorboard") for line in always), package
labels = np.zeros((64, 64), np.uint16)
labels[8:24, 8:24], labels[36:52, 30:50] = 1, 2
image = (labels > 0).astype(np.float32)
small = dict(n_rays=8, train_patch_size=(32, 32), train_batch_size=1, unet_n_depth=1)
chosen = {} if sys.argv[1] == "default" else {"train_tensorboard": False}
config = Config2D(train_epochs=1, train_steps_per_epoch=2, **small, **chosen)
model = StarDist2D(config, name=sys.argv[1], basedir=sys.argv[2])
data = [image], [labels]
try:
    model.train(*data, validation_data=data)
except Exception as error:
    print(f"train_tensorboard={config.train_tensorboard}: {type(error).__name__}: {error}")
    assert config.train_tensorboard and "TensorBoard is not installed" in str(error)
else:
    print(f"train_tensorboard={config.train_tensorboard}: trained")
    assert not config.train_tensorboard
kept = sorted(path.name for path in Path(sys.argv[2], sys.argv[1]).glob("weights*"))
print("kept:", kept)
assert bool(kept) == (not config.train_tensorboard)
P
for chosen in default without; do
  TF_CPP_MIN_LOG_LEVEL=3 "$python" "$folder/learn.py" "$chosen" "$folder" 2>"$folder/log" | grep -E "^(train_tensorboard|kept)" || {
    tail -n 5 "$folder/log"
    echo "this has changed: $chosen"
    exit 1
  }
done
