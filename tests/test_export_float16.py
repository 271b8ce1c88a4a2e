"""Exports in float16: what is half and what is not, and how far such a file may be away.

onnxruntime's CPU has few kernels in float16 and computes in float32 between rounded values. So the
networks run in onnx's reference evaluator too, which rounds after every operator as a GPU does.
"""

from collections import Counter

import numpy as np
import onnx
import pytest
from cases import CASES
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from test_onnx import case_model, lenet, mnist_net, random_inputs, residual_net, shaken, two_by_two

import fastconv as fc
from fastconv import layers
from fastconv.cli import main
from fastconv.onnx import ExportError, exporter
from fastconv.serving import Session


def unet_piece():
    """Down and up again, joined with what came before."""
    x = inputs = fc.Input((16, 16, 2), name="image")
    left = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(left)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(6, 2, 2)(x)
    x = layers.Concatenate()([left, x])
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    return shaken(fc.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x)))


def normalized_first():
    """Normalizations that stand before their convolutions and cannot be folded."""
    x = inputs = fc.Input((8, 8, 3), name="image")
    x = layers.Activation("relu")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(4, 3, name="conv")(x)
    return shaken(fc.Model(inputs, layers.GlobalMaxPooling2D()(x)))


NETS = [lenet, mnist_net, residual_net, unet_piece, normalized_first, two_by_two]


def channels_first(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 3 else x


def feeds_of(model, path, n):
    names = [item.name for item in onnx.load(path).graph.input]
    arrays = random_inputs(model, n)
    return arrays, dict(zip(names, map(channels_first, arrays), strict=True))


def predictions(model, arrays):
    found = model.predict(arrays[0] if len(arrays) == 1 else arrays)
    return [channels_first(y) for y in (found if isinstance(found, list) else [found])]


def types_of(path):
    """Name → element type of every tensor in the file, inferred anew."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return graph, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


# ---- how far away ----


@pytest.mark.parametrize("make", NETS)
def test_the_file_is_as_near_as_it_says(make, tmp_path):
    model = make()
    report = model.export(tmp_path / "m.onnx", dtype="float16")
    assert 1e-6 < report.largest_error <= report.tolerance
    assert report.tolerance == pytest.approx(4 * report.float16_error)
    assert 2**-11 < report.float16_error < 0.01
    arrays, feeds = feeds_of(model, tmp_path / "m.onnx", 5)
    wanted = predictions(model, arrays)
    with Session(tmp_path / "m.onnx", "cpu") as session:
        on_cpu = session.run(feeds)
    truly_half = ReferenceEvaluator(str(tmp_path / "m.onnx")).run(None, feeds)
    for found in (on_cpu, truly_half):
        for y, want in zip(found, wanted, strict=True):
            assert y.dtype == np.float32
            # inputs of any sign are no inputs of the proof's, hence twice as much room
            np.testing.assert_allclose(y, want, atol=2 * report.tolerance * np.abs(want).max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_layer(case, tmp_path):
    report = case_model(case).export(tmp_path / "m.onnx", dtype="float16")
    assert report.largest_error <= report.tolerance


def test_a_fault_is_still_found(tmp_path, monkeypatch):
    """The tolerance is wider, not blind: weights one in a hundred off do not pass."""
    honest = exporter.rewrites.to_float16

    def faulty(graph, opset):
        for name, value in graph.initializers.items():
            if value.ndim == 4:
                graph.initializers[name] = value * np.float32(1.05)
        return honest(graph, opset)

    monkeypatch.setattr(exporter.rewrites, "to_float16", faulty)
    with pytest.raises(ExportError, match="of its scale away from the trainer's"):
        unet_piece().export(tmp_path / "m.onnx", dtype="float16")
    assert list(tmp_path.iterdir()) == []


# ---- what is half ----


@pytest.mark.parametrize("make", NETS)
def test_weights_are_half_and_the_ends_are_not(make, tmp_path):
    make().export(tmp_path / "m.onnx", dtype="float16")
    graph, types = types_of(tmp_path / "m.onnx")
    for value in (*graph.input, *graph.output):
        assert types[value.name] == TensorProto.FLOAT
    for node in graph.node:
        ends = {types[name] for name in (*node.input, *node.output) if name}
        if node.op_type in ("Softmax", "BatchNormalization"):
            assert ends == {TensorProto.FLOAT}
        elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "Relu", "MaxPool", "Concat"):
            assert ends == {TensorProto.FLOAT16}


def test_normalizations_are_folded_or_stay_in_float32(tmp_path):
    residual_net().export(tmp_path / "m.onnx", dtype="float16")
    assert "BatchNormalization" not in {
        n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node
    }
    normalized_first().export(tmp_path / "n.onnx", dtype="float16")
    graph, types = types_of(tmp_path / "n.onnx")
    (norm,) = (node for node in graph.node if node.op_type == "BatchNormalization")
    assert {types[name] for name in norm.input} == {TensorProto.FLOAT}


def test_one_cast_at_each_crossing(tmp_path):
    mnist_net().export(tmp_path / "m.onnx", dtype="float16")
    graph, _ = types_of(tmp_path / "m.onnx")
    assert Counter(node.op_type for node in graph.node)["Cast"] == 2  # the input, the logits
    two_by_two().export(tmp_path / "n.onnx", dtype="float16")
    names = [value.name for value in onnx.load(tmp_path / "n.onnx").graph.output]
    assert names == ["classes", "mask"]  # the outputs' names are the layers', as ever


def test_the_file_is_half_as_large(tmp_path):
    single = mnist_net().export(tmp_path / "m.onnx")
    half = mnist_net().export(tmp_path / "n.onnx", dtype="float16")
    assert half.parameters == single.parameters
    assert half.dtype == "float16"
    assert (tmp_path / "n.onnx").stat().st_size < 0.6 * (tmp_path / "m.onnx").stat().st_size


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_layouts_opsets_and_logits(layout, opset, tmp_path):
    options = {"input_layout": layout, "opset": opset, "output": "logits"}
    report = residual_net().export(tmp_path / "m.onnx", dtype="float16", **options)
    assert report.largest_error <= report.tolerance


# ---- what is said and refused ----


def test_it_is_told(tmp_path, capsys):
    report = mnist_net().export(tmp_path / "m.onnx", dtype="float16")
    assert "opset 17, IR 8, float16" in str(report)
    assert "float16 itself" in str(report)
    assert main(["info", str(tmp_path / "m.onnx")]) == 0
    words = capsys.readouterr().out.split()
    assert words[words.index("dtype") + 1] == "float16"
    with Session(tmp_path / "m.onnx", "cpu") as session:
        assert session.metadata["dtype"] == "float16"
        assert session.proof.tolerance == pytest.approx(report.tolerance)


def test_weights_beyond_the_range(tmp_path):
    model = mnist_net()
    (conv, *_) = (layer for layer in model.layers if isinstance(layer, layers.Conv2D))
    conv.parameters[0].assign(np.full(conv.parameters[0].shape, 7e4))
    with pytest.raises(ExportError, match=r"conv_a/kernel holds 7e\+04, float16 ends at 65504"):
        model.export(tmp_path / "m.onnx", dtype="float16")
    with pytest.raises(ValueError, match="dtype"):
        model.export(tmp_path / "m.onnx", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_values_beyond_the_range(tmp_path):
    scale = layers.Rescaling(1e4, name="scale")
    model = fc.Sequential([layers.Input((4,)), scale, layers.Dense(2)])
    with pytest.raises(ExportError, match=r"scale gives [12].*e\+06, float16 ends at 65504"):
        model.export(tmp_path / "m.onnx", dtype="float16", input_range=(0, 255))
    assert list(tmp_path.iterdir()) == []
