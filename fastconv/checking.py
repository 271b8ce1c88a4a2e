"""Derived gradients beside measured ones: `check_gradients`.

Central differences in float64, with the reference kernels: along a random direction for each
parameter and input as a whole, and where they disagree element by element, to say where.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv import backend, shapes
from fastconv.layer import Layer
from fastconv.layers.input import Input
from fastconv.losses import Loss
from fastconv.model import Model
from fastconv.regularizers import Regularizer
from fastconv.tables import Printed, table

STEP = 1e-6
TOLERANCE = 1e-6
DIRECTIONS = 3
ELEMENTS = 200  # looked at one by one where a gradient is off
SHOWN = 5
SHARE = 0.05  # of the elements: fewer are exceptions, not the rule
Array = np.ndarray


@dataclass
class Row:
    """One array: what was derived along a direction, what was measured, and how far apart; right
    where that is within the tolerance, or what rounding makes of nothing."""

    name: str
    shape: tuple[int, ...]
    derived: float
    measured: float
    error: float
    right: bool = True
    hint: str = ""


class GradientReport(Printed):
    """Rows of `check_gradients`; prints as a table, true where all of them agree."""

    def __init__(self, who: str, rows: Sequence[Row], tolerance: float) -> None:
        self.who, self.rows, self.tolerance = who, list(rows), tolerance

    @property
    def wrong(self) -> list[Row]:
        return [row for row in self.rows if not row.right]

    def __bool__(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        cells = [
            [r.name, "×".join(map(str, r.shape)) or "1", f"{r.derived:.6e}", f"{r.measured:.6e}",
             f"{r.error:.1e}", "" if r.right else "wrong"]
            for r in self.rows
        ]  # fmt: skip
        lines = table(["gradient of", "shape", "derived", "measured", "error", ""], cells)
        hints = [f"{row.name}: {row.hint}" for row in self.wrong if row.hint]
        return "\n".join([f"Gradients of {self.who}", *lines, *hints])


class GradientError(AssertionError):
    """A derived gradient is wrong; ``report`` has the numbers."""

    def __init__(self, report: GradientReport) -> None:
        super().__init__(str(report))
        self.report = report


def check_gradients(
    layer_or_model: Any,
    x: Any = None,
    input_shape: Any = None,
    *,
    batch_size: int = 3,
    training: bool = False,
    seed: int = 0,
    step: float = STEP,
    tolerance: float = TOLERANCE,
    raises: bool = True,
) -> GradientReport:
    """Compare the gradients that backward gives with finite differences, in float64.

    Parameters
    ----------
    layer_or_model : Layer, Model, Loss or Regularizer
        It stays as it is: a copy in float64 is looked at.
    x : array (n, *shape), or a list of them, one per input; optional
        By default normal random numbers, which lie far from 0, where many functions have a kink.
        Of a loss ``(y_true, y_pred)``, which must be given; of a regularizer the weight.
    input_shape : tuple, or a list of them; optional
        One sample's, for a layer that has not been used yet or a model that leaves sizes open; of a
        regularizer the weight's.
    batch_size : int
        Samples of random inputs.
    training : bool
        As in training: batch norm uses the batch, dropout drops (the same each time).
    seed : int
    step : float
        Of the differences.
    tolerance : float
        Of ``|derived − measured|`` beside the larger of them, or of the gradient's norm where the
        direction happens to be at right angles to it.
    raises : bool
        Raise `GradientError` where a gradient is wrong.

    Returns
    -------
    GradientReport
        A row for every input and trainable parameter.

    Raises
    ------
    GradientError
        With the table, and for each array that is wrong what kind of error it looks like: a
        factor, a sign, a sum too few, single elements.
    """
    rng = np.random.default_rng(seed)
    settings = step, tolerance, rng
    if isinstance(layer_or_model, (Loss, Regularizer)):
        checker: _Checker
        if isinstance(layer_or_model, Loss):
            checker = _OfLoss(layer_or_model, x, *settings)
        else:
            weight = rng.standard_normal(input_shape or (4, 3)) if x is None else x
            checker = _OfPenalty(layer_or_model, np.array(weight, np.float64), *settings)
        return _told(type(layer_or_model).__name__, checker.rows(), tolerance, raises)
    model, who = _model(layer_or_model, input_shape)
    with _double():
        twin = Model.from_config(model.get_config())
        twin.seed = model.seed
        for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True):
            mine.value[...] = theirs.value
        inputs = _inputs(twin, x, input_shape, batch_size, rng)
        rows = _OfModel(twin, inputs, training, *settings).rows()
    return _told(who, rows, tolerance, raises)


def _told(who: str, rows: list[Row], tolerance: float, raises: bool) -> GradientReport:
    report = GradientReport(who, rows, tolerance)
    if raises and not report:
        raise GradientError(report)
    return report


class _Checker:
    """A function of arrays that gives a number, and what its gradients are said to be.

    ``arrays`` are its arguments, by name, each with the derived gradient; ``noise`` is what
    rounding alone makes of a slope of 0.
    """

    arrays: list[tuple[str, Array, Array]]
    noise: float

    def __init__(self, step: float, tolerance: float, rng: np.random.Generator) -> None:
        self.step, self.tolerance, self.rng = step, tolerance, rng

    def value(self) -> float:
        raise NotImplementedError

    def _measured(self, array: Array, direction: Array) -> float:
        """The value's slope along a direction of one of the arrays."""
        kept = array.copy()
        array[...] = kept + self.step * direction
        above = self.value()
        array[...] = kept - self.step * direction
        below = self.value()
        array[...] = kept
        return (above - below) / (2 * self.step)

    def rows(self) -> list[Row]:
        return [self._row(name, array, gradient) for name, array, gradient in self.arrays]

    def _row(self, name: str, array: Array, gradient: Array) -> Row:
        """The worst of some directions."""
        worst: Row | None = None
        scale = float(np.linalg.norm(gradient))
        for _ in range(DIRECTIONS):
            direction = self.rng.standard_normal(array.shape)
            derived = float(np.vdot(gradient, direction))
            measured = self._measured(array, direction)
            largest = max(abs(derived), abs(measured), 0.1 * scale, 1e-300)
            apart = abs(derived - measured)
            right = bool(apart <= self.noise or apart / largest <= self.tolerance)
            row = Row(name, array.shape, derived, measured, apart / largest, right)
            if worst is None or (worst.right, -worst.error) > (row.right, -row.error):
                worst = row
        assert worst is not None
        if not worst.right:
            worst.hint = self._hint(array, gradient)
        return worst

    def _hint(self, array: Array, gradient: Array) -> str:
        """What kind of error it looks like, from single elements."""
        if not np.isfinite(gradient).all():
            return "backward gives NaN or infinity: is every element of it written?"
        count = min(array.size, ELEMENTS)
        places = self.rng.choice(array.size, count, replace=False)
        derived, measured = gradient.ravel()[places], np.empty(count)
        for k, place in enumerate(places):
            direction = np.zeros(array.shape)
            direction.ravel()[place] = 1
            measured[k] = self._measured(array, direction)
        off = np.abs(derived - measured) > 1e-4 * (np.abs(measured) + np.abs(measured).max() * 1e-3)
        return _words(places, array.shape, derived, measured, off)


class _OfLoss(_Checker):
    """A loss, of targets and outputs."""

    def __init__(self, loss: Loss, x: Any, *settings: Any) -> None:
        super().__init__(*settings)
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            raise ValueError(f"a loss is checked on x=(y_true, y_pred), not on {x!r}")
        self.loss, self.y = loss, np.array(x[1], np.float64)
        self.target = loss.check(np.asarray(x[0]), self.y.shape[1:], "y_true")
        rows = np.asarray(loss.call(self.target, self.y))
        share = loss.shares(self.target, rows.shape, None)
        self.noise = 4 * np.finfo(float).eps * float(np.abs(rows * share).sum()) / self.step
        slope = np.asarray(loss.gradient(self.target, self.y), np.float64)
        if slope.shape != self.y.shape:
            raise ValueError(
                f"{loss.name}: gradient returns the shape {slope.shape}, y_pred has {self.y.shape}"
            )
        self.arrays = [("y_pred", self.y, slope * loss.spread(share, self.y.ndim))]

    def value(self) -> float:
        rows = np.asarray(self.loss.call(self.target, self.y))
        return float((rows * self.loss.shares(self.target, rows.shape, None)).sum())


class _OfPenalty(_Checker):
    """A regularizer, of a weight."""

    def __init__(self, penalty: Regularizer, weight: Array, *settings: Any) -> None:
        super().__init__(*settings)
        self.penalty, self.weight = penalty, weight
        self.noise = 4 * np.finfo(float).eps * abs(float(penalty(weight))) / self.step
        slope = np.asarray(penalty.gradient(weight), np.float64)
        if slope.shape != weight.shape:
            raise ValueError(
                f"{type(penalty).__name__}: gradient returns the shape {slope.shape}, the weight "
                f"has {weight.shape}"
            )
        self.arrays = [("weight", weight, slope)]

    def value(self) -> float:
        return float(self.penalty(self.weight))


class _OfModel(_Checker):
    """A model, its inputs, and a fixed gradient at its outputs."""

    def __init__(self, model: Model, x: list[Array], training: bool, *settings: Any) -> None:
        super().__init__(*settings)
        self.model, self.x, self.training = model, x, training
        rng = self.rng
        self.kept = [(p, p.value.copy()) for p in model.parameters() if not p.trainable]
        self.state = backend.random_state()
        y, handle = self._forward()
        outputs = y if isinstance(y, list) else [y]
        self.dy = [rng.standard_normal(array.shape) for array in outputs]
        terms = sum(float(np.abs(a * b).sum()) for a, b in zip(outputs, self.dy, strict=True))
        self.noise = 4 * np.finfo(float).eps * terms / self.step
        dx = model.backward(handle, self.dy)
        names = [f"input {t.node.layer.name}" for t in model.inputs]
        parameters = [p for p in model.parameters() if p.trainable]
        self.arrays = [*zip(names, x, dx if isinstance(dx, list) else [dx], strict=True)]
        self.arrays += [(p.name, p.value, p.grad.copy()) for p in parameters]

    def _forward(self) -> Any:
        """Outputs, with the random numbers and statistics of the first time."""
        backend.set_random_state(self.state)
        for parameter, value in self.kept:
            parameter.value[...] = value
        return self.model.forward(self.x if len(self.x) > 1 else self.x[0], self.training)

    def value(self) -> float:
        y, _ = self._forward()
        outputs = y if isinstance(y, list) else [y]
        return sum(float(np.vdot(a, b)) for a, b in zip(outputs, self.dy, strict=True))


def _words(
    places: Array, shape: tuple[int, ...], derived: Array, measured: Array, off: Array
) -> str:  # fmt: skip
    if not off.any():
        return "single elements agree: forward may not be a function of its inputs alone"
    if not measured.any():
        return "the outputs do not depend on it, but backward gives a gradient"
    if not derived.any():
        return "backward gives zeros; a term, or the whole of it, is missing"
    usable = np.abs(measured) > 1e-3 * np.abs(measured).max()
    ratio = derived[usable] / measured[usable]
    middle = float(np.median(ratio))
    if np.allclose(ratio, middle, rtol=1e-4):
        if abs(middle + 1) < 1e-4:
            return "the sign is wrong everywhere"
        return f"a factor is wrong: it is {middle:.6g} times what it should be, everywhere"
    wrong = places[off]
    if alone := _along_an_axis(places, shape, off):
        return alone
    if len(wrong) < SHARE * len(places):
        first = [str(tuple(map(int, np.unravel_index(i, shape)))) for i in np.sort(wrong)[:SHOWN]]
        return (
            f"{len(wrong)} of {len(places)} elements are off, the others agree, first at "
            f"{', '.join(first)}: an edge, or a kink that lies near"
        )
    difference = derived - measured
    if np.allclose(difference, difference.mean(), rtol=1e-4):
        return f"a term is off by the same amount everywhere, {difference.mean():.6g}"
    lines = [
        f"{tuple(map(int, np.unravel_index(places[k], shape)))}: derived {derived[k]:.6g}, "
        f"measured {measured[k]:.6g}"
        for k in np.nonzero(off)[0][:SHOWN]
    ]
    return "elements are off in no simple way, for example at " + "; ".join(lines)


def _along_an_axis(places: Array, shape: tuple[int, ...], off: Array) -> str:
    """The words where all that is off lies at one place of an axis, and all that lies there is off:
    a sample, an edge, a channel."""
    for axis, index in enumerate(np.unravel_index(places, shape)):
        at = np.unique(index[off])
        if shape[axis] > 1 and len(at) == 1 and off[index == at[0]].mean() > 0.9:
            kind = {0: "the first axis", len(shape) - 1: "the last axis"}.get(axis, f"axis {axis}")
            return (
                f"what is off lies at {int(at[0])} of {kind} alone, and all of it there: one "
                "sample, an edge, a channel"
            )
    return ""


def _model(given: Any, input_shape: Any) -> tuple[Model, str]:
    if isinstance(given, Model):
        given._build_for([np.zeros((1, *input_shape))] if input_shape and not given.built else None)
        return given, given.name
    if not isinstance(given, Layer):
        raise ValueError(
            f"check_gradients takes a layer, a model, a loss or a regularizer, not {given!r}"
        )
    several = input_shape is not None and not hasattr(input_shape[0], "__index__")
    if input_shape is None:
        if given._node is None:
            raise ValueError(f"{given.name} has not been used yet: give input_shape")
        wanted = [tensor.sample_shape for tensor in given._node.inputs]
    else:
        wanted = list(input_shape) if several else [input_shape]
    kept = given._node
    inputs = [Input(shapes.known(tuple(shape), given.name)) for shape in wanted]
    output = given(inputs if len(inputs) > 1 else inputs[0])
    given._node = kept
    return Model(inputs, output), f"{given.name} ({type(given).__name__})"


@contextmanager
def _double() -> Iterator[None]:
    """Inside, models are in float64; the process' settings are afterwards as they were."""
    kept = backend.floatx(), backend.random_state()
    backend.set_floatx("float64")
    try:
        yield
    finally:
        backend.set_floatx(kept[0])
        backend.set_random_state(kept[1])


def _inputs(
    model: Model, x: Any, input_shape: Any, batch: int, rng: np.random.Generator
) -> list[Array]:
    if x is None:
        given = model._given_shapes(input_shape)
        found = [rng.standard_normal((batch, *shape)) for shape in given]
        return [a + np.where(a < 0, -0.05, 0.05) for a in found]  # away from kinks at 0
    return [np.array(a, np.float64) for a in model._inputs(x)]
