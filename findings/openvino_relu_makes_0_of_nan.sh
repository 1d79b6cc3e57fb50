#!/usr/bin/env bash
# OpenVINO 2026.4.1: a masked pixel, NaN, becomes 0 in the first ReLU, and no check of the output finds it.
#
# Input: a network of one 3 x 3 convolution and a ReLU, on the CPU, and a float32 image of ones with one NaN,
# which is how masked pixels of microscopy are stored; the weights are ones, so that 9 is right elsewhere.
# Seen: all 36 values that look at the masked pixel are 0, as though the image were dark there, and none is
# NaN. Without the ReLU all 36 are NaN. ONNX Runtime 1.32.0 hands NaN on through both, as NumPy does.
# Networks end with numbers that look right and mean nothing, where a framework would have shown NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'P'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper
from openvino import opset13 as layers

image = np.ones((1, 1, 8, 8), np.float32)
image[0, 0, 4, 4] = np.nan
weight = np.ones((4, 1, 3, 3), np.float32)


def with_openvino(*, relu):
    given = layers.parameter(image.shape, np.float32)
    found = layers.convolution(given, layers.constant(weight), [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([layers.relu(found) if relu else found], [given])
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    return next(iter(openvino.Core().compile_model(model, "CPU", exactly)([image]).values()))


def with_onnx_runtime(*, relu):
    nodes = [helper.make_node("Conv", ["image", "weight"], ["sum"])]
    nodes += [helper.make_node("Relu", ["sum"], ["positive"])] * relu
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image.shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [helper.make_tensor("weight", TensorProto.FLOAT, weight.shape, weight.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image})[0]


for how in (with_openvino, with_onnx_runtime):
    for relu in (False, True):
        found = how(relu=relu)
        print(how.__name__, "relu" if relu else "alone", "NaN:", np.isnan(found).sum(), np.unique(found))
        lost = relu and how is with_openvino
        assert np.isnan(found).sum() == (0 if lost else 36), "this has changed"
        assert (found == 0).sum() == (36 if lost else 0), "this has changed"
        assert (found == 9).sum() == 144 - 36, "this has changed"
P
