"""Keywords that nobody takes: each error names the culprit and what was meant."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv as fc
from fastconv import (
    applications,
    arguments,
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from fastconv.layers import Dense

X, Y = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)


def net() -> Any:
    return fc.Sequential([layers.Input((3,)), Dense(2, name="dense")])


def compiled(**options: Any) -> Any:
    model = net()
    model.compile("sgd", "mse", **options)
    return model


MEANT: dict[str, tuple[Callable[[], Any], str]] = {
    "compile": (lambda: compiled(metric=["mae"]), "argument of compile 'metric'.*'metrics'"),
    "fit": (lambda: compiled().fit(X, Y, bach_size=3), "'bach_size'.*mean 'batch_size'"),
    "evaluate": (lambda: compiled().evaluate(X, Y, verbos=0), "of evaluate 'verbos'.*'verbose'"),
    "predict": (lambda: compiled().predict(X, batchsize=3), "of predict 'batchsize'.*'batch_size'"),
    "test_on_batch": (lambda: compiled().test_on_batch(X, Y, sample_weigth=1), "'sample_weight'"),
    "export": (lambda: compiled().export("m.onnx", opst=17), "of export 'opst'.*mean 'opset'"),
    "a callback": (lambda: callbacks.EarlyStopping(patiance=3), "EarlyStopping 'patiance'"),
    "TensorBoard": (lambda: callbacks.TensorBoard("x", histogram_frq=1), "'histogram_freq'"),
    "BackupAndRestore": (lambda: callbacks.BackupAndRestore("x", save_fre=1), "'save_freq'"),
    "a loss": (lambda: losses.BinaryCrossentropy(from_logit=True), "mean 'from_logits'"),
    "a loss' function": (lambda: losses.huber(Y, Y, delt=1), "of Huber 'delt'.*'delta'"),
    "a metric": (lambda: metrics.AUC(curv="PR"), "argument of AUC 'curv'; did you mean 'curve'"),
    "a schedule": (lambda: schedules.CosineDecay(1.0, decay_step=3), "'decay_steps'"),
    "an optimizer": (lambda: optimizers.Adam(bta_1=0.9), "of Adam 'bta_1'.*mean 'beta_1'"),
    "what all optimizers have": (lambda: optimizers.Adamax(clipnrm=1), "mean 'clipnorm'"),
    "lr": (lambda: optimizers.SGD(lr=0.1), "SGD does not take 'lr': it is called learning_rate"),
    "lr elsewhere": (lambda: compiled(lr=0.1), "unknown argument of compile 'lr'"),
    "decay": (lambda: optimizers.SGD(decay=1e-6), "weight_decay.*InverseTimeDecay"),
    "workers": (lambda: compiled().fit(X, Y, workers=4), "fit does not take 'workers': fc.Dataset"),
    "a layer": (lambda: layers.Conv2D(8, 3, actvation="relu"), "Conv2D 'actvation'.*'activation'"),
    "input_shape": (lambda: Dense(8, input_shpe=(3,)), "'input_shpe'; did you mean 'input_shape'"),
    "instead of a needed one": (lambda: Dense(unit=8), "of Dense 'unit'; did you mean 'units'"),
    "beside a right one": (lambda: Dense(unit=8, kernel_regularizer="l2"), "of Dense 'unit'"),
    "a layer of no arguments": (lambda: layers.Flatten(naem="x"), "mean 'name'"),
    "Input": (lambda: layers.Input(shap=(3,)), "of Input 'shap'; did you mean 'shape'"),
    "a regularizer": (lambda: regularizers.L2(l=0.1), "argument of L2 'l'"),
    "a constraint": (lambda: constraints.MaxNorm(max_valu=2), "mean 'max_value'"),
    "an initializer": (lambda: initializers.HeNormal(sed=1), "of HeNormal 'sed'.*'seed'"),
    "Augmentation": (lambda: utils.Augmentation(flp=True), "of Augmentation 'flp'.*'flip'"),
    "pictures": (
        lambda: utils.image_dataset_from_directory("x", colr_mode="rgb"), "mean 'color_mode'"
    ),
    "a network": (lambda: applications.LeNet5(clases=3), "of LeNet5 'clases'.*'classes'"),
    "a data set": (lambda: fc.Dataset.from_tensor_slices(X).batch(batchsize=2), "'batch_size'"),
    "load_model": (lambda: fc.load_model("x", compil=False), "mean 'compile'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MEANT)
def test_the_error_says_what_was_meant(name: str) -> None:
    call, words = MEANT[name]
    with pytest.raises(arguments.UnknownArgument, match=words) as caught:
        call()
    assert isinstance(caught.value, TypeError)  # Python's
    assert isinstance(caught.value, ValueError)  # fastconv's


def test_estimators_say_it_too() -> None:
    pytest.importorskip("sklearn")
    from fastconv.sklearn import ConvClassifier

    with pytest.raises(arguments.UnknownArgument, match=r"ConvClassifier 'epoch'.*'epochs'"):
        ConvClassifier(epoch=3)


def test_a_subclass_is_named_with_its_own_keywords() -> None:
    class Patient(callbacks.EarlyStopping):
        def __init__(self, times: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    assert Patient(times=3, patience=2).patience == 2
    with pytest.raises(arguments.UnknownArgument, match="Patient 'time'; did you mean 'times'"):
        Patient(3, time=4)


def test_an_error_from_within_stays_what_it_is() -> None:
    def wrong(epoch: int, rate: float) -> float:
        raise TypeError("from within")

    call = [callbacks.LearningRateScheduler(wrong)]
    with pytest.raises(TypeError, match="from within") as caught:
        compiled().fit(X, Y, callbacks=call, verbose=0)
    assert not isinstance(caught.value, ValueError)
    with pytest.raises(TypeError, match="units"):  # Python's: what is missing
        Dense(name="x")  # type: ignore[call-arg]


def test_signatures_are_those_that_are_written() -> None:
    assert list(inspect.signature(Dense).parameters)[:2] == ["units", "activation"]
    fit = inspect.signature(fc.Model.fit).parameters
    assert list(fit)[:5] == ["self", "x", "y", "batch_size", "epochs"]
    assert fc.Model.fit.__doc__.startswith("Train the model.")
    assert "learning_rate" in inspect.signature(optimizers.Adam).parameters
    assert inspect.unwrap(fc.Model.fit).__code__.co_varnames[:2] == ("self", "x")


BASES = (
    layers.Layer, losses.Loss, metrics.Metric, callbacks.Callback, optimizers.Optimizer,
    schedules.LearningRateSchedule, regularizers.Regularizer, constraints.Constraint,
    initializers.Initializer,
)  # fmt: skip


def below(cls: type) -> list[type]:
    return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]


def test_every_class_of_a_family_is_explained() -> None:
    """One that its module leaves out would give Python's bare error."""
    bare = [
        cls for base in BASES for cls in below(base)
        if cls.__module__.startswith("fastconv.")
        and cls.__init__ is not object.__init__
        and not hasattr(cls.__init__, "__wrapped__")
    ]  # fmt: skip
    assert bare == []


SWITCHES = {
    "run_eagerly": True, "jit_compile": True, "steps_per_execution": 8, "auto_scale_loss": "no",
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHES)
def test_keras_switches_of_compile(name: str) -> None:
    compiled(run_eagerly=False, jit_compile="auto", steps_per_execution=1, auto_scale_loss=True)
    compiled(run_eagerly=None, jit_compile=False, auto_scale_loss=False)
    with pytest.raises(ValueError, match=f"^{name}"):
        compiled(**{name: SWITCHES[name]})


def test_mypy_sees_the_signatures(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "import fastconv as fc\nfrom fastconv import callbacks, layers\n"
        "layers.Dense(unit=8)\ncallbacks.EarlyStopping(patiance=3)\n"
        "def f(m: fc.Model) -> None:\n    m.fit(bach_size=3)\n"
    )
    root = Path(fc.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "script.py", "--cache-dir", str(root / ".mypy_cache/user")],
        cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(root), "PATH": ""},
    )  # fmt: skip
    wrong = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert sorted({line.split(": ")[0] for line in wrong if "error" in line}) == [
        "script.py:3",
        "script.py:4",
        "script.py:6",
    ]


def test_add_weight_is_keras_name() -> None:
    from fastconv.own import NumpyLayer

    class WithWeights(NumpyLayer):
        def build(self, *shapes: Any) -> None:
            self.k = self.add_weight(shape=shapes[0][-1:], initializer="ones", name="k",
                                     regularizer="l2", constraint="non_neg")  # fmt: skip
            self.other = self.add_weight((2, 3))

        def call(self, x: Any) -> Any:
            return x * self.k.value

    layer = WithWeights(name="scale")
    layer(layers.Input((3,)))
    assert [p.name for p in layer.parameters] == ["scale/k", "scale/weight_1"]
    np.testing.assert_array_equal(layer.k.value, np.ones(3))
    assert isinstance(layer.k.regularizer, regularizers.L2)
    assert isinstance(layer.k.constraint, constraints.NonNeg)
    assert layer.other.shape == (2, 3)
