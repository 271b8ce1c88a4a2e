"""What a model is given, as checked batches: the arguments of `fit` and `evaluate` as sources."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import shapes
from fastconv.data import check_finite, check_weights, class_weights
from fastconv.feeding import ArraySource, Batch, Source, StreamSource, is_stream, split

if TYPE_CHECKING:
    from fastconv.model import Model

BATCH = 32  # where none is named


def source(
    model: "Model", x: Any, y: Any, weight: Any, *, batch_size: int | None, shuffle: bool,
    class_weight: Any = None, steps: int | None = None, steps_name: str = "steps_per_epoch",
    what: str = "x", anew: bool = True,
) -> Source:  # fmt: skip
    """Batches of x, y and sample weights, checked; ``what`` and ``steps_name`` are how messages
    call them and their number."""
    steps = None if steps is None else shapes.integer(steps, steps_name)
    if x is None:
        raise ValueError(f"{what} is missing: it is None")
    if is_stream(x, y):
        if y is not None or weight is not None:
            other = "y" if y is not None else "sample_weight"
            raise ValueError(f"{other} is not taken beside batches, which have it: (x, y), …")

        def check(element: Any, name: str) -> Batch:
            x, y, w = split(element)
            if y is None:
                raise ValueError("it has no targets; a batch is (x, y) or (x, y, sample_weight)")
            return _checked(model, x, y, w, class_weight)

        found = StreamSource(
            x, check, batch_size=batch_size, shuffle=shuffle, steps=steps, what=what, anew=anew,
            steps_name=steps_name,
            sample_rank=None if not model.built else len(model.graph.inputs[0].sample_shape),
        )  # fmt: skip
        if not model.built:
            model._build_for(split(found.first())[0])
        return found
    if y is None:
        raise ValueError(f"{what} needs targets: y is missing")
    model._build_for(x)
    batch = _checked(model, x, y, weight, class_weight)
    size = BATCH if batch_size is None else shapes.integer(batch_size, "batch_size")
    stop = None if steps is None else steps * size
    if stop is not None and stop - size >= batch.n:
        there = -(-batch.n // size)
        raise ValueError(
            f"{steps_name}: {steps} batches of {size} were asked for, there are {there}"
        )
    arrays = ArraySource(batch.x, batch.y, batch.weights, size, shuffle=shuffle)
    arrays.steps = arrays.steps if steps is None else steps
    return arrays


def sources(
    model: "Model", x: Any, y: Any, weight: Any, *, batch_size: int | None, shuffle: bool,
    class_weight: Any, steps: int | None, split: float, validation: Any,
    validation_steps: int | None, validation_batch: int | None,
) -> tuple[Source, Source | None]:  # fmt: skip
    """What `fit` trains with, and what it validates with."""
    share = shapes.real(split, "validation_split", 0, 1)
    shuffle = shapes.flag(shuffle, "shuffle")
    train = source(
        model, x, y, weight, batch_size=batch_size, shuffle=shuffle, class_weight=class_weight,
        steps=steps, anew=False,
    )  # fmt: skip
    if validation_batch is not None:
        validation_batch = shapes.integer(validation_batch, "validation_batch_size")
    if validation is not None:
        return train, _validation(model, validation, validation_steps, validation_batch, train)
    if not share:
        return train, None
    if not isinstance(train, ArraySource):
        raise ValueError("validation_split takes a share of arrays; give validation_data")
    whole = train.samples
    n = int(whole * (1 - share))
    if n in (0, whole):
        raise ValueError(f"validation_split {share:g} of {whole} samples leaves an empty part")
    size = validation_batch or train.batch_size
    weights = train.weights
    if class_weight is not None:  # which training alone has
        weights = None if weight is None else _weights(weight, model._need_compiled().names, whole)
    held = ArraySource(train.x, train.y, weights, size, start=n)
    if validation_steps is not None:
        held.steps = min(held.steps, shapes.integer(validation_steps, "validation_steps"))
    limit = train.steps
    train = ArraySource(train.x, train.y, train.weights, train.batch_size, 0, n, shuffle)
    train.steps = min(train.steps, limit)
    return train, held


def _validation(
    model: "Model", given: Any, steps: int | None, batch: int | None, train: Source
) -> Source:
    if is_stream(given, None) and not isinstance(given, tuple):
        return source(
            model, given, None, None, batch_size=batch, shuffle=False, steps=steps,
            steps_name="validation_steps", what="validation_data",
        )  # fmt: skip
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise ValueError("validation_data is a pair (x, y), (x, y, sample_weight), or batches")
    x, y, weight = (*given, None)[:3]
    size = batch or train.batch_size or BATCH
    try:
        return source(
            model, x, y, weight, batch_size=size, shuffle=False, steps=steps,
            steps_name="validation_steps",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"validation_data: {error}") from error


def one_batch(model: "Model", x: Any, y: Any, weight: Any, class_weight: Any) -> Batch:
    """Arrays as a single batch, checked."""
    return _checked(model, x, y, weight, class_weight)


def inputs_of(model: "Model", x: Any, batch_size: int | None, steps: int | None) -> Iterator[Any]:
    """The inputs of each batch, for `predict`."""
    rank = len(model.graph.inputs[0].sample_shape) if model.built else None
    steps = None if steps is None else shapes.integer(steps, "steps")

    def check(element: Any, what: str) -> Batch:
        rows = split(element)[0]
        model._build_for(rows)
        arrays = model._inputs(rows)
        return Batch(arrays, [], None, None, len(arrays[0]))

    found = StreamSource(
        x, check, batch_size=batch_size, shuffle=False, steps=steps, steps_name="steps",
        sample_rank=rank,
    )  # fmt: skip
    for batch in found.epoch(0):
        yield batch.x


def _checked(model: "Model", x: Any, y: Any, weight: Any, class_weight: Any) -> Batch:
    """Inputs, targets and weights as arrays that fit the model and hold finite numbers."""
    compiled = model._need_compiled()
    inputs, targets = model._pairs(x, y)
    for what, names, arrays in (
        ("x", [t.node.layer.name for t in model.graph.inputs], inputs),
        ("y", compiled.names, targets),
    ):
        for name, array in zip(names, arrays, strict=True):
            narrow = array.dtype == np.float64 and not model._double
            check_finite(array, f"{what} for {name}", narrow)
    n = len(inputs[0])
    weights = None if weight is None else _weights(weight, compiled.names, n)
    if class_weight is not None:
        if len(targets) > 1:
            raise ValueError("class_weight needs a model with one output; use sample_weight")
        count = model.graph.outputs[0].sample_shape[-1]
        classes = class_weights(class_weight, targets[0], compiled.losses[0].labels, count)
        weights = [classes if weights is None else (classes * weights[0]).astype(np.float32)]
    return Batch(inputs, targets, weights, None, n)


def _weights(value: Any, names: list[str], n: int) -> list[np.ndarray]:
    """Weights (n,) per output; one array is for all outputs."""
    if isinstance(value, Mapping):
        for name in value:
            shapes.choice(name, names, "output in sample_weight")
        given = [value.get(name) for name in names]
    elif len(names) > 1 and isinstance(value, (list, tuple)) and len(value) == len(names) != n:
        given = list(value)
    else:
        given = [value] * len(names)
    return [
        np.ones(n, np.float32) if w is None else check_weights(w, n, f"sample_weight for {name}")
        for name, w in zip(names, given, strict=True)
    ]
