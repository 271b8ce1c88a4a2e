"""Where NaN or infinity came from: data, parameters, a layer's result, or the loss itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastconv.graph import Graph
from fastconv.plan import Plan

if TYPE_CHECKING:
    from fastconv.model import Model


def where_nonfinite(
    model: "Model", x: Sequence[np.ndarray], y: Sequence[np.ndarray], step: int
) -> str:
    """In words: the first place where a batch whose loss is not finite has such a number.

    The batch runs once more, as in training, with every layer's result in sight.
    """
    graph = model.graph
    for name, arrays in (("x", x), ("y", y)):
        if not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f"):
            return f"{name} holds NaN or infinity already"
    if bad := [p.name for p in graph.parameters if not np.isfinite(p.value).all()]:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return (
            f"the parameter {bad[0]}{more} holds NaN or infinity already, by the update before; a "
            "smaller learning rate or clipping the gradients may help"
        )
    kept = [(p, p.value.copy()) for p in graph.parameters if not p.trainable]
    whole = Graph(graph.inputs, [node.output for node in graph.nodes if node.inputs])
    plan = Plan(
        whole,
        [a.shape[1:] for a in x],
        training=True,
        backward=False,
        double=any(p.value.dtype == np.float64 for p in graph.parameters),
    )
    running = plan.borrow(len(x[0]))
    try:
        for entry, rows in zip(plan.inputs, x, strict=True):
            running.read(entry, np.ascontiguousarray(rows), None, len(rows))
        running.forward(len(x[0]), model.seed, step)
        for tensor, place in zip(whole.outputs, plan.outputs, strict=True):
            result = running.array(place)
            if not np.isfinite(result).all():
                layer = tensor.node.layer
                count = int((~np.isfinite(result)).sum())
                return (
                    f"first in the result of the layer {layer.name} ({type(layer).__name__}), "
                    f"{count:,} of {result.size:,} values"
                )
    finally:
        for parameter, value in kept:
            parameter.value[...] = value
    return "every layer's result is finite, so it is the loss that takes them beyond all bounds"
