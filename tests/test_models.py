"""Models as parts of models, copied, described, and their weights in files."""

import json
import re
import shutil

import numpy as np
import pytest
from test_fit import X, Y, net, weights

import fastconv as fc
from fastconv import layers, models, utils


def base(name="base"):
    return fc.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu", name=f"{name}_conv"),
            layers.BatchNormalization(name=f"{name}_norm"),
            layers.Dropout(0.5, name=f"{name}_drop"),
        ],
        name=name,
    )


def topped(inner, **call):
    x = fc.Input((6, 6, 1), name="images")
    y = layers.GlobalAveragePooling2D(name="pool")(inner(x, **call))
    return fc.Model(x, layers.Dense(3, activation="softmax", name="top")(y), name="whole")


def data(model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    return X / np.float32(255), Y


# -- models as layers -----------------------------------------------------------------------------


def test_a_model_is_a_layer():
    fc.set_random_seed(0)
    inner = base()
    model = topped(inner)
    assert [layer.name for layer in model.layers] == ["images", "base", "pool", "top"]
    assert model.get_layer("base") is inner
    assert model.get_layer("base_conv") is inner.layers[0]
    x, y = data(model)
    before = inner.get_weights()
    model.fit(x, y, verbose=0)
    assert any((a != b).any() for a, b in zip(before, inner.get_weights(), strict=True))
    pooled = inner.predict(x).mean(axis=(1, 2))  # the same parameters
    top = model.get_layer("top")
    logits = pooled @ top.weight.value + top.bias.value
    np.testing.assert_allclose(model.predict(x).argmax(1), logits.argmax(1))


def test_a_model_in_a_sequential_and_within_another():
    fc.set_random_seed(0)
    inner = base()
    outer = fc.Sequential([inner, layers.Flatten(), layers.Dense(3)], name="outer")
    assert outer.layers[0] is inner
    assert outer.input_shape == (None, 6, 6, 1)
    assert outer.output_shape == (None, 3)
    last = fc.Sequential([outer, layers.Softmax()])
    assert last.predict(X).shape == (70, 3)
    assert last.layers[0].name == "outer"
    without = fc.Sequential([layers.Dense(2)])  # learns its shape where it is used
    assert without(fc.Input((5,))).shape == (None, 2)


def test_a_model_used_twice_has_one_set_of_weights():
    fc.set_random_seed(0)
    tower = fc.Sequential([layers.Input((4,)), layers.Dense(3, name="shared")], name="tower")
    a, b = fc.Input((4,)), fc.Input((4,))
    model = fc.Model([a, b], layers.Add()([tower(a), tower(b)]))
    rows = np.random.default_rng(0).random((2, 5, 4), dtype=np.float32)
    y = model.predict(list(rows))
    np.testing.assert_allclose(y, tower.predict(rows[0]) + tower.predict(rows[1]), rtol=1e-5)
    assert len(model.parameters()) == 2


def test_frozen_models_keep_weights_and_statistics():
    fc.set_random_seed(0)
    inner = base()
    model = topped(inner)
    x, y = data(model)
    inner.trainable = False
    assert not inner.trainable
    assert model.trainable
    before = inner.get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    for a, b in zip(before, inner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    inner.trainable = True
    model.fit(x, y, verbose=0)
    assert all((a != b).any() for a, b in zip(before, inner.get_weights(), strict=True))


def test_a_call_at_inference_keeps_statistics_and_drops_nothing():
    fc.set_random_seed(0)
    inner = base()
    model = topped(inner, training=False)
    x, y = data(model)
    norm = inner.get_layer("base_norm")
    statistics = norm.moving_mean.value.copy(), norm.moving_variance.value.copy()
    training, _ = model.forward(x, training=True)
    np.testing.assert_allclose(training, model.predict(x), rtol=1e-5)
    gamma = norm.gamma.value.copy()
    model.fit(x, y, verbose=0)
    assert (norm.gamma.value != gamma).any()
    for a, b in zip(statistics, (norm.moving_mean.value, norm.moving_variance.value), strict=True):
        np.testing.assert_array_equal(a, b)
    again = models.model_from_json(model.to_json())
    assert all(node.inference for node in again.graph.nodes if node.calls)
    with pytest.raises(ValueError, match="None or False"):
        inner(fc.Input((6, 6, 1)), training=True)


def test_features_from_the_middle():
    model = net()
    features = fc.Model(model.input, model.get_layer("conv").output)
    kernel = model.get_layer("conv").weight.value
    assert features.predict(X).shape == (70, 4, 4, 4)
    assert features.get_layer("conv").weight.value is kernel


def test_what_models_refuse():
    inner = base()
    with pytest.raises(ValueError, match=r"base takes \(None, 6, 6, 1\), not \(None, 7, 6, 1\)"):
        inner(fc.Input((7, 6, 1)))
    with pytest.raises(ValueError, match="base takes 1 inputs, not 2"):
        inner([fc.Input((6, 6, 1)), fc.Input((6, 6, 1))])
    with pytest.raises(ValueError, match="not on both"):
        inner([X, fc.Input((6, 6, 1))])
    with pytest.raises(ValueError, match="also within models"):
        fc.Model(x := fc.Input((6, 6, 1)), layers.Add()([base()(x), base()(x)]))


# -- descriptions ---------------------------------------------------------------------------------


def nested():
    fc.set_random_seed(0)
    inner = fc.Sequential([base(), layers.Conv2D(2, 1, name="one")], name="middle")
    x = fc.Input((6, 6, 1), name="images")
    y = layers.Concatenate(name="both")([inner(x), inner(layers.Rescaling(2, name="twice")(x))])
    return fc.Model(x, layers.Flatten(name="flat")(y), name="nested")


@pytest.mark.parametrize("make", [net, lambda: topped(base()), nested])
def test_saved_and_described(make, tmp_path):
    model = make()
    model.save(tmp_path / "m.fastconv")
    copies = [
        fc.load_model(tmp_path / "m.fastconv"),
        type(model).from_config(json.loads(json.dumps(model.get_config()))),
        models.model_from_json(model.to_json(indent=1)),
        models.clone_model(model),
    ]
    for copy in copies:
        assert type(copy) is type(model)
        assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
        assert copy.get_config() == model.get_config()
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    inner = next((layer for layer in copies[0].layers if isinstance(layer, fc.Model)), None)
    assert inner is None or inner.predict(X).shape[0] == 70


def test_a_clone_has_weights_of_its_own():
    model = net()
    clone = models.clone_model(model)
    assert not np.array_equal(weights(clone), weights(model))
    smaller = models.clone_model(
        model, lambda layer: layers.Conv2D(2, 3, name="conv") if layer.name == "conv"
        else type(layer).from_config(layer.get_config()),
    )  # fmt: skip
    assert smaller.get_layer("conv").weight.shape == (3, 3, 1, 2)
    with pytest.raises(ValueError, match="does not describe a model"):
        models.model_from_json('{"class": "Model"}')


def test_an_exported_model_with_models_within(tmp_path):
    model = nested()
    assert model.export(tmp_path / "m.onnx").operators["Conv"] == 4


def test_summary_counts(capsys):
    fc.set_random_seed(0)
    inner = base()
    model = topped(inner)
    inner.trainable = False
    model.summary(show_trainable=True)
    text = capsys.readouterr().out
    assert re.search(r"base \(Sequential\) +\(None, 4, 4, 4\) +56 +256 bytes +576 +no", text)
    assert re.search(r"top \(Dense\) +\(None, 3\) +15 +12 bytes +12 +yes", text)
    assert "One sample: 588 multiply-adds" in text
    assert "trainable 15, other 56" in text
    assert "base_conv" not in text
    model.summary(expand_nested=True)
    assert "  base_conv (Conv2D)" in capsys.readouterr().out
    x = fc.Input((None, None, 3))
    fc.Model(x, layers.Conv2DTranspose(2, 3)(x)).summary()
    assert "unknown number of multiply-adds" in capsys.readouterr().out
    y = fc.Input((5, 4, 3))
    fc.Model(y, layers.Conv2DTranspose(2, 3, 2)(y)).summary()
    assert f"{5 * 4 * 9 * 6:,} multiply-adds" in capsys.readouterr().out


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_weights_to_and_from_files(tmp_path, suffix):
    model, other = net(0), net(1)
    path = tmp_path / f"w{suffix}"
    model.save_weights(path)
    report = other.load_weights(path)
    assert report.complete
    assert report.loaded == [p.name for p in model.parameters()]
    np.testing.assert_array_equal(weights(other), weights(model))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=f"not a whole {suffix} file"):
        other.load_weights(path)


def test_what_fits_of_other_weights(tmp_path):
    path = tmp_path / "w.safetensors"
    net(0).save_weights(path)
    fc.set_random_seed(1)
    other = fc.Sequential(
        [layers.Input((6, 6, 1)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(),
         layers.Dense(5, name="dense"), layers.Dense(2, name="new")]
    )  # fmt: skip
    before = weights(other)
    with pytest.raises(ValueError, match=r"dense/kernel \(64, 3\) ≠ \(64, 5\)"):
        other.load_weights(path)
    np.testing.assert_array_equal(weights(other), before)
    report = other.load_weights(path, partial=True)
    assert report.loaded == ["conv/kernel", "conv/bias"]
    assert report.missing == ["new/kernel", "new/bias"]
    assert set(report.mismatched) == {"dense/kernel", "dense/bias"}
    assert "2 parameters loaded" in str(report)
    np.testing.assert_array_equal(
        other.get_layer("conv").weight.value, net(0).get_layer("conv").weight.value
    )
    with pytest.raises(ValueError, match=r"\.safetensors or \.npz"):
        other.save_weights(tmp_path / "w.weights.h5")


# -- pictures -------------------------------------------------------------------------------------


def test_a_model_as_a_graph(tmp_path):
    text = utils.model_to_dot(nested(), show_shapes=True, show_layer_names=True)
    assert "middle (Sequential)" in text
    assert "(None, 4, 4, 2)" in text
    assert text.count("->") == 6
    assert "base_conv" in utils.model_to_dot(nested(), show_layer_names=True, expand_nested=True)
    path = utils.plot_model(nested(), tmp_path / "m.dot")
    assert path.read_text().startswith("digraph")
    with pytest.raises(ValueError, match=r"\.svg"):
        utils.plot_model(nested(), tmp_path / "m.bmp")


def test_a_picture_of_a_model(tmp_path, monkeypatch):
    if shutil.which("dot"):
        assert b"<svg" in utils.plot_model(nested(), tmp_path / "m.svg").read_bytes()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match="apt install graphviz"):
        utils.plot_model(nested(), tmp_path / "m.png")
