"""Exports: every file is run by onnxruntime here once more, on other inputs than the proof's."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from cases import CASES
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastconv as fc
from fastconv import layers
from fastconv.layer import Layer
from fastconv.layout import shown_first
from fastconv.onnx import ExportError, exporter, metadata, proof
from fastconv.onnx import samples as sampling

# -- models ----------------------------------------------------------------------------------------


def shaken(model, seed=0):
    """The model with every parameter moved off its initial value, biases and statistics too."""
    rng = np.random.default_rng(seed)
    for parameter in model.graph.parameters:
        noise = rng.normal(0, 0.2, parameter.shape)
        value = np.abs(parameter.value + noise) + 0.1
        parameter.assign(value if "variance" in parameter.name else parameter.value + noise)
    return model


def case_model(case):
    inputs = [fc.Input(shape) for shape in case.inputs]
    return shaken(fc.Model(inputs, case.make(*inputs)))


def mnist_net(**first):
    fc.set_random_seed(0)  # weights whose softmax is not saturated: it would hide a small fault
    return shaken(
        fc.Sequential(
            [
                layers.Input((28, 28, 1), name="image"),
                layers.Conv2D(8, 3, activation="relu", name="conv_a"),
                layers.Conv2D(12, 3, activation="relu", name="conv_b", **first),
                layers.MaxPooling2D(2, name="pool"),
                layers.Dropout(0.25, name="drop_a"),
                layers.Flatten(name="flatten"),
                layers.Dense(16, activation="relu", name="dense_a"),
                layers.Dropout(0.5, name="drop_b"),
                layers.Dense(10, activation="softmax", name="dense_b"),
            ]
        )
    )


def lenet():
    return shaken(
        fc.Sequential(
            [
                layers.Input((32, 32, 1)),
                layers.Conv2D(6, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Conv2D(16, 5, activation="tanh"),
                layers.AveragePooling2D(2),
                layers.Flatten(),
                layers.Dense(120, activation="tanh"),
                layers.Dense(84, activation="tanh"),
                layers.Dense(10, activation="softmax"),
            ]
        )
    )


def residual_net():
    x = inputs = fc.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.Conv2D(8, 3, 2, padding="same", use_bias=False, name="left_a")(x)
    y = layers.BatchNormalization(name="left_a_norm")(y)
    y = layers.Activation("relu", name="left_relu")(y)
    y = layers.Conv2D(8, 3, padding="same", name="left_b")(y)
    y = layers.BatchNormalization(name="left_b_norm", scale=False)(y)
    s = layers.Conv2D(8, 1, 2, name="right")(x)
    s = layers.BatchNormalization(name="right_norm", center=False)(s)
    x = layers.Activation("relu", name="joined")(layers.Add(name="add")([y, s]))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.BatchNormalization(name="vector_norm")(layers.Dense(6, name="hidden")(x))
    return shaken(fc.Model(inputs, layers.Dense(4, activation="softmax", name="classes")(x)))


def inception_net():
    x = inputs = fc.Input((12, 10, 3))
    a = layers.Conv2D(4, 1, activation="relu")(x)
    b = layers.Conv2D(6, 3, padding="same", activation="elu")(a)
    c = layers.MaxPooling2D(3, 1, padding="same")(x)
    inner = layers.Concatenate()([b, c])
    x = layers.Concatenate()([a, inner, layers.Conv2D(2, 5, padding="same")(inner)])
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    left, right = layers.Flatten()(x), layers.GlobalMaxPooling2D()(x)
    x = layers.Concatenate()([left, right, layers.Flatten()(a)])
    return shaken(fc.Model(inputs, layers.Dense(5, activation="softmax")(x)))


def two_by_two():
    """Two inputs, two outputs: an image and a vector, classes and an image."""
    image, vector = fc.Input((8, 9, 2), name="image"), fc.Input((5,), name="vector")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="features")(image)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    y = layers.Concatenate(name="both")([layers.GlobalAveragePooling2D(name="mean")(x), vector])
    y = layers.Dense(3, activation="softmax", name="classes")(y)
    return shaken(fc.Model([image, vector], [y, mask]))


def siamese():
    a, b = fc.Input((10, 10, 1), name="a"), fc.Input((10, 10, 1), name="b")
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    dense = layers.Dense(6, activation="tanh", name="dense")
    left, right = (dense(layers.Flatten()(conv(x))) for x in (a, b))
    return shaken(fc.Model([a, b], layers.Dense(1, name="score")(layers.Add()([left, right]))))


NETS = [mnist_net, lenet, residual_net, inception_net, two_by_two, siamese]

# -- running ---------------------------------------------------------------------------------------


def run(path, *arrays, layout="NCHW"):
    """Outputs of the file; images in the model's order on both sides, whatever the file has.

    ``layout`` is the order of the file in which images have to be moved.
    """
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    about = metadata.decode(session.get_modelmeta().custom_metadata_map)
    there, back = ((-1, 1), (1, -1)) if layout == "NCHW" else ((1, -1), (-1, 1))
    moved = about["layout"] == layout
    feed = {
        entry.name: np.ascontiguousarray(np.moveaxis(x, *there)) if moved and x.ndim > 3 else x
        for entry, x in zip(session.get_inputs(), arrays, strict=True)
    }
    found = session.run(None, feed)
    return [np.moveaxis(y, *back) if moved and y.ndim > 3 else y for y in found]


def random_inputs(model, n, seed=7, sizes=(13, 17)):
    rng = np.random.default_rng(seed)
    shapes = []
    for tensor in model.inputs:
        spare = iter(sizes)
        shapes.append([next(spare) if size is None else size for size in tensor.sample_shape])
    return [rng.normal(0, 1, (n, *shape)).astype(np.float32) for shape in shapes]


def outputs_of(model, arrays):
    found = model.predict(arrays[0] if len(arrays) == 1 else arrays)
    return found if isinstance(found, list) else [found]


def export(model, path, **options):
    """Export and compare with the trainer on other inputs and batch sizes than the proof's."""
    report = model.export(path, **options)
    moved = "NHWC" if shown_first(model.graph) else "NCHW"
    for n in (1, 5):
        arrays = random_inputs(model, n)
        found = run(path, *arrays, layout=moved)
        for want, got in zip(outputs_of(model, arrays), found, strict=True):
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1, np.abs(want).max()))
    return report


def nodes_of(path):
    return list(onnx.load(path).graph.node)


def operators(path):
    return Counter(node.op_type for node in nodes_of(path))


# -- parity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_layer(case, layout, tmp_path):
    report = export(case_model(case), tmp_path / "m.onnx", input_layout=layout)
    assert report.largest_error <= report.tolerance


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("make", NETS)
def test_whole_nets(make, layout, tmp_path):
    report = export(make(), tmp_path / "m.onnx", input_layout=layout)
    assert report.runtime == "onnxruntime"
    assert report.batch_sizes == (1, 4)


@pytest.mark.parametrize("make", NETS)
def test_no_transpose_where_channels_come_first(make, tmp_path):
    export(make(), tmp_path / "m.onnx")
    assert not {"Transpose", "Identity", "Gather", "Dropout"} & set(operators(tmp_path / "m.onnx"))


def test_channels_last_costs_one_transpose_or_none(tmp_path):
    export(residual_net(), tmp_path / "rgb.onnx", input_layout="NHWC")
    assert operators(tmp_path / "rgb.onnx")["Transpose"] == 1
    export(mnist_net(), tmp_path / "grey.onnx", input_layout="NHWC")
    counted = operators(tmp_path / "grey.onnx")
    assert (counted["Transpose"], counted["Reshape"]) == (0, 1)


@pytest.mark.parametrize("opset", exporter.OPSETS)
@pytest.mark.parametrize("make", [inception_net, residual_net])
def test_every_opset(make, opset, tmp_path):
    report = export(make(), tmp_path / "m.onnx", opset=opset)
    model = onnx.load(tmp_path / "m.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert report.ir_version == model.ir_version == {19: 9, 20: 9, 21: 10}.get(opset, 8)


def generator_net():
    """Up and down again: transposed convolutions of all paddings, batch norm, depthwise."""
    x = fc.Input((4, 5, 3))
    y = layers.Conv2DTranspose(6, 4, strides=2, padding="same", use_bias=False)(x)
    y = layers.Activation("relu")(layers.BatchNormalization()(y))
    y = layers.Conv2DTranspose(5, (2, 3), strides=(3, 2), output_padding=(0, 1))(y)
    y = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="tanh")(y)
    y = layers.DepthwiseConv2D((1, 3), depth_multiplier=2)(y)
    return fc.Model(x, layers.Conv2D(10, 3, groups=10, padding="same")(y))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("opset", exporter.OPSETS)
def test_transposed_and_depthwise_in_every_opset(opset, fold, layout, tmp_path):
    path = tmp_path / "m.onnx"
    report = export(generator_net(), path, opset=opset, fold_batch_norm=fold, input_layout=layout)
    assert report.largest_error <= report.tolerance
    assert operators(path)["ConvTranspose"] == 2
    assert operators(path)["Conv"] == 3
    assert operators(path)["BatchNormalization"] == (0 if fold else 1)


def test_transposed_convolutions_of_images_of_any_size(tmp_path):
    x = fc.Input((None, None, 3))
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    model = fc.Model(x, layers.DepthwiseConv2D(3, padding="same")(y))
    sample = np.random.default_rng(0).normal(size=(2, 7, 9, 3)).astype(np.float32)
    report = export(model, tmp_path / "m.onnx", samples=sample)
    assert report.largest_error <= report.tolerance


@pytest.mark.parametrize("opset", [12, 22, "17", True, 17.0])
def test_unknown_opsets_are_refused(opset, tmp_path):
    with pytest.raises(ValueError, match="opset"):
        mnist_net().export(tmp_path / "m.onnx", opset=opset)


@pytest.mark.parametrize("max_value", [None, 1.0])
@pytest.mark.parametrize("negative_slope", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_every_form_of_relu(max_value, negative_slope, threshold, tmp_path):
    x = fc.Input((3, 4, 2))
    model = fc.Model(x, layers.ReLU(max_value, negative_slope, threshold)(x))
    model.export(tmp_path / "m.onnx", input_range=(-3, 3))
    values = np.array([-2, -0.5, 0, 0.25, 0.5, 0.75, 1, 2], np.float32)  # the kinks among them
    x = np.tile(values, 3).reshape(1, 3, 4, 2)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x)[0], model.predict(x), atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 4, 6)])
def test_every_activation_at_every_rank(name, shape, tmp_path):
    x = fc.Input(shape)
    export(fc.Model(x, layers.Activation(name)(x)), tmp_path / "m.onnx", input_range=(-2, 2))


@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6), (2, 3, 4, 6)])
def test_dense_at_every_rank(shape, tmp_path):
    x = fc.Input(shape)
    y = layers.Dense(3, activation="softmax", name="dense")(x)
    export(shaken(fc.Model(x, y)), tmp_path / "m.onnx")
    assert "Transpose" not in operators(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("shape", "target"),
    [((4, 6, 3), (6, 4, 3)), ((24,), (2, 3, 4)), ((4, 6, 1), (24, 1)), ((16,), (4, 4, 1)),
     ((2, 3, 4), (24,)), ((5, 4), (2, 10)), ((1, 1, 8), (2, 2, 2))],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_reshape_keeps_the_order_of_the_trainer(shape, target, layout, tmp_path):
    x = fc.Input(shape)
    y = layers.Reshape(target)(x)
    z = layers.Conv2D(2, 1)(y) if len(target) == 3 else layers.Dense(2)(y)
    export(shaken(fc.Model(x, [y, z])), tmp_path / "m.onnx", input_layout=layout)


def test_reshape_of_one_channel_moves_nothing(tmp_path):
    x = fc.Input((64,))
    y = layers.Conv2D(2, 3)(layers.Reshape((8, 8, 1))(x))
    export(shaken(fc.Model(x, layers.Dense(2)(layers.Flatten()(y)))), tmp_path / "m.onnx")
    assert operators(tmp_path / "m.onnx") == {"Reshape": 1, "Conv": 1, "Flatten": 1, "Gemm": 1}


def test_layers_between_flatten_and_dense_keep_the_files_order(tmp_path):
    x = fc.Input((3, 4, 5))
    y = layers.Flatten()(x)
    y = layers.BatchNormalization()(layers.ReLU()(layers.Rescaling(2.0, -0.5)(y)))
    y = layers.Softmax()(layers.Add()([y, layers.Flatten()(x)]))
    export(shaken(fc.Model(x, layers.Dense(3)(y))), tmp_path / "m.onnx")
    assert "Gather" not in operators(tmp_path / "m.onnx")


def test_a_flattened_image_as_output_is_in_the_trainers_order(tmp_path):
    x = fc.Input((3, 4, 5))
    export(fc.Model(x, layers.Flatten()(x)), tmp_path / "m.onnx")


def test_flattened_and_plain_vectors_are_added(tmp_path):
    x, v = fc.Input((3, 4, 5)), fc.Input((60,))
    y = layers.Concatenate()([layers.Add()([layers.Flatten()(x), v]), v])
    export(shaken(fc.Model([x, v], layers.Dense(2)(y))), tmp_path / "m.onnx")


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2])
def test_concatenation_along_every_axis(axis, tmp_path):
    a, b = fc.Input((4, 4, 4)), fc.Input((4, 4, 4))
    shaped = layers.Reshape((4, 4, 4))(b)  # lies channels last in the file
    export(fc.Model([a, b], layers.Concatenate(axis=axis)([a, shaped])), tmp_path / "m.onnx")


def test_inputs_and_twins_as_outputs(tmp_path):
    x = fc.Input((4, 4, 2), name="x")
    y = layers.Conv2D(3, 1, name="y")(x)
    model = shaken(fc.Model(x, [x, y, y, layers.Dropout(0.5)(y)]))
    export(model, tmp_path / "m.onnx")
    names = [value.name for value in onnx.load(tmp_path / "m.onnx").graph.output]
    assert len(set(names)) == 4
    assert names[1] == "y"


# -- windows ---------------------------------------------------------------------------------------


@st.composite
def windows(draw):
    """A convolution or pooling and the size of an image, all of it small."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    pads = [(draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel]
    padding = draw(st.sampled_from(["valid", "same", tuple(pads)]))
    common = {
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
    }
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    kind = draw(st.sampled_from(["conv", "max", "average", "average with padding"]))
    if kind == "conv":
        dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        layer = layers.Conv2D(4, kernel, groups=groups, dilation_rate=dilation, **common)
    elif kind == "max":
        layer = layers.MaxPooling2D(kernel, **common)
    else:
        layer = layers.AveragePooling2D(
            kernel, count_include_pad=kind == "average with padding", **common
        )
    return layer, draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))


def depends_on_the_size(layer):
    """Whether the padding differs from size to size in a way that ONNX has no form for."""
    window = getattr(layer, "kernel_size", None) or layer.pool_size
    pairs = list(zip(window, layer.strides, strict=True))
    if layer.padding != "same" or all(w == 1 or s == 1 for w, s in pairs):
        return False
    return max(getattr(layer, "dilation_rate", (1,))) > 1 or any(w < s for w, s in pairs)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=windows(), symbolic=st.booleans())
def test_windows(case, symbolic, tmp_path_factory):
    layer, size = case
    x = fc.Input((None, None, 4) if symbolic else (*size, 4))
    try:
        layer.output_shape((*size, 4))
    except ValueError:
        assume(False)
    model = shaken(fc.Model(x, layer(x)))
    path = tmp_path_factory.mktemp("windows") / "m.onnx"
    if symbolic and depends_on_the_size(layer):
        with pytest.raises(ExportError, match=rf"{layer.name} .*explicit padding"):
            model.export(path)
        return
    model.export(path)
    arrays = random_inputs(model, 3, sizes=size)
    (want,), (got,) = outputs_of(model, arrays), run(path, *arrays)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * max(1, np.abs(want).max()))


def test_symbolic_sizes(tmp_path):
    x = inputs = fc.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(4, 3, 2, padding="same", name="halved")(x)
    x = layers.ZeroPadding2D(1)(x)
    y = layers.Dense(2, name="pixels")(x)
    z = layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(x))
    report = export(shaken(fc.Model(inputs, [y, z])), tmp_path / "m.onnx")
    assert report.inputs == {"image": ("batch", 3, "height", "width")}
    assert report.outputs["classes"] == ("batch", 3)
    attributes = {
        node.name: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in nodes_of(tmp_path / "m.onnx")
    }
    assert attributes["halved"]["auto_pad"] == b"SAME_UPPER"
    assert [a for a in attributes.values() if a.get("pads") == [1, 1, 1, 1]]  # stride 1: explicit


def test_dilated_strided_same_padding_of_unknown_sizes_is_refused(tmp_path):
    x = fc.Input((None, None, 1))
    y = layers.Conv2D(2, 3, 2, padding="same", dilation_rate=2, name="atrous")(x)
    with pytest.raises(ExportError, match=r"atrous.*explicit padding"):
        fc.Model(x, y).export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


# -- what stands in the file -----------------------------------------------------------------------


def test_names_are_the_layers_names(tmp_path):
    mnist_net().export(tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [(node.op_type, node.name, *node.output) for node in graph.node] == [
        ("Conv", "conv_a", "conv_a/conv"),
        ("Relu", "conv_a/relu", "conv_a"),
        ("Conv", "conv_b", "conv_b/conv"),
        ("Relu", "conv_b/relu", "conv_b"),
        ("MaxPool", "pool", "pool"),
        ("Flatten", "flatten", "flatten"),
        ("Gemm", "dense_a", "dense_a/gemm"),
        ("Relu", "dense_a/relu", "dense_a"),
        ("Gemm", "dense_b", "dense_b/gemm"),
        ("Softmax", "dense_b/softmax", "dense_b"),
    ]
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["dense_b"]
    assert sorted(entry.name for entry in graph.initializer) == sorted(
        f"{layer}/{name}"
        for layer in ("conv_a", "conv_b", "dense_a", "dense_b")
        for name in ("kernel", "bias")
    )


def test_a_shared_layers_weights_stand_there_once(tmp_path):
    siamese().export(tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sorted(entry.name for entry in graph.initializer) == [
        "conv/bias", "conv/kernel", "dense/bias", "dense/kernel", "score/bias", "score/kernel",
    ]  # fmt: skip
    names = [node.name for node in graph.node]
    assert {"conv", "conv_1", "dense", "dense_1"} <= set(names)
    assert len(set(names)) == len(names)


def test_a_second_use_takes_no_other_layers_name(tmp_path):
    x = fc.Input((6, 6, 1), name="x")
    conv = layers.Conv2D(1, 3, padding="same", name="conv")
    y = layers.ReLU(name="conv_1")(conv(conv(x)))
    model = shaken(fc.Model(x, y))
    export(model, tmp_path / "m.onnx")
    assert [node.name for node in nodes_of(tmp_path / "m.onnx")] == ["conv", "conv_1_1", "conv_1"]


def test_one_layer_on_two_orders_of_the_same_vector(tmp_path):
    x, v = fc.Input((3, 4, 5)), fc.Input((60,))
    dense = layers.Dense(2, name="dense")
    model = shaken(fc.Model([x, v], [dense(layers.Flatten()(x)), dense(v)]))
    export(model, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sorted(entry.name for entry in graph.initializer) == [
        "dense/bias", "dense/kernel", "dense/kernel_1",
    ]  # fmt: skip


def test_axes_are_symbolic_and_the_image_order_is_as_asked(tmp_path):
    model = two_by_two()
    first = model.export(tmp_path / "a.onnx")
    assert first.inputs == {"image": ("batch", 2, 8, 9), "vector": ("batch", 5)}
    assert first.outputs == {"classes": ("batch", 3), "mask": ("batch", 1, 8, 9)}
    last = model.export(tmp_path / "b.onnx", input_layout="NHWC")
    assert last.inputs == {"image": ("batch", 8, 9, 2), "vector": ("batch", 5)}
    assert last.outputs == {"classes": ("batch", 3), "mask": ("batch", 8, 9, 1)}
    for path, report in (("a.onnx", first), ("b.onnx", last)):
        for value in onnx.load(tmp_path / path).graph.input:
            dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert tuple(dims) == report.inputs[value.name]


@pytest.mark.parametrize("last", [{"activation": "softmax"}, {"activation": "sigmoid"}, {}])
@pytest.mark.parametrize("apart", [False, True])
def test_logits(last, apart, tmp_path):
    x = fc.Input((5, 5, 2))
    y = layers.Flatten()(x)
    kind = last.get("activation", "linear")
    y = layers.Activation(kind)(layers.Dense(4)(y)) if apart else layers.Dense(4, **last)(y)
    model = shaken(fc.Model(x, y))
    before = model.get_weights()
    model.export(tmp_path / "m.onnx", output="logits")
    assert operators(tmp_path / "m.onnx") == {"Flatten": 1, "Gemm": 1}
    arrays = random_inputs(model, 3)
    (logits,), (want,) = run(tmp_path / "m.onnx", *arrays), outputs_of(model, arrays)
    if kind == "softmax":
        logits = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    elif kind == "sigmoid":
        logits = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(logits, want, atol=1e-5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_logits_that_the_network_itself_reads_are_refused(tmp_path):
    x = fc.Input((5,))
    gate = layers.Dense(4, activation="sigmoid", name="gate")(x)
    model = fc.Model(x, [gate, layers.Dense(2)(gate)])
    with pytest.raises(ExportError, match="gate"):
        model.export(tmp_path / "m.onnx", output="logits")


def test_folding_batch_norm_changes_no_number_that_matters(tmp_path):
    model = residual_net()
    plain = export(model, tmp_path / "plain.onnx")
    folded = export(model, tmp_path / "folded.onnx", fold_batch_norm=True)
    assert plain.operators["BatchNormalization"] == 5
    assert folded.operators["BatchNormalization"] == 0
    assert folded.nodes == plain.nodes - 5
    assert folded.parameters < plain.parameters


def test_folding_leaves_what_others_read(tmp_path):
    x = fc.Input((6, 6, 2))
    conv = layers.Conv2D(3, 3, name="conv")
    a = conv(x)
    b = layers.BatchNormalization(name="norm")(a)
    c = layers.BatchNormalization(name="other")(conv(x))  # the weights are read twice
    d = layers.BatchNormalization(name="first")(x)  # no convolution before it
    model = shaken(fc.Model(x, [layers.Add()([a, b]), c, d]))
    report = export(model, tmp_path / "m.onnx", fold_batch_norm=True)
    assert report.operators["BatchNormalization"] == 2
    names = {entry.name for entry in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"conv/kernel", "other/folded_kernel", "norm/gamma", "first/gamma"} <= names
    assert "other/gamma" not in names


# -- metadata --------------------------------------------------------------------------------------


def read_metadata(path):
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return session, metadata.decode(session.get_modelmeta().custom_metadata_map)


def test_metadata_come_back(tmp_path):
    names = [f"digit {i}" for i in range(9)] + ["zéro"]
    model = mnist_net()
    model.export(tmp_path / "m.onnx", class_names=names, input_range=(0, 255))
    session, about = read_metadata(tmp_path / "m.onnx")
    assert about["version"] == fc.__version__
    assert about["class_names"] == names
    assert about["layout"] == "NCHW"
    assert about["output"] == "probabilities"
    assert about["inputs"] == {"image": {"shape": ["batch", 1, 28, 28], "range": [0.0, 255.0]}}
    assert about["weights_sha256"] == metadata.weights_sha256(model.graph.parameters)
    inputs, outputs = metadata.decode_samples(about["samples"])
    assert inputs["image"].shape == (4, 1, 28, 28)
    assert inputs["image"].max() > 200
    (got,) = session.run(["dense_b"], inputs)
    bound = about["samples"]["tolerance"]["dense_b"] * about["samples"]["scale"]["dense_b"]
    assert np.abs(got - outputs["dense_b"]).max() <= bound
    want = model.predict(np.moveaxis(inputs["image"], 1, -1))
    np.testing.assert_array_equal(outputs["dense_b"], want)


def test_another_weight_is_another_hash():
    model = mnist_net()
    before = metadata.weights_sha256(model.graph.parameters)
    model.graph.parameters[3].value.flat[0] += 1
    assert metadata.weights_sha256(model.graph.parameters) != before


@pytest.mark.parametrize(("size", "outputs"), [(90, "small"), (90, "large")])
def test_large_samples_are_a_seed(size, outputs, tmp_path):
    x = fc.Input((size, size, 3), name="x")
    y = layers.Conv2D(3, 3, name="y")(x)
    if outputs == "small":
        y = layers.GlobalAveragePooling2D(name="y_mean")(y)
    model = shaken(fc.Model(x, y))
    model.export(tmp_path / "m.onnx")
    session, about = read_metadata(tmp_path / "m.onnx")
    text = session.get_modelmeta().custom_metadata_map["fastconv.samples"]
    assert len(text) <= metadata.MAX_SAMPLES_BYTES
    inputs, expected = metadata.decode_samples(about["samples"])
    (got,) = session.run(None, inputs)
    (want,) = expected.values()
    if outputs == "small":
        np.testing.assert_allclose(got, want, atol=1e-5)
    else:
        assert want["shape"] == list(got.shape)
        values = metadata.decode_array(want["values"])
        np.testing.assert_allclose(got.ravel()[want["places"]], values, atol=1e-5)
        assert abs(float(np.abs(got).max()) - want["largest"]) < 1e-4


def test_real_samples_are_proved_and_stored(tmp_path):
    model = mnist_net()
    x = np.random.default_rng(3).integers(0, 256, (7, 28, 28, 1)).astype(np.uint8)
    report = model.export(tmp_path / "m.onnx", samples=x)
    assert report.batch_sizes == (1, 7)
    _, about = read_metadata(tmp_path / "m.onnx")
    inputs, outputs = metadata.decode_samples(about["samples"])
    np.testing.assert_array_equal(np.moveaxis(inputs["image"], 1, -1), x)
    np.testing.assert_array_equal(outputs["dense_b"], model.predict(x))
    assert model.export(tmp_path / "m.onnx", samples=x[:1]).batch_sizes == (1, 2)


def test_the_generator_is_philox_by_its_definition():
    made = metadata.generate(5, (2, 3), -1, 3)
    raw = np.random.Philox(key=5).random_raw(6)
    want = [-1 + 4 * ((int(r) >> 40) / 2**24) for r in raw]
    np.testing.assert_allclose(made.ravel(), want, atol=1e-6)
    assert made.dtype == np.float32


def test_bytes_are_guessed_from_a_rescaling():
    x = fc.Input((4, 4, 1))
    for scale, offset, known in (
        (1 / 255, 0, (0, 255)),
        (1 / 16, 0, (0, 16)),
        (1 / 127.5, -1, (0, 255)),
        (1 / 255, -0.5, (0, 255)),
        (-1, 0, None),
        (1, 0.5, None),
    ):
        model = fc.Model(x, layers.Rescaling(scale, offset)(x))
        assert sampling.known_range(model.graph) == known
    assert sampling.known_range(fc.Model(x, layers.ReLU()(x)).graph) is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"class_names": ["a"]}, "1 class_names for an output of 10"),
        ({"class_names": "abcdefghij"}, "list of strings"),
        ({"input_range": (1, 0)}, "low < high"),
        ({"input_range": (0, np.nan)}, "input_range"),
        ({"input_layout": "NCWH"}, "input_layout 'NCWH'.*NCHW, NHWC"),
        ({"output": "logit"}, "output 'logit'; did you mean 'logits'"),
        ({"samples": np.zeros((2, 27, 28, 1))}, "samples for image"),
    ],
)
def test_wrong_options(options, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        mnist_net().export(tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


# -- the proof -------------------------------------------------------------------------------------


def test_the_report_reads_well(tmp_path):
    report = mnist_net().export(tmp_path / "m.onnx")
    assert report.path == str(tmp_path / "m.onnx")
    assert report.size_bytes == (tmp_path / "m.onnx").stat().st_size
    assert (report.opset, report.ir_version, report.nodes) == (17, 8, 10)
    assert report.parameters == sum(w.size for w in mnist_net().get_weights())
    assert report.operators["Relu"] == 3
    assert 0 < report.scale <= 1
    assert report.tolerance == max(1e-5, 4 * report.float32_error)
    assert 0 < report.float32_error < 1e-5
    text = str(report)
    for word in ("opset 17", "IR 8", "2 Conv", "onnxruntime", "tolerance 1e-05", "batch, 1, 28"):
        assert word in text


def tampered(monkeypatch, change):
    """Make the exporter write what ``change`` makes of the model."""
    original = exporter.to_proto

    def write(*args):
        model = original(*args)
        change(model)
        return model

    monkeypatch.setattr(exporter, "to_proto", write)


def spoil(name):
    def change(model):
        for entry in model.graph.initializer:
            if entry.name == name:
                value = onnx.numpy_helper.to_array(entry).copy()
                value += 0.5
                entry.CopyFrom(onnx.numpy_helper.from_array(value, name))

    return change


def swap(model, name):
    for entry in model.graph.initializer:
        if entry.name == name:
            value = onnx.numpy_helper.to_array(entry)[:, ::-1]
            entry.CopyFrom(onnx.numpy_helper.from_array(value.copy(), name))


@pytest.mark.parametrize("name", ["conv_a/kernel", "conv_b/bias", "dense_a/kernel"])
def test_a_file_that_fails_leaves_nothing_behind(name, tmp_path, monkeypatch):
    tampered(monkeypatch, spoil(name))
    layer = name.partition("/")[0]
    with pytest.raises(ExportError, match=rf"dense_b.*first layer that differs is {layer} \("):
        mnist_net().export(tmp_path / "m.onnx", input_range=(0.5, 1))
    assert list(tmp_path.iterdir()) == []


def test_float64_is_asked_about_the_sample_that_loses_more_digits(tmp_path, monkeypatch):
    # logits 3000 apart: rounding decides between two classes, but not for the first sample, to
    # which float64 is limited
    model = fc.Sequential([layers.Input((4096,)), layers.Dense(2, activation="softmax", name="d")])
    rng = np.random.default_rng(3)
    weight = 100 * rng.standard_normal((4096, 2))
    weight[:, 1] = weight[::-1, 0]  # a palindrome's logits are equal, up to the order of the sum
    model.layers[-1].weight.assign(weight.astype(np.float32))
    half = rng.random((3, 2048), np.float32)
    x = np.concatenate([half, half[:, ::-1]], axis=1)
    x[0] = rng.random(4096)
    monkeypatch.setattr(proof, "FLOAT64_WORK", 0)
    report = model.export(tmp_path / "m.onnx", samples=x)
    assert report.tolerance > 4 * proof.FLOOR
    assert report.largest_error <= report.tolerance
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    about = metadata.decode(props)
    assert about["samples"]["tolerance"] == {"d": report.tolerance}
    tampered(monkeypatch, lambda model: swap(model, "d/kernel"))  # what is wrong stays refused
    with pytest.raises(ExportError, match="away from the trainer's"):
        model.export(tmp_path / "m.onnx", samples=x)


def test_a_file_that_fails_leaves_the_old_one_alone(tmp_path, monkeypatch):
    model = mnist_net()
    model.export(tmp_path / "m.onnx")
    old = (tmp_path / "m.onnx").read_bytes()
    tampered(monkeypatch, spoil("conv_a/kernel"))
    with pytest.raises(ExportError):
        model.export(tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == old


def test_what_the_checker_refuses_is_refused(tmp_path, monkeypatch):
    def change(model):
        model.graph.node[0].input[0] = "nobody"

    tampered(monkeypatch, change)
    with pytest.raises(ExportError, match="nobody"):
        mnist_net().export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_wrong_shapes_are_refused(tmp_path, monkeypatch):
    def change(model):
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11

    tampered(monkeypatch, change)
    with pytest.raises(ExportError):
        mnist_net().export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    model = mnist_net()
    model.get_layer("dense_a").parameters[0].value[3, 4] = np.nan
    with pytest.raises(ExportError, match="dense_a/kernel"):
        model.export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [mnist_net, residual_net])
def test_without_onnxruntime_the_reference_evaluator_proves(make, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    report = make().export(tmp_path / "m.onnx")
    assert report.runtime == "onnx.reference"
    assert report.runtime_version == onnx.__version__
    assert report.largest_error <= report.tolerance


def test_the_reference_evaluator_has_a_time_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"within 0\.01 s"):
        mnist_net().export(tmp_path / "m.onnx", time_cap=0.01)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime_a_wrong_file_fails_too(tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    tampered(monkeypatch, spoil("conv_a/kernel"))
    with pytest.raises(ExportError, match=r"onnx\.reference.*conv_a"):
        mnist_net().export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


# -- errors and side effects -----------------------------------------------------------------------


class Mystery(Layer):
    """A user's layer that says nothing of ONNX."""

    def output_shape(self, *inputs):
        return inputs[0]


class Doubled(Mystery):
    """A user's layer that says how it looks in ONNX, but only in opset 18 and newer."""

    def to_onnx(self, scope, inputs):
        scope.require(18, "this test")
        return scope.node("Add", [inputs[0], inputs[0]], inputs[0])


class ScaledSquare(Mystery):
    """A user's layer in numpy, with a parameter: y = scale · x²."""

    def build(self, shape):
        self.scale = self.add_parameter("scale", shape[-1:], fc.initializers.Ones())

    def forward(self, b, frame):
        y = b.value(frame.inputs[0].shape)
        b.python(self._forward, reads=[frame.inputs[0], self.scale], writes=[y])
        return y

    def _forward(self, arrays, training):
        x, scale, y = arrays
        y[...] = scale * x**2

    def to_onnx(self, scope, inputs):
        x = scope.plain(inputs[0])  # the scale belongs to the last axis
        squared = scope.node("Mul", [x, x], x)
        return scope.node("Mul", [squared, scope.parameter(self.scale)], x)


class Liar(Mystery):
    """A user's layer whose two shapes differ."""

    def to_onnx(self, scope, inputs):
        return scope.node("Relu", inputs, replace(inputs[0], shape=(9,)))


def test_a_layer_without_onnx_form_is_named(tmp_path):
    x = fc.Input((4,))
    model = fc.Model(x, layers.Dense(2)(Mystery(name="riddle")(x)))
    with pytest.raises(ExportError, match=r"riddle \(Mystery\).*to_onnx"):
        model.export(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_layer_is_exported_and_proved(tmp_path):
    x = fc.Input((6, 5, 3), name="x")
    y = ScaledSquare(name="square")(layers.Conv2D(4, 3, name="conv")(x))
    y = layers.Conv2D(2, 3, name="last")(y)
    export(shaken(fc.Model(x, y)), tmp_path / "m.onnx")
    assert [node.name for node in nodes_of(tmp_path / "m.onnx")] == [
        "conv", "conv/transpose", "square", "square/mul_1", "square/transpose", "last",
    ]  # fmt: skip


def test_a_layer_whose_onnx_form_has_another_shape_is_named(tmp_path):
    x = fc.Input((4,))
    with pytest.raises(ExportError, match=r"liar \(Liar\).*\(None, 9\).*\(None, 4\)"):
        fc.Model(x, Liar(name="liar")(x)).export(tmp_path / "m.onnx")


def test_what_an_opset_cannot_say_is_refused_with_the_layers_name(tmp_path):
    x = fc.Input((4,))
    graph = fc.Model(x, Doubled(name="twice")(x)).graph
    with pytest.raises(ExportError, match=r"twice.*opset 18.*has 17"):
        exporter.describe(graph, 17, "NCHW")
    described = exporter.describe(graph, 18, "NCHW").graph
    assert [node.op for node in described.nodes] == ["Add"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX paths")
@pytest.mark.parametrize("path", ["/proc/nowhere/m.onnx", "missing/m.onnx", "."])
def test_an_unwritable_path_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the name is what is asked for)
        mnist_net().export(path)
    assert caught.value.filename == path
    assert list(tmp_path.iterdir()) == []


def test_export_leaves_no_trace(tmp_path):
    model = two_by_two()
    fc.set_random_seed(11)
    first = fc.Sequential([layers.Input((3,)), layers.Dense(4)]).get_weights()
    fc.set_random_seed(11)
    model.export(tmp_path / "m.onnx", output="logits")
    assert fc.floatx() == "float32"
    again = fc.Sequential([layers.Input((3,)), layers.Dense(4)]).get_weights()
    np.testing.assert_array_equal(first[0], again[0])


def test_a_model_in_float64_is_exported_in_float32(tmp_path):
    fc.set_floatx("float64")
    try:
        model = mnist_net()
    finally:
        fc.set_floatx("float32")
    export(model, tmp_path / "m.onnx")


def test_reading_metadata_loads_neither_onnx_nor_the_trainer():
    code = (
        "import sys; import fastconv.onnx.metadata; "
        "print([m for m in ('onnx', 'fastconv.plan', 'fastconv.layer') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
