"""What `compile` settles, optimizer, losses and metrics, and the run of one batch."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import losses, metrics, optimizers, shapes
from fastconv.data import as_list, readable
from fastconv.graph import Graph
from fastconv.layers.activation import Activation
from fastconv.layers.batch_normalization import BatchNormalization
from fastconv.layers.conv2d import Conv2D
from fastconv.layers.dense import Dense
from fastconv.layers.dropout import Dropout
from fastconv.layout import is_transpose
from fastconv.metrics import Metric
from fastconv.plan import Builder, Input, Plan, RunningPass, Value, read
from fastconv.regularizers import Penalties

CHEAP = (Activation, BatchNormalization, Dropout)  # a pass over memory makes their results anew


class Compiled:
    """Optimizer, one loss per output, metrics per output.

    Parameters
    ----------
    graph : Graph
    optimizer, loss, metric, loss_weights, recompute, dtype_policy, weighted_metric
        As `Model.compile` takes them.
    """

    def __init__(
        self,
        graph: Graph,
        optimizer: Any,
        loss: Any,
        metric: Any,
        loss_weights: Any,
        recompute: Any = None,
        dtype_policy: str = "float32",
        weighted_metric: Any = None,
    ) -> None:
        self.dtype_policy = dtype_policy
        self.optimizer = optimizers.get(optimizer)
        self.names = output_names(graph)
        self.losses = [losses.get(item) for item in self._per_output(loss, "loss")]
        weights = [1.0] * len(self.names)
        if loss_weights is not None:
            items = loss_weights if isinstance(loss_weights, (list, tuple)) else []
            if any(isinstance(item, (str, Metric)) for item in items):
                raise ValueError(
                    f"loss_weights are numbers, not {items!r}; metrics are named: metrics=[…]"
                )
            given = self._per_output(loss_weights, "loss_weights")
            weights = [shapes.real(item, "loss_weights", 0) for item in given]
        self.weights = weights
        self.metrics: list[list[tuple[str, Metric]]] = []
        self.metric_names: list[list[str]] = []
        self.plain: list[int] = []  # how many of the metrics the samples' weights do not concern
        for item, weighted, one, tensor in zip(
            self._metrics(metric), self._metrics(weighted_metric), self.losses, graph.outputs,
            strict=True,
        ):  # fmt: skip
            found = [metrics.get(name, one, tensor.sample_shape) for name in (*item, *weighted)]
            self.metrics.append(found)
            self.plain.append(len(item))
            names = [metric.log_names(name, tensor.sample_shape) for name, metric in found]
            plain = [name for each in names[: len(item)] for name in each]
            counted = [name for each in names[len(item) :] for name in each]
            counted = [f"weighted_{name}" if name in plain else name for name in counted]
            self.metric_names.append(_distinct(plain + counted))
        self.recompute = _recomputed(graph, recompute)

    def _per_output(self, value: Any, what: str) -> list[Any]:
        names = self.names
        if isinstance(value, dict) and "name" not in value:
            for name in value:
                shapes.choice(name, names, f"output in {what}")
            missing = [name for name in names if name not in value]
            if missing:
                raise ValueError(f"{what} lacks the output {', '.join(missing)}")
            return [value[name] for name in names]
        if isinstance(value, (list, tuple)):
            if len(value) != len(names):
                raise ValueError(f"{what} has {len(value)} entries for {len(names)} outputs")
            return list(value)
        return [value] * len(names)

    def _metrics(self, value: Any) -> list[list[Any]]:
        """Metrics per output: a list with an entry (one, a list, None) for each, or a dict; of one
        entry alone, for all of them."""
        if value is None:
            return [[] for _ in self.names]
        if isinstance(value, dict):
            for name in value:
                shapes.choice(name, self.names, "output in metrics")
            return [_listed(value.get(name)) for name in self.names]
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(self.names) == 1 or len(items) < 2:
            flat = items[0] if items and isinstance(items[0], (list, tuple)) else items
            return [list(flat) for _ in self.names]
        return [_listed(item) for item in self._per_output(items, "metrics")]

    @property
    def log_names(self) -> list[str]:
        """Names of what a batch reports: the loss, the outputs' own where several, the metrics."""
        several = len(self.names) > 1
        names = ["loss", *(f"{name}_loss" for name in self.names if several)]
        for output, found in zip(self.names, self.metric_names, strict=True):
            names += [f"{output}_{name}" if several else name for name in found]
        return names

    def to_config(self) -> dict[str, Any]:
        named = [
            [[c for pair in part if (c := metrics.to_config(*pair)) is not None] for part in
             (found[:n], found[n:])]
            for found, n in zip(self.metrics, self.plain, strict=True)
        ]  # fmt: skip
        return {
            "optimizer": optimizers.to_config(self.optimizer),
            "loss": [losses.to_config(loss) for loss in self.losses],
            "loss_weights": self.weights,
            "metrics": [plain for plain, _ in named],
            "weighted_metrics": [weighted for _, weighted in named],
            "recompute": sorted(self.recompute),
            "dtype_policy": self.dtype_policy,
        }


class Heads:
    """The ends of a plan: reads targets, emits losses and metrics; given to `Plan` as ``heads``.

    Attributes
    ----------
    targets, weights : list of Input
    values, totals : list of int
        Double slots of the losses and of the metrics, output by output.
    trained : tuple of Parameter
        What the optimizer updates.
    """

    def __init__(
        self, graph: Graph, compiled: Compiled, gradients: bool, weighted: bool = False
    ) -> None:
        self.graph = graph
        self.compiled = compiled
        self.gradients = gradients
        self.weighted = weighted
        self.targets: list[Input] = []
        self.weights: list[Input] = []  # of the samples, per output; where there are any
        self.values: list[int] = []
        self.totals: list[list[int]] = []
        self.sizes: list[list[int]] = []  # doubles of each metric
        self.rows: list[int] = []  # of metrics, per sample
        # of the layers as they are now: where a layer is frozen later, another plan is made
        self.trained = tuple(p for p in graph.parameters if p.trainable)

    def __call__(self, b: Builder, outputs: list[Value]) -> list[Value | None]:
        readers = self.graph.consumers()
        grads: list[Value | None] = []
        for tensor, y, loss, weight, found, plain in zip(
            self.graph.outputs, outputs, self.compiled.losses, self.compiled.weights,
            self.compiled.metrics, self.compiled.plain, strict=True,
        ):  # fmt: skip
            target = read(b, shapes.known(loss.target_shape(y.shape), loss.name), loss.labels)
            layer = tensor.node.layer  # one of ours: what backward of others does, nobody knows
            ends = (
                isinstance(layer, (Activation, Dense, Conv2D))
                and layer.activation.name == loss.passes
            )
            alone = not readers[tensor] and self.graph.outputs.count(tensor) == 1
            fused = ends and alone
            dy = None
            if self.gradients:
                dy = b.value(y.shape)
                dy = Value(dy.slot, dy.shape, dy.stride, pre_activation=fused)
            self.targets.append(target)
            self.values.append(b.lasting(1, 8))
            self.totals.append([b.lasting(metric.size(y.shape), 8) for _, metric in found])
            self.sizes.append([metric.size(y.shape) for _, metric in found])
            self.rows.append(y.pixels)
            more = {}
            if self.weighted:
                self.weights.append(read(b, (1,)))
                more["weight"] = self.weights[-1].value.slot
            loss.emit(b, y, target.value, self.values[-1], dy, fused, weight, **more)
            for i, ((_, metric), total) in enumerate(zip(found, self.totals[-1], strict=True)):
                metric.emit(b, y, target.value, total, **(more if i >= plain else {}))
            grads.append(dy)
        return grads


class BatchRunner:
    """Runs batches through one pass with heads, and keeps the means of what they report.

    It is kept with its pass, so it holds views of the pass' memory but not the pass itself.
    """

    def __init__(self, plan: Plan, heads: Heads, running: RunningPass) -> None:
        self.plan = plan
        self.heads = heads
        self.names = heads.compiled.log_names
        double = np.dtype(np.float64)
        view = running.native.view
        self.losses = [view(slot, (1,), double) for slot in heads.values]
        weights = heads.compiled.weights
        self.weighed = [(i, *pair) for i, pair in enumerate(zip(self.losses, weights, strict=True))]
        self.hits = [
            [view(slot, (slot_size,), double) for slot, slot_size in zip(found, sizes, strict=True)]
            for found, sizes in zip(heads.totals, heads.sizes, strict=True)
        ]
        self.penalties = Penalties(heads.trained)
        self.reset()

    def reset(self) -> None:
        """Start new means."""
        self.samples = 0
        self.sums = [0.0] * len(self.losses)
        self.penalty = 0.0
        for hits in (hits for found in self.hits for hits in found):
            hits[:] = 0  # the metrics' steps add to it

    def forward(
        self, running: RunningPass, x: Sequence[np.ndarray], y: Sequence[np.ndarray],
        index: np.ndarray | None, n: int, seed: int, step: int,
        weights: Sequence[np.ndarray] | None = None,
    ) -> float:  # fmt: skip
        """Read n rows of inputs and targets, run forward and the heads, add to the means; returns
        the loss of the batch."""
        for entry, rows in zip(self.plan.inputs, x, strict=True):
            running.read(entry, rows, index, n)
        for entry, rows in zip(self.heads.targets, y, strict=True):
            running.read(entry, rows, index, n)
        if weights is not None:
            for entry, rows in zip(self.heads.weights, weights, strict=True):
                running.read(entry, rows, index, n)
        running.forward(n, seed, step)
        self.samples += n
        loss = 0.0
        for i, value, weight in self.weighed:
            number = value.item()
            self.sums[i] += n * number
            loss += weight * number
        if self.penalties:
            penalty = self.penalties()
            self.penalty += n * penalty
            loss += penalty
        return loss

    def state(self) -> dict[str, Any]:
        """The means so far, for another pass or another process."""
        hits = [[hits.tolist() for hits in found] for found in self.hits]
        sums = {"sums": list(self.sums), "penalty": self.penalty}
        return {"samples": self.samples, **sums, "hits": hits}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the means of `state`."""
        self.samples, self.sums = state["samples"], list(state["sums"])
        self.penalty = state["penalty"]
        for found, values in zip(self.hits, state["hits"], strict=True):
            for hits, value in zip(found, values, strict=True):
                hits[:] = value

    def logs(self) -> dict[str, float]:
        """The means over all samples since `reset`."""
        means = [total / self.samples for total in self.sums]
        weights = self.heads.compiled.weights
        numbers = [sum(w * mean for w, mean in zip(weights, means, strict=True))]
        numbers[0] += self.penalty / self.samples
        numbers += means if len(means) > 1 else []
        kinds = self.heads.compiled.metrics
        for rows, found, named in zip(self.heads.rows, self.hits, kinds, strict=True):
            for hits, (_, metric) in zip(found, named, strict=True):
                outcome = metric.outcome(hits, rows * self.samples)
                numbers += np.ravel(outcome).tolist() if np.ndim(outcome) else [float(outcome)]
        return dict(zip(self.names, numbers, strict=True))


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    return [
        f"{name}_{names[:i].count(name)}" if name in names[:i] else name
        for i, name in enumerate(names)
    ]


def _recomputed(graph: Graph, value: Any) -> frozenset[str]:
    """The names of the layers whose results backward computes again."""
    if value is None:
        return frozenset()
    if value == "activations":
        return frozenset(layer.name for layer in graph.layers if isinstance(layer, CHEAP))
    names_given = isinstance(value, (list, tuple, set, frozenset))
    if not names_given or not all(isinstance(item, str) for item in value):
        raise ValueError(
            'recompute is "activations" or a list of names of layers (patterns as "block1_*" too), '
            f"not {value!r}"
        )
    names = [layer.name for layer in graph.layers]
    found: set[str] = set()
    for pattern in value:
        # a name is a name first, whatever signs it has
        matches = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        if not matches:
            shapes.choice(pattern, names, "layer in recompute")
        found.update(matches)
    return frozenset(found)


def _listed(value: Any) -> list[Any]:
    """One, several or no metrics, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_execution(
    run_eagerly: Any, steps_per_execution: Any, jit_compile: Any, auto_scale_loss: Any
) -> None:
    """Keras' switches of how a step is run: those that ask for what there is, or a ValueError."""
    if run_eagerly not in (False, None):
        raise ValueError(
            "run_eagerly: steps are compiled kernels, there is nothing to run in Python instead; "
            "parts of your own (fastconv.own) run in Python in any case, and model.forward and "
            "model.backward take a step apart"
        )
    if jit_compile not in ("auto", False, None):
        raise ValueError(
            "jit_compile: kernels are compiled when fastconv is built, and fused when a model "
            "first trains; leave it out"
        )
    if steps_per_execution not in (1, None):
        raise ValueError(
            "steps_per_execution is 1 here: a step costs too little to be bundled, and callbacks "
            "see every batch; leave it out"
        )
    if auto_scale_loss not in (True, False):
        raise ValueError(f"auto_scale_loss is True or False, not {auto_scale_loss!r}")


def output_names(graph: Graph) -> list[str]:
    """The outputs' names, those of layers or of models that are used as layers, numbered where one
    makes several."""
    names: list[str] = []
    for tensor in graph.outputs:
        before = tensor.node.inputs[0] if is_transpose(tensor.node) else tensor
        calls = [call for call in before.node.calls if before in call.outputs]
        name = unique = calls[0].model.name if calls else before.node.layer.name
        number = 0
        while unique in names:
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def check_targets(
    y: Any, graph: Graph, compiled: Compiled, outputs: Sequence[shapes.Shape], what: str = "y"
) -> list[np.ndarray]:
    """Target arrays, one per output, in a dtype that can be read by rows."""
    given = as_list(y, compiled.names, what)
    arrays = []
    for name, loss, value, shape in zip(
        compiled.names, compiled.losses, given, outputs, strict=True
    ):
        arrays.append(readable(loss.check(value, shape, f"{what} for {name}")))
    return arrays
