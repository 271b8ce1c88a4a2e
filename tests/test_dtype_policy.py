"""The policy "mixed_bfloat16": who may have it, what `fit` does with it, and what stays float32."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import algorithms, layers, precision
from fastconv._native import dispatch
from fastconv._native.geometry import ConvGeometry

needs_bf16 = pytest.mark.skipif(
    not dispatch.has_bf16(), reason="the kernel table in use has no products of bfloat16"
)


@pytest.fixture(autouse=True)
def float32_again():
    yield
    fc.set_dtype_policy("float32")


def network(seed=0):
    """Its 1×1 and strided convolutions have channels enough; the 3×3 one is Winograd's."""
    fc.set_random_seed(seed)
    return fc.Sequential([
        fc.Input((12, 12, 3)),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 1, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(48, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(48, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4, activation="softmax"),
    ])  # fmt: skip


def compiled(policy=None, seed=0, optimizer="adam", **kwargs):
    model = network(seed)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], dtype_policy=policy,
        **kwargs,
    )  # fmt: skip
    return model


def images(n=256):
    """Four classes: noise that leans to one of four colours."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, n)
    colours = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3], [-2, -2, -2]], np.float32) / 10
    return rng.standard_normal((n, 12, 12, 3), np.float32) + colours[y, None, None], y


def algorithms_of(profile):
    return {(row.direction, row.algorithm) for row in profile.steps}


# ---- where it is used ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "channels", "filters", "size", "strides", "found"),
    [
        (1, 32, 32, 8, 1, "bf16"),
        (1, 31, 64, 8, 1, "direct"),
        (1, 64, 31, 8, 1, "direct"),
        (3, 64, 64, 8, 1, "winograd"),
        (3, 64, 64, 8, 2, "bf16"),
        (1, 64, 64, 1, 1, "direct"),  # a dense layer: its weight meets one pixel
        (7, 64, 64, 28, 1, "bf16"),
    ],
)
def test_who_is_rounded(kernel, channels, filters, size, strides, found):
    geometry = ConvGeometry(
        in_size=(1, size, size), kernel=(1, kernel, kernel), strides=(1, strides, strides),
        pads=((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2), channels=channels, filters=filters,
    )  # fmt: skip
    for direction in ("forward", "input_gradient", "weight_gradient"):
        assert algorithms.convolution(geometry, direction, bf16=True) == found
        assert algorithms.convolution(geometry, direction) != "bf16"


def test_groups_count_each_for_itself():
    sizes = {"in_size": (1, 8, 8), "kernel": (1, 1, 1), "channels": 96, "filters": 96}
    assert algorithms.convolution(ConvGeometry(**sizes, groups=3), bf16=True) == "bf16"
    assert algorithms.convolution(ConvGeometry(**sizes, groups=6), bf16=True) == "direct"


# ---- who may have it -----------------------------------------------------------------------------


def test_float32_is_the_default():
    assert fc.dtype_policy() == "float32"
    assert compiled().compile_config()["dtype_policy"] == "float32"


@pytest.mark.parametrize("wrong", ["mixed_float16", "bfloat16", 16])
def test_unknown_policies_are_refused(wrong):
    with pytest.raises(ValueError, match=r"dtype policy.*mixed_bfloat16"):
        fc.set_dtype_policy(wrong)
    with pytest.raises(ValueError, match=r"dtype policy.*mixed_bfloat16"):
        compiled(wrong)


def test_refused_where_the_table_has_none():
    before = dispatch.isa()
    dispatch.set_isa("baseline")
    try:
        for ask in (lambda: fc.set_dtype_policy("mixed_bfloat16"),
                    lambda: compiled("mixed_bfloat16")):  # fmt: skip
            with pytest.raises(ValueError, match=r"cannot be had: .*(baseline|AVX512-BF16)"):
                ask()
    finally:
        dispatch.set_isa(before)
    assert fc.dtype_policy() == "float32"


@needs_bf16
def test_refused_where_it_is_not_faster(monkeypatch):
    monkeypatch.setattr(precision, "_gain", 1.13)
    with pytest.raises(ValueError, match=r"1\.13 times as fast as float32"):
        compiled("mixed_bfloat16")


@needs_bf16
def test_the_process_policy_is_what_compile_takes(monkeypatch):
    monkeypatch.setattr(precision, "_gain", 1.9)
    fc.set_dtype_policy("mixed_bfloat16")
    assert fc.dtype_policy() == "mixed_bfloat16"
    model = compiled()
    fc.set_dtype_policy("float32")
    assert model.compile_config()["dtype_policy"] == "mixed_bfloat16"
    assert compiled().compile_config()["dtype_policy"] == "float32"


# ---- what it does --------------------------------------------------------------------------------


@pytest.fixture
def mixed(monkeypatch):
    """What makes a model with the policy, whatever this machine's measurement says today."""
    if not dispatch.has_bf16():
        pytest.skip("the kernel table in use has no products of bfloat16")
    monkeypatch.setattr(precision, "_gain", 1.9)
    return lambda **kwargs: compiled("mixed_bfloat16", **kwargs)


def test_fit_alone_is_rounded(mixed):
    x, y = images(8)
    found = algorithms_of(mixed().profile(x, y))
    assert {("forward", "bf16"), ("backward", "bf16"), ("forward", "winograd")} <= found
    assert not any(name == "bf16" for _, name in algorithms_of(mixed().profile(x)))
    exact, rounded = compiled(), mixed()
    np.testing.assert_array_equal(exact.predict(x, verbose=0), rounded.predict(x, verbose=0))
    assert exact.evaluate(x, y, verbose=0) == rounded.evaluate(x, y, verbose=0)


def test_float64_models_are_not(mixed):
    fc.set_floatx("float64")
    try:
        model = mixed()
        assert not any(name == "bf16" for _, name in algorithms_of(model.profile(*images(4))))
    finally:
        fc.set_floatx("float32")


def test_updates_point_where_float32_points(mixed):
    x, y = images(64)
    moves = []
    for model in (compiled(optimizer="sgd"), mixed(optimizer="sgd")):
        before = [w.copy() for w in model.get_weights()]
        model.train_on_batch(x, y)
        moves.append(np.concatenate([
            (after - start).ravel() for after, start
            in zip(model.get_weights(), before, strict=True)
        ]).astype(float))  # fmt: skip
    a, b = moves
    assert not np.array_equal(a, b)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_learns_as_well(mixed):
    x, y = images(512)
    results = []
    for model in (compiled(), mixed()):
        history = model.fit(x, y, batch_size=32, epochs=6, verbose=0)
        results.append(history.history["accuracy"][-1])
    assert min(results) > 0.9
    assert abs(results[0] - results[1]) < 0.05


def test_same_bits_for_any_number_of_threads(mixed, threads):
    x, y = images(48)
    seen = set()
    for count in (1, 2, 5):
        threads(count)
        model = mixed()
        model.fit(x, y, batch_size=20, epochs=2, verbose=0)
        seen.add(b"".join(w.tobytes() for w in model.get_weights()))
    assert len(seen) == 1


def test_recomputing_gives_the_same_bits(mixed):
    x, y = images(24)
    kept, again = mixed(), mixed(recompute=["*"])
    for model in (kept, again):
        model.train_on_batch(x, y)
    for a, b in zip(kept.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_file_keeps_the_policy(mixed, tmp_path):
    x, y = images(16)
    model = mixed()
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.fc")
    loaded = fc.load_model(tmp_path / "model.fc")
    assert loaded.compile_config()["dtype_policy"] == "mixed_bfloat16"
    assert model.train_on_batch(x, y) == loaded.train_on_batch(x, y)


def test_a_machine_without_it_can_load_and_train_on(mixed, tmp_path):
    x, y = images(16)
    mixed().save(tmp_path / "model.fc")
    before = dispatch.isa()
    dispatch.set_isa("baseline")
    try:
        with pytest.warns(UserWarning, match=r"compiled for mixed_bfloat16: .*baseline"):
            loaded = fc.load_model(tmp_path / "model.fc")
        assert loaded.compile_config()["dtype_policy"] == "float32"
        loaded.train_on_batch(x, y)
    finally:
        dispatch.set_isa(before)


def test_what_was_trained_so_exports_with_proof(mixed, tmp_path):
    pytest.importorskip("onnxruntime")
    model = mixed()
    model.fit(*images(64), epochs=1, verbose=0)
    model.export(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").exists()
