"""Data that cannot be learned: found before the first step, located, with the mend."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers
from fastconv.losses.base import check_shares

RNG = np.random.default_rng(0)
X = RNG.random((40, 3)).astype(np.float32)
Y = RNG.integers(0, 3, 40)


def net(loss: str = "sparse_categorical_crossentropy", units: int = 3) -> Any:
    fc.set_random_seed(0)
    dense = layers.Dense(units, activation="softmax" if units > 1 else "sigmoid", name="dense")
    model = fc.Sequential([layers.Input((3,), name="a"), dense])
    model.compile("sgd", loss)
    return model


def fit(x: Any = X, y: Any = Y, model: Any = None, **options: Any) -> Any:
    model = model or net()
    before = model.fingerprint()
    try:
        return model.fit(x, y, verbose=0, **options)
    except ValueError:
        assert model.fingerprint() == before  # nothing was learned
        raise


def with_one(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    array = array.astype(np.float64)
    array[place] = value
    return array


def batches(x: np.ndarray, y: np.ndarray) -> Iterator[Any]:
    for start in range(0, len(x), 8):
        yield x[start : start + 8], y[start : start + 8]


# -- labels and targets ---------------------------------------------------------------------------

ONE_HOT = np.eye(3, dtype=np.float32)[Y]
TARGETS: dict[str, tuple[Any, Any, str]] = {
    "nan among class numbers": (with_one(Y, 5, np.nan), {}, "y for dense .* nan in sample 5$"),
    "inf among class numbers": (with_one(Y, 6, np.inf), {}, "there is inf in sample 6"),
    "a fraction": (with_one(Y, 7, 1.5), {}, "whole class numbers, there is 1.5 in sample 7"),
    "too large": (with_one(Y, 3, 9).astype(int), {}, r"0\.\.2, there is 9 in sample 3"),
    "words": (np.array(["cat", "dog"] * 20), {}, r"<U3: words become .*np\.unique\(y, return_inv"),
    "objects": (Y.astype(object), {}, "not object: np.stack"),
    "more of them": (Y[:39], {}, "different lengths: x 40, y 39"),
    "binary": (np.full(40, 2), {"loss": "binary_crossentropy", "units": 1},
               r"must lie in 0\.\.1, there is 2 in sample 0; class numbers .*sparse_cat"),
    "binary nan": (with_one(np.zeros(40), 4, np.nan),
                   {"loss": "binary_crossentropy", "units": 1}, "holds nan in sample 4"),
    "categorical": (with_one(ONE_HOT, (8, 1), 7), {"loss": "categorical_crossentropy"},
                    r"must lie in 0\.\.1, there is 7.0 in sample 8 at \(1,\)"),
    "focal": (with_one(ONE_HOT, (8, 1), -1), {"loss": "categorical_focal_crossentropy"},
              r"must lie in 0\.\.1"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    y, made, words = TARGETS[name]
    with pytest.raises(ValueError, match=words):
        fit(y=y, model=net(**made))
    with pytest.raises(ValueError, match=words):
        net(**made).evaluate(X, y, verbose=0)


def test_labels_of_a_generator_are_located_in_their_batch() -> None:
    y = with_one(Y, 21, np.nan)
    with pytest.raises(ValueError, match=r"batch 2 of x: y for dense .* holds nan in sample 5"):
        net().fit(batches(X, y), verbose=0)


def test_shares_are_targets() -> None:
    soft = RNG.dirichlet(np.ones(3), 40)
    fit(y=soft, model=net("categorical_crossentropy"))
    fit(y=np.array([0.0, 1.0 + 1e-7] * 20), model=net("binary_crossentropy", 1))
    fit(y=np.array([True, False] * 20), model=net("binary_crossentropy", 1))
    fit(y=np.array([-0.0, -1e-8] * 20), model=net("binary_crossentropy", 1))
    for dtype in ("u1", "i8", "f2", "f4", "f8"):
        fit(y=ONE_HOT.astype(dtype), model=net("categorical_crossentropy"))


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("value", [2, -1, 1.25, -0.25, np.nan, -np.nan, np.inf, -np.inf])
def test_shares_of_any_dtype(dtype: str, value: float) -> None:
    if dtype[0] != "f" and value not in (2, -1):
        return  # no whole number
    if dtype == "u1" and value < 0:
        return
    y = ONE_HOT.astype(dtype)
    y[11, 2] = value
    with pytest.raises(ValueError, match=r"in sample 11 at \(2,\)"):
        check_shares(y, "y")


# -- inputs ---------------------------------------------------------------------------------------


class Graded:
    """As torch's tensors that need a gradient: numpy may not have them."""

    shape, ndim = (40, 3), 2

    def __len__(self) -> int:
        return 40

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


MASKED = np.ma.masked_array(X, 0.99 * X.max() < X)
INPUTS: dict[str, tuple[Any, str]] = {
    "beyond float32": (X.astype(float) * 1e300, r"x for a holds .*e\+\d+ in sample 0 at .*beyond "
                       r"float32.*set_floatx\(\"float64\"\)"),
    "one beyond float32": (with_one(X, (17, 2), -1e39), r"-1e\+39 in sample 17 at \(2,\), beyond"),
    "nan in doubles": (with_one(X, (17, 2), np.nan), r"holds nan in sample 17 at \(2,\)$"),
    "nothing": (None, "x is missing: it is None"),
    "masked": (MASKED, r"x for a has masked values, in sample \d+ at .*x\.filled\(0\)"),
    "of torch, with a gradient": (Graded(), "x.* must be an array .*requires grad"),
    "words": (np.full((40, 3), "1.5"), r"x for a must be real numbers.*x\.astype\(np\.float32\)"),
    "a path": ("photos", "must be real numbers, .*image_dataset_from_directory"),
    "complex": (X.astype(complex), r"not complex128: np\.abs\(x\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    x, words = INPUTS[name]
    with pytest.raises(ValueError, match=words):
        fit(x)


def test_large_doubles_are_found_in_large_arrays() -> None:
    x = np.full((1 << 17, 3), 1e30)
    from fastconv.data import check_finite

    check_finite(x, "x", narrow=True)
    x[100_000, 1] = 1e39
    with pytest.raises(ValueError, match=r"x holds 1e\+39 in sample 100000 at \(1,\), beyond"):
        check_finite(x, "x", narrow=True)
    check_finite(x, "x")  # float64 holds it
    x[:] = 3e38  # squares sum up to infinity, and nothing is wrong
    check_finite(x, "x", narrow=True)
    huge = np.full(1 << 15, 3e38, np.float32)  # so does their sum
    check_finite(huge, "x")


def test_a_model_in_float64_takes_them() -> None:
    fc.set_floatx("float64")
    try:
        model = fc.Sequential([layers.Input((3,)), layers.Dense(1)])
        model.compile("sgd", "mse")
        assert np.isfinite(model.evaluate(X.astype(float) * 1e100, np.zeros(40), verbose=0))
    finally:
        fc.set_floatx("float32")


def test_an_unmasked_masked_array_is_an_array() -> None:
    fit(np.ma.masked_array(X, False))


def test_lengths_name_each_array() -> None:
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    model = fc.Model([a, b], layers.Dense(3, name="dense")(layers.add([a, b])))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="x have different lengths: a 40, b 39"):
        model.fit([X, X[:39]], ONE_HOT, verbose=0)
    with pytest.raises(ValueError, match="different lengths: x for a 40, x for b 40, y 39"):
        model.fit([X, X], ONE_HOT[:39], verbose=0)


# -- arguments ------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "class -1": ({"class_weight": {-1: 5.0}}, r"class_weight names the class -1; .* 0\.\.2"),
    "class .7": ({"class_weight": {0.7: 5.0}}, r"names the class 0.7; the classes are 0\.\.2"),
    "class 9": ({"class_weight": {9: 5.0}}, r"names the class 9; the classes are 0\.\.2"),
    "class of a gigabyte": ({"class_weight": {300_000_000: 5.0}}, "names the class 300000000"),
    "class by name": ({"class_weight": {"cat": 2}}, "names the class 'cat'"),
    "weight of a class": ({"class_weight": {1: -1}}, "class_weight of class 1 must be a number"),
    "sample_weight": ({"sample_weight": with_one(np.ones(40), 3, np.nan)}, "nan in sample 3"),
    "weight beyond float32": ({"sample_weight": np.full(40, 1e300)}, r"1e\+300 in sample 0"),
    "shuffle": ({"shuffle": "no"}, "shuffle is True or False, not 'no'"),
    "steps_per_epoch": ({"steps_per_epoch": 0}, "^steps_per_epoch must be an integer"),
    "too many steps": ({"steps_per_epoch": 9}, "^steps_per_epoch: 9 batches of 32"),
    "validation_steps": ({"validation_data": (X, Y), "validation_steps": 0},
                         "validation_steps must be an integer"),
    "validation batches end": ({"validation_data": list(batches(X, Y)), "validation_steps": 9},
                               r"5 of the 9 .*\(validation_steps\)|validation_steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str) -> None:
    options, words = ARGUMENTS[name]
    with pytest.raises(ValueError, match=words):
        net().fit(X, Y, verbose=0, **options)


def test_steps_of_others() -> None:
    with pytest.raises(ValueError, match=r"^steps must be"):
        net().evaluate(X, Y, steps=0)
    with pytest.raises(ValueError, match=r"\(steps\)"):
        net().evaluate(batches(X, Y), steps=9, verbose=0)
    with pytest.raises(ValueError, match=r"^steps must be"):
        net().predict(batches(X, Y), steps=0)
    with pytest.raises(ValueError, match=r"x.*missing"):
        net().predict(None)


def test_class_weights_that_are_right() -> None:
    from fastconv.data import class_weights

    def weights(value: Any, y: Any, labels: bool, count: int | None = None) -> list[float]:
        return class_weights(value, np.asarray(y), labels, count).tolist()

    assert weights({np.int64(2): 3.0, 0: 2.0}, [[0], [1], [2]], True, 3) == [2.0, 1.0, 3.0]
    assert weights({1: 4.0}, [[0], [1], [255]], True, 3) == [1.0, 4.0, 1.0]  # 255: ignored
    assert weights({1: 4.0}, [[0.1, 0.9], [0.8, 0.2]], False) == [4.0, 1.0]
    assert weights({-1: 4.0, 1: 2.0}, [[-1.0], [1.0]], False) == [4.0, 2.0]  # hinge's
