"""Ask Keras 3 for the numbers that fastconv must give: writes the JSON files beside this one.

    python -m venv keras && keras/bin/pip install keras jax
    keras/bin/python tests/keras_oracle/record.py [optimizers losses ...]

Needed only when a case is added to oracle_cases.py; the tests read what was recorded.
"""

import inspect
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import oracle_cases as cases

HERE = Path(__file__).parent


def plain(value):
    """Arrays as nested lists of numbers with eight digits, which name every float32 to 1e-7."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return value
    array = np.asarray(value)
    if array.ndim:
        return [plain(item) for item in array]
    return float(f"{float(array):.8g}")


def optimizers():
    return {key: optimizer(*case) for key, case in cases.OPTIMIZER_CASES.items()}


def optimizer(name, arguments):
    variables = [keras.Variable(w, name=f"w{i}") for i, w in enumerate(cases.weights())]
    found = getattr(keras.optimizers, name)(**arguments)
    found.build(variables)
    steps = []
    for step in range(cases.UPDATES):
        found.apply([np.asarray(g) for g in cases.gradients(step)], variables)
        steps.append([np.ravel(v.numpy()) for v in variables])
    found.finalize_variable_values(variables)
    return {"steps": steps, "final": [np.ravel(v.numpy()) for v in variables]}


def schedules():
    return [
        [getattr(keras.optimizers.schedules, name)(**arguments)(step) for step in cases.STEPS]
        for name, arguments in cases.SCHEDULES
    ]


def losses():
    return {key: loss(*case) for key, case in cases.LOSS_CASES.items()}


def loss(name, arguments, inputs):
    """Value and gradient, plain and weighted, in every reduction; the values of the rows."""
    y_true, y_pred = cases.INPUTS[inputs]()
    cls = getattr(keras.losses, name)
    found = {}
    rows = np.asarray(cls(reduction=None, **arguments)(y_true, y_pred))
    weight = cases.row_weight(rows.shape)
    for reduction in cases.REDUCTIONS:
        made = cls(reduction=reduction, **arguments)
        found[reduction] = made(y_true, y_pred)
        if name not in ("Dice", "Tversky"):  # which have no rows for the weights
            found[f"{reduction} weighted"] = made(y_true, y_pred, sample_weight=weight)
    made = cls(**arguments)
    found["gradient"] = np.ravel(jax.grad(lambda y: made(y_true, y))(y_pred))
    found["rows"] = np.ravel(rows)
    return found


def metrics():
    return {key: metric(*case) for key, case in cases.METRIC_CASES.items()}


def metric(name, arguments, inputs):
    """After the first half, after all of it, and weighted."""
    y_true, y_pred = cases.INPUTS[inputs]()
    half, weight = cases.BATCH // 2, cases.sample_weight()
    made = getattr(keras.metrics, name)(**arguments)
    made.update_state(y_true[:half], y_pred[:half])
    first = made.result()
    made.update_state(y_true[half:], y_pred[half:])
    found = {"half": first, "all": made.result()}
    made.reset_state()
    try:
        made.update_state(y_true, y_pred, sample_weight=weight)
    except Exception as error:  # Keras' own limits, named in the file
        found["weighted"] = f"Keras: {type(error).__name__}"
    else:
        found["weighted"] = made.result()
    return found


def weights():
    found = {"regularizers": [], "constraints": [], "initializers": []}
    for name, arguments, shape in cases.REGULARIZERS:
        made = getattr(keras.regularizers, name)(**arguments)
        w = jax.numpy.asarray(cases.weight(shape))
        found["regularizers"].append({"value": made(w), "gradient": np.ravel(jax.grad(made)(w))})
    for name, arguments, shape in cases.CONSTRAINTS:
        made = getattr(keras.constraints, name)(**arguments)
        found["constraints"].append(np.ravel(made(cases.weight(shape))))
    for name, arguments, shape in cases.INITIALIZERS:
        random = name not in ("Zeros", "Ones", "Constant", "Identity")
        seed = {"seed": 1} if random else {}
        w = np.asarray(getattr(keras.initializers, name)(**arguments, **seed)(shape), np.float64)
        numbers = {"mean": w.mean(), "std": w.std(), "min": w.min(), "max": w.max()}
        found["initializers"].append(numbers)
    return found


def layers():
    return {key: layer(*case) for key, case in cases.LAYER_CASES.items()}


def layer(name, arguments, shape):
    """Outputs at inference and in training, gradients of inputs and weights, moved statistics."""
    xs = cases.layer_inputs(shape)
    made = getattr(keras.layers, name)(**arguments)
    made.build(xs[0].shape if len(xs) == 1 else [x.shape for x in xs])
    for i, variable in enumerate(v for v in made.weights if "seed" not in v.path):
        variable.assign(cases.layer_weight(i, variable.name, variable.shape))
    if name == "Normalization":
        made.finalize_state()
    trained = [v.value for v in made.trainable_variables]
    fixed = [v.value for v in made.non_trainable_variables]
    # dropout's random numbers are its own: at inference alone
    mode = {"BatchNormalization": {"training": True}, "Dropout": {"training": False}}.get(name, {})

    def run(trained, xs):
        given = xs[0] if len(xs) == 1 else xs
        y, moved = made.stateless_call(trained, fixed, given, **mode)
        return y, moved

    y, moved = run(trained, xs)
    dy = cases.layer_gradient(y.shape)
    dw, dx = jax.grad(lambda w, x: (run(w, x)[0] * dy).sum(), argnums=(0, 1))(trained, xs)
    given = xs[0] if len(xs) == 1 else xs
    found = {"shape": list(y.shape), "y": np.ravel(y), "dx": [np.ravel(d) for d in dx]}
    if trained:
        found["dw"] = [np.ravel(d) for d in dw]
    if name == "BatchNormalization":
        found["inference"] = np.ravel(made(given, training=False))
        found["moved"] = [np.ravel(m) for m in moved]
    return found


def arrays():
    """What layers take from data, and make of bytes."""
    found = {"adapted": [], "resized": []}
    for axis, shape in cases.ADAPTED:
        made = keras.layers.Normalization(axis)
        made.adapt(cases.adapted(shape))
        found["adapted"].append([np.ravel(v) for v in made.get_weights()[:2]])
    for arguments in cases.RESIZED:
        found["resized"].append(np.ravel(keras.layers.Resizing(**arguments)(cases.picture())))
    return found


def defaults():
    """The defaults of every class' arguments, as far as JSON can hold them."""
    modules = {
        "optimizers": keras.optimizers, "schedules": keras.optimizers.schedules,
        "losses": keras.losses, "metrics": keras.metrics, "initializers": keras.initializers,
        "regularizers": keras.regularizers, "constraints": keras.constraints,
        "layers": keras.layers, "callbacks": keras.callbacks,
    }  # fmt: skip
    return {"keras": keras.__version__} | {
        name: {
            cls: found
            for cls, value in sorted(vars(module).items())
            if inspect.isclass(value) and (found := defaults_of(value))
        }
        for name, module in modules.items()
    }


def defaults_of(cls):
    try:
        parameters = inspect.signature(cls.__init__).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in parameters
        if p.name not in ("name", "dtype")
        and isinstance(p.default, (bool, int, float, str, tuple, type(None)))
    }


def main():
    wanted = sys.argv[1:]
    for make in (optimizers, schedules, losses, metrics, weights, layers, arrays, defaults):
        if not wanted or make.__name__ in wanted:
            write(make.__name__, plain(make()))


def write(name, value):
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{name}.json: {len(text):,} bytes")


if __name__ == "__main__":
    main()
