"""Models: a graph with the means to train it, ask it, keep it and hand it on."""

import html
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend, data, fitting, optimizers, precision, progress, shapes, sources
from fastconv.arguments import explained
from fastconv.callback import CallbackList
from fastconv.feeding import is_stream
from fastconv.graph import Graph
from fastconv.history import History
from fastconv.layer import Call, Layer, Tensor
from fastconv.layers._image_layer import OnArrays
from fastconv.layers.input import Input, InputLayer
from fastconv.layout import is_transpose, laid_out
from fastconv.losses import as_array, real_array
from fastconv.parameter import Parameter, assign_all, total
from fastconv.plan import Plan, RunningPass
from fastconv.training import (
    BatchRunner,
    Compiled,
    Heads,
    check_execution,
    check_targets,
    output_names,
)  # fmt: skip

if TYPE_CHECKING:
    from fastconv.memory import Memory
    from fastconv.profile import Profile
    from fastconv.weights import WeightsReport

PLANS = 8  # plans kept per model: purposes times spatial sizes
BATCH, PREDICT_BATCH = 32, 128  # where none is named
NOBODY = CallbackList()

Arrays = np.ndarray | list[np.ndarray]
# what Keras' models may override
NEVER_CALLED = (
    "call", "train_step", "test_step", "predict_step", "make_train_function",
    "make_test_function", "compute_loss", "compute_metrics",
)  # fmt: skip


class ForwardPass:
    """What `Model.forward` hands out: the outputs' values and what `Model.backward` needs.

    Saved activations, dropout masks and batch statistics live here, so several passes may be alive
    at once. The memory goes back to the model when the pass is dropped.
    """

    def __init__(self, graph: Graph, plan: Plan, running: RunningPass) -> None:
        self._graph = graph
        self._plan = plan
        self._running: RunningPass | None = running

    def _take(self) -> RunningPass:
        if self._running is None:
            raise ValueError("a pass goes backward once; run forward again")
        running, self._running = self._running, None
        return running

    def __del__(self) -> None:
        if getattr(self, "_running", None) is not None:
            self._plan.give_back(self._take())


class Model:
    """A graph of layers from inputs to outputs.

    Parameters
    ----------
    inputs, outputs : Tensor or list of Tensor
        ``Input(...)`` and what layers made of it.
    name : str, optional

    Attributes
    ----------
    class_names : list of str or None
        What the classes of the (first) output are called. Set it, and saved models and exported
        files carry it.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None) -> None:
        self._prepare(name)
        self._graph: Graph | None = Graph(inputs, outputs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in NEVER_CALLED:
            if method in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{method} would never be called: a model is a graph of layers, "
                    "made of an Input and what layers make of it, and fit runs its compiled steps. "
                    "Write a loop with model.forward and model.backward, a layer or a loss of your "
                    "own: docs/no_autograd.md"
                )

    def __reduce__(self) -> Any:
        """Copies and pickles are made of the bytes of a model file, optimizer state included."""
        from fastconv.saving import to_bytes

        with self._lock:
            return _from_file, (to_bytes(self),)

    def _prepare(self, name: str | None) -> None:
        self.name = name or type(self).__name__.lower()
        self.seed = backend.next_seed()  # of dropout
        self._lock = threading.RLock()
        self._plans: OrderedDict[Any, tuple[Plan, Any]] = OrderedDict()
        self._compiled: Compiled | None = None
        self._settings: tuple[Any, ...] | None = None
        self.stop_training = False
        self.history: History | None = None  # of the last `fit`
        self.class_names: list[str] | None = None

    @classmethod
    def from_graph(cls, graph: Graph, name: str | None = None) -> "Model":
        """A model around a graph that exists."""
        outputs = graph.outputs[0] if graph.single else graph.outputs
        return cls(graph.inputs, outputs, name)

    # -- structure ----------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """The layers and how they are joined; the graph is the model."""
        if self._graph is None:
            raise ValueError(
                f"{self.name} has no input shape yet: begin with an Input, or call build or fit"
            )
        return self._graph

    @property
    def built(self) -> bool:
        return self._graph is not None

    @property
    def layers(self) -> list[Any]:
        """The layers in order; a model that is used as a layer stands as one."""
        items = [item for item in self.graph.items() if not is_transpose(item)]
        found = [i.model if isinstance(i, Call) else i.layer for i in items]
        return list(dict.fromkeys(found))

    @property
    def inputs(self) -> list[Tensor]:
        return list(self.graph.inputs)

    @property
    def outputs(self) -> list[Tensor]:
        return list(self.graph.outputs)

    @property
    def input(self) -> Tensor | list[Tensor]:
        """The input, or a list where there are several."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    @property
    def output(self) -> Tensor | list[Tensor]:
        """The output, or a list where there are several."""
        return self.outputs[0] if self.graph.single else self.outputs

    @property
    def input_shape(self) -> Any:
        """With the batch in front, (None, 28, 28, 1); a list where there are several inputs."""
        found = [tensor.shape for tensor in self.inputs]
        return found[0] if len(found) == 1 else found

    @property
    def output_shape(self) -> Any:
        """With the batch in front; a list where there are several outputs."""
        found = [tensor.shape for tensor in self.outputs]
        return found[0] if self.graph.single else found

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """A layer by its name or its place; a name is looked for in the models within, too."""
        if (name is None) == (index is None):
            raise ValueError("name either a layer or its index")
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(f"there is no layer {index} among {len(self.layers)}")
            return self.layers[index]
        by_name = {layer.name: layer for layer in [*self.graph.layers, *self.layers]}
        return by_name[shapes.choice(name, by_name, "layer")]

    @property
    def trainable(self) -> bool:
        """Whether any layer's parameters are trained; setting it sets every layer's.

        A frozen batch norm uses its moving statistics and leaves them as they are.
        """
        inner = (layer for layer in self.graph.layers if not isinstance(layer, InputLayer))
        return any(layer.trainable for layer in inner)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = bool(value)

    def parameters(self) -> list[Parameter]:
        """All parameters: each has ``name``, ``value``, ``grad`` and ``trainable``."""
        return self.graph.parameters

    @property
    def weights(self) -> list[Parameter]:
        """Keras' name of `parameters`."""
        return self.parameters()

    @property
    def variables(self) -> list[Parameter]:
        return self.parameters()

    @property
    def trainable_variables(self) -> list[Parameter]:
        return self._trainable()

    @property
    def non_trainable_variables(self) -> list[Parameter]:
        return self.non_trainable_weights

    @property
    def trainable_weights(self) -> list[Parameter]:
        return self._trainable()

    @property
    def non_trainable_weights(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters() if not parameter.trainable]

    @property
    def metrics(self) -> list[Any]:
        """The metrics of `compile`, output by output."""
        return [metric for found in self._need_compiled().metrics for _, metric in found]

    def reset_metrics(self) -> None:
        """Keras': every call of `train_on_batch` and `evaluate` counts anew here."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The outputs' shapes for inputs of this shape (or these), the batch in front of all."""
        several = isinstance(input_shape[0], (list, tuple))
        given = [tuple(shape) for shape in (input_shape if several else [input_shape])]
        known = self.graph.shapes([shape[1:] for shape in given])
        found = [(given[0][0], *known[tensor]) for tensor in self.graph.outputs]
        return found[0] if self.graph.single else found

    @property
    def metrics_names(self) -> list[str]:
        """What `evaluate` returns, in this order: the loss, then the metrics."""
        return self._need_compiled().log_names

    def _trainable(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters() if parameter.trainable]

    def count_params(self) -> int:
        """How many numbers all parameters hold."""
        return total(self.parameters())

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters' values."""
        with self._lock:
            return [parameter.value.copy() for parameter in self.parameters()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Copy the values in, in the order of `get_weights`."""
        with self._lock:
            assign_all(self.parameters(), weights, self.name)

    def save_weights(self, filepath: str | PathLike[str], overwrite: bool = True) -> None:
        """Write the weights alone, by name, to a ``.safetensors`` or ``.npz`` file.

        ``overwrite=False`` refuses to replace a file.
        """
        from fastconv import weights
        from fastconv.files import check_overwrite

        check_overwrite(filepath, overwrite)
        with self._lock:
            weights.write(self.parameters(), filepath)

    @explained
    def load_weights(
        self, filepath: str | PathLike[str], skip_mismatch: bool = False, *, partial: bool = False
    ) -> "WeightsReport":
        """Read weights that `save_weights` wrote, or another program, by the parameters' names.

        Layers that were named automatically may have other numbers in the file.

        Parameters
        ----------
        filepath : str or path-like
            ``.safetensors`` or ``.npz``.
        skip_mismatch, partial : bool
            Load what fits in name and shape, and leave the rest as it is. Without it anything
            that does not fit is an error, and nothing is changed.

        Returns
        -------
        WeightsReport
            What was loaded, and what not; prints as text.
        """
        from fastconv import weights

        arrays = weights.read(filepath)
        with self._lock:
            try:
                return weights.assign(
                    self.parameters(), arrays, partial or skip_mismatch, self.name
                )
            except ValueError as error:
                raise ValueError(f"{filepath}: {error}") from None

    @explained
    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Print a table of the layers: output shapes, parameters, and what a sample costs.

        Parameters
        ----------
        line_length, positions
            Keras': the table is as wide as it must be.
        print_fn : callable, optional
        expand_nested : bool
            Show the layers of models that are used as layers.
        show_trainable : bool
            Show which layers are trained.
        layer_range : None
            Keras': all layers are shown.
        """
        from fastconv.summary import summary

        if layer_range is not None:
            raise ValueError("layer_range is not supported: all layers are shown")
        if callable(line_length):  # print_fn, where it stood first before
            print_fn = line_length
        kind = type(self).__name__
        text = summary(self.name, kind, self.graph, expand_nested, show_trainable)
        (print_fn or print)(text)

    @explained
    def memory(
        self, batch_size: int | None = None, training: bool = True, input_shape: Any = None
    ) -> "Memory":
        """What a batch takes in memory, beside the data: told before anything runs.

        Parameters
        ----------
        batch_size : int, optional
            By default that of `fit`, or of `predict`.
        training : bool
            With gradients and the optimizer's state, as the model is compiled; False for `predict`.
        input_shape : tuple of int, or a list of them, optional
            One sample's shape, where the model leaves sizes open.

        Returns
        -------
        Memory
            Bytes by kind and by layer; prints as a table.
        """
        from fastconv.memory import measure

        batch = _batch_size(batch_size, BATCH if training else PREDICT_BATCH)
        with self._lock:
            optimizer = self._need_compiled().optimizer if training else None
            given = self._given_shapes(input_shape)
            plan, _ = self._plan_for("fit" if training else "predict", given)
            return measure(self.name, plan, batch, self.parameters(), optimizer)

    def _given_shapes(self, input_shape: Any) -> list[tuple[int, ...]]:
        """The inputs' shapes without open sizes: the model's own, or what is given."""
        tensors = self.graph.inputs
        if input_shape is None:
            for tensor in tensors:
                if None in tensor.sample_shape:
                    raise ValueError(
                        f"{tensor.node.layer.name} leaves sizes open, "
                        f"{shapes.shape_text(tensor.sample_shape)}: give input_shape"
                    )
            return [shapes.known(tensor.sample_shape, tensor.node.layer.name) for tensor in tensors]
        several = len(input_shape) > 0 and not hasattr(input_shape[0], "__index__")
        given = list(input_shape) if several else [input_shape]
        if len(given) != len(tensors):
            raise ValueError(f"{len(tensors)} inputs need as many shapes, not {len(given)}")
        found = []
        for tensor, shape in zip(tensors, given, strict=True):
            name = tensor.node.layer.name
            sizes = tuple(shapes.integer(size, f"input_shape of {name}") for size in shape)
            if len(sizes) != len(tensor.sample_shape) or any(
                want not in (None, size)
                for want, size in zip(tensor.sample_shape, sizes, strict=True)
            ):
                want, got = shapes.shape_text(tensor.sample_shape), shapes.shape_text(sizes)
                raise ValueError(f"{name} takes {want}, not {got}")
            found.append(sizes)
        return found

    @explained
    def profile(
        self, x: Any, y: Any = None, batch_size: int | None = None, repeat: int = 20
    ) -> "Profile":
        """Time every step of one batch: who takes how long, and how near the machine's limits.

        The model's parameters, statistics and optimizer are afterwards as they were.

        Parameters
        ----------
        x : array (n, *shape), or a list of them, one per input
        y : array, or a list of them, one per output; optional
            With targets a whole update of training is timed (the model must be compiled), without
            them inference.
        batch_size : int, optional
            So many of the samples; by default the batch of `fit`, or of `predict`.
        repeat : int
            Runs, after three to warm up; of every step's times the median counts.

        Returns
        -------
        Profile
            Rows by layer, direction and step; prints as a table. ``to_json``, ``save_png``.
        """
        from fastconv.profile import profile

        self._build_for(x)
        inputs, targets = (self._inputs(x), None) if y is None else self._pairs(x, y)
        n = data.length(inputs, "x")
        batch = min(n, _batch_size(batch_size, PREDICT_BATCH if y is None else BATCH))
        repeat = shapes.integer(repeat, "repeat")
        with self._lock:
            return profile(self, [a[:batch] for a in inputs], targets, batch, repeat)

    # -- plans --------------------------------------------------------------------------------

    def _plan(self, purpose: str, arrays: Sequence[np.ndarray]) -> tuple[Plan, Any]:
        """The plan for this purpose and these inputs' shapes, and its heads if it has any."""
        return self._plan_for(purpose, [array.shape[1:] for array in arrays])

    def _plan_for(self, purpose: str, sizes: Sequence[tuple[int, ...]]) -> tuple[Plan, Any]:
        graph = self.graph
        frozen = tuple([layer.trainable for layer in graph.layers])
        key = (purpose, tuple(sizes), frozen)
        found = self._plans.get(key)
        if found is not None:
            self._plans.move_to_end(key)
            return found
        heads = None
        fit = purpose.startswith("fit")
        if fit or purpose.startswith("evaluate"):
            heads = Heads(
                graph, self._need_compiled(), gradients=fit, weighted=purpose.endswith(" weighted")
            )
        by_hand = purpose in ("forward", "forward in training")
        backward = fit or by_hand
        plan = Plan(
            graph,
            sizes,
            training=fit or purpose == "forward in training",
            backward=backward,
            input_gradients=by_hand,
            heads=heads,
            double=self._double,
            recompute=self._need_compiled().recompute if backward and self._settings else (),
            bf16=fit and self._need_compiled().dtype_policy == "mixed_bfloat16",
        )
        self._plans[key] = plan, heads
        while len(self._plans) > PLANS:
            self._plans.popitem(last=False)
        return plan, heads

    @property
    def _double(self) -> bool:
        """Whether it computes in float64."""
        parameters = self.graph.parameters
        if not parameters:
            return backend.floatx() == "float64"
        return any(p.value.dtype == np.float64 for p in parameters)

    def _runner(self, plan: Plan, heads: Heads, running: RunningPass) -> BatchRunner:
        """The runner of this pass, with fresh means."""
        if running.runner is None:
            running.runner = BatchRunner(plan, heads, running)
        running.runner.reset()
        return running.runner

    def _inputs(self, x: Any) -> list[np.ndarray]:
        names = [tensor.node.layer.name for tensor in self.graph.inputs]
        return data.inputs(x, names, [tensor.sample_shape for tensor in self.graph.inputs])

    def _build_for(self, x: Any) -> None:
        """A chance for `Sequential` to learn its input shape."""

    # -- by hand ------------------------------------------------------------------------------

    @explained
    def forward(self, x: Any, training: bool = False) -> tuple[Arrays, ForwardPass]:
        """Outputs for x, and the pass that `backward` needs.

        Parameters
        ----------
        x : array (n, *shape), or a list of them, one per input
        training : bool
            Dropout drops and batch norm uses the batch.

        Returns
        -------
        y : array or list of arrays
            The outputs, the caller's own.
        handle : ForwardPass
        """
        self._build_for(x)
        arrays = self._inputs(x)
        n = data.length(arrays, "x")
        with self._lock:
            plan, _ = self._plan("forward in training" if training else "forward", arrays)
            running = plan.borrow(n)
            for entry, rows in zip(plan.inputs, arrays, strict=True):
                running.read(entry, rows, None, n)
            running.forward(n, self.seed, backend.next_seed() if training else 0)
            outputs = [running.array(value).copy() for value in plan.outputs]
        return self._like_outputs(outputs), ForwardPass(self.graph, plan, running)

    @explained
    def backward(self, handle: ForwardPass, dy: Any, accumulate: bool = False) -> Arrays:
        """Gradients from those at the outputs.

        Every trainable parameter's ``grad`` is overwritten, or added to with ``accumulate=True``.

        Parameters
        ----------
        handle : ForwardPass
            From `forward`; it is used up.
        dy : array or list of arrays
            Gradients at the outputs, in their shapes.
        accumulate : bool

        Returns
        -------
        dx : array or list of arrays
            Gradients at the inputs, the caller's own.
        """
        if not isinstance(handle, ForwardPass):
            raise ValueError(f"backward needs the pass of forward, not {type(handle).__name__}")
        if handle._graph is not self.graph:
            raise ValueError(f"the pass is not one of {self.name} as it is now; run forward again")
        plan = handle._plan
        n = 0 if handle._running is None else handle._running.n
        names = output_names(self.graph)
        given = []
        for name, value, gradient in zip(
            names, plan.outputs, data.as_list(dy, names, "dy"), strict=True
        ):
            gradient = real_array(gradient, f"dy for {name}")
            if n and gradient.shape != (n, *value.shape):
                raise ValueError(
                    f"dy for {name} must have the shape {(n, *value.shape)}, not {gradient.shape}"
                )
            given.append(gradient)
        with self._lock:
            running = handle._take()
            for value, gradient in zip(plan.gradients, given, strict=True):
                running.array(value)[...] = gradient
            running.backward(accumulate)
            found = [
                np.zeros((n, *entry.value.shape), running.native.dtype)
                if value is None
                else running.array(value).copy()
                for entry, value in zip(plan.inputs, plan.input_gradients, strict=True)
            ]
            plan.give_back(running)
        return found[0] if len(found) == 1 else found

    @explained
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = 0,
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Arrays:
        """Outputs for x; a sample's are the same bits in any batch.

        Parameters
        ----------
        x : array (n, *shape), a list of them, one per input, or batches
            As in `fit`; of a batch ``(x, y)`` the targets are not looked at.
        batch_size : int, optional
            Samples at a time; bounds the memory.
        verbose : 0, 1, 2 or "auto"
        steps : int, optional
            So many batches.
        callbacks : list of Callback, optional
        """
        verbose = progress.check_verbose(verbose)
        if callbacks is None and not is_stream(x, None):
            self._build_for(x)
            return self._like_outputs(self._predict(x, batch_size, verbose, NOBODY))
        listed = CallbackList(callbacks)
        listed.begin(self, {"verbose": verbose})
        listed.call("on_predict_begin", {})
        try:
            if not is_stream(x, None):
                self._build_for(x)
                outputs = self._predict(x, batch_size, verbose, listed)
            else:
                found = [
                    self._predict(rows, None, 0, listed)
                    for rows in sources.inputs_of(self, x, batch_size, steps)
                ]
                outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
            listed.call("on_predict_end", {})
        finally:
            listed.close()
        return self._like_outputs(outputs)

    def _predict(
        self, x: Any, batch_size: int | None, verbose: int, callbacks: CallbackList
    ) -> list[np.ndarray]:
        arrays = self._inputs(x)
        n = data.length(arrays, "x")
        batch = min(n, _batch_size(batch_size, PREDICT_BATCH))
        with self._lock:
            plan, _ = self._plan("predict", arrays)
            running = plan.borrow(batch)
            results = [np.empty((n, *v.shape), running.native.dtype) for v in plan.outputs]
            bar = progress.Progress("", -(-n // batch), verbose)
            begins = "on_predict_batch_begin" in callbacks.hooks
            ends = "on_predict_batch_end" in callbacks.hooks
            try:
                for number, start in enumerate(range(0, n, batch)):
                    if begins:
                        callbacks.call("on_predict_batch_begin", number, {})
                    rows = slice(start, min(start + batch, n))
                    count = rows.stop - rows.start
                    for entry, array in zip(plan.inputs, arrays, strict=True):
                        running.read(entry, array[rows], None, count)
                    running.forward(count)
                    for value, result in zip(plan.outputs, results, strict=True):
                        result[rows] = running.array(value)
                    bar.update(rows.stop, dict)
                    if ends:
                        callbacks.call("on_predict_batch_end", number, {})
                bar.close(n, {})
            finally:
                plan.give_back(running)
        return results

    def _like_outputs(self, arrays: list[np.ndarray]) -> Arrays:
        return arrays[0] if self.graph.single else arrays

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """Use the model as a layer: its layers, with their parameters, on other tensors.

        On arrays it computes at once, all samples together, as `forward` does; `predict` goes batch
        by batch.

        Parameters
        ----------
        inputs : Tensor or array, or a list of them, one per input
        training : bool, optional
            Of tensors, False: batch norm and dropout within act as at inference, also in training.
            Of arrays, True: they act as in training.

        Returns
        -------
        Tensor or array, or a list of them, one per output
        """
        tensors = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        symbolic = [isinstance(tensor, Tensor) for tensor in tensors]
        if not any(symbolic):
            return self.forward(inputs, bool(training))[0]
        if not all(symbolic):
            raise ValueError(f"{self.name} is called on tensors or on arrays, not on both")
        if training not in (None, False):
            raise ValueError(f"training is None or False, not {training!r}: fit decides")
        self._build_on(tensors[0])
        graph = self.graph
        tensors = [laid_out(tensor, False) for tensor in tensors]
        if len(tensors) != len(graph.inputs):
            raise ValueError(f"{self.name} takes {len(graph.inputs)} inputs, not {len(tensors)}")
        for own, given in zip(graph.inputs, tensors, strict=True):
            want, have = own.sample_shape, given.sample_shape
            if not shapes.fits(want, have):
                raise ValueError(
                    f"{self.name} takes {shapes.shape_text(want)}, not {shapes.shape_text(have)}"
                )
        call = Call(self, tensors, inference=training is False)
        made = dict(zip(graph.inputs, tensors, strict=True))
        for node in graph.nodes:
            if node.output not in made:
                kept = node.layer.output  # the layer's own model shows its own use of it
                output = node.layer([made[tensor] for tensor in node.inputs])
                node.layer._node = kept.node
                output.node.calls = (call, *node.calls)
                output.node.inference = node.inference or training is False
                made[node.output] = output
        call.outputs = tuple(made[tensor] for tensor in graph.outputs)
        return call.outputs[0] if graph.single else list(call.outputs)

    def _build_on(self, tensor: Tensor) -> None:
        """A chance for `Sequential` to learn its input shape from what it is called on."""

    def get_config(self) -> dict[str, Any]:
        """The model without its weights, as plain data: what `from_config` takes."""
        return {
            "class": "Sequential" if isinstance(self, Sequential) else "Model",
            "name": self.name,
            "graph": self.graph.to_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Model":
        """The model that `get_config` describes, with fresh weights."""
        if not isinstance(config, dict):
            raise ValueError(f"it does not describe a model, as get_config does: {config!r}")
        try:
            kind = KINDS[shapes.choice(config["class"], KINDS, "class of model")]
            graph = Graph.from_config(config["graph"], Model.from_config)
            return kind.from_graph(graph, config["name"])
        except KeyError as error:
            raise ValueError(
                f"the config does not describe a model: it lacks {error}, which get_config gives"
            ) from error

    def to_json(self, **options: Any) -> str:
        """`get_config` as JSON, for `models.model_from_json`; ``options`` are `json.dumps`'."""
        import json

        return json.dumps(self.get_config(), **options)

    # -- training -----------------------------------------------------------------------------

    @explained
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        recompute: Any = None,
        dtype_policy: str | None = None,
    ) -> None:
        """Settle how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str or Loss, or one per output (list, or dict by output name)
        loss_weights : list or dict of float, optional
            Factors of the outputs' losses in their sum.
        metrics : list of str or Metric, or one list per output
            "accuracy" takes the form that fits the loss.
        weighted_metrics : list of str or Metric, or one list per output, optional
            Metrics in which ``sample_weight`` and ``class_weight`` of `fit` and `evaluate` count.
        recompute : "activations" or list of str, optional
            Layers whose results training does not keep for backward but computes again, which
            takes less memory and more time and gives the same bits: by their names, or patterns
            of them ("block1_*"). "activations" are all activations, batch normalizations and
            dropouts. `memory` tells what it saves.
        dtype_policy : {"float32", "mixed_bfloat16"}, optional
            How `fit` multiplies; by default what `fastconv.set_dtype_policy` chose, "float32"
            unless it was called.
        run_eagerly, steps_per_execution, jit_compile, auto_scale_loss
            Keras' switches of how TensorFlow runs a step. Here there is one way: what would ask for
            another one is refused.

        Raises
        ------
        ValueError
            An argument is wrong, or this CPU cannot have the policy.
        """
        if loss is None:
            raise ValueError("compile needs a loss")
        check_execution(run_eagerly, steps_per_execution, jit_compile, auto_scale_loss)
        if isinstance(loss_weights, (int, float)):
            loss_weights = [loss_weights]
        policy = precision.check_dtype_policy(dtype_policy)
        settings = (
            optimizers.get(optimizer), loss, metrics, loss_weights, recompute, policy,
            weighted_metrics,
        )  # fmt: skip
        with self._lock:
            self._compiled = Compiled(self._graph, *settings) if self._graph else None
            self._settings = settings
            for key in [key for key in self._plans if key[0] != "predict"]:
                del self._plans[key]

    def _need_compiled(self) -> Compiled:
        if self._compiled is None:
            if self._settings is None:
                raise ValueError("call model.compile(optimizer, loss) first")
            self._compiled = Compiled(self.graph, *self._settings)
        return self._compiled

    @property
    def optimizer(self) -> Any:
        if self._settings is None:
            return self._need_compiled().optimizer  # which says what is missing
        return self._settings[0]

    def compile_config(self) -> dict[str, Any] | None:
        """How the model was compiled, as plain data; None when it was not."""
        if self._settings is None:
            return None
        return {**self._need_compiled().to_config(), "seed": self.seed}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `compile_config` says."""
        self.seed = shapes.integer(config["seed"], "seed", 0)
        if self.seed >= 1 << 64:
            raise ValueError(f"seed must be below 2^64, not {self.seed}")
        self.compile(
            config["optimizer"],
            config["loss"],
            config["loss_weights"],
            config["metrics"],
            config.get("weighted_metrics"),
            recompute=config.get("recompute", []),
            dtype_policy=precision.nearest_policy(config.get("dtype_policy", "float32")),
        )
        self.optimizer.build(self._trainable())

    @explained
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        accumulate_steps: int = 1,
    ) -> History:
        """Train the model.

        Ctrl-C ends the training after the step that runs: the weights are those of that step,
        callbacks and files are closed, and KeyboardInterrupt is raised.

        Parameters
        ----------
        x : array (n, *shape), a list (dict) of them, one per input, or batches
            Arrays may have any real dtype; bytes stay bytes in memory. Batches are ``(x, y)`` or
            ``(x, y, sample_weight)``: a `fastconv.Dataset`, a list of pairs, a generator, any
            iterable (torch's DataLoader), or an object with ``__len__`` and ``__getitem__`` that
            gives batches (Keras' PyDataset) or single samples (torch's Dataset).
        y : array, or a list (dict) of them, one per output
            Only beside arrays.
        batch_size : int, optional
            Samples of a step; 32 where it is not named.
        epochs : int
            The training ends at this epoch, counted from 0: so many from ``initial_epoch`` 0.
        verbose : 0, 1, 2 or "auto"
            Silent, a bar, or a line per epoch.
        callbacks : list of Callback, optional
        validation_split : float
            The last share of the arrays is kept for validation.
        validation_data : (x, y), (x, y, sample_weight), or batches; optional
        shuffle : bool
            A new order every epoch: of arrays, and of objects with ``__getitem__``.
        class_weight : dict of int to float, optional
            Weights of the classes' samples in the loss; 1 for a class that is not named.
        sample_weight : array (n,), or a list (dict) of them, one per output; optional
            Weights of the samples in the loss.
        initial_epoch : int
        steps_per_epoch : int, optional
            Batches of an epoch. A generator goes on in the next epoch where it stopped.
        validation_steps, validation_batch_size : int, optional
        validation_freq : int, or a list of int
            Validate every so many epochs, or after these, counted from 1.
        accumulate_steps : int
            Every batch runs in so many parts, whose gradients are added up: the memory of a part,
            and the update of the whole batch. Batch norm alone sees the difference.

        Returns
        -------
        History
            ``history["loss"]`` and so on, a number per epoch.

        Raises
        ------
        ValueError
            Among others: x or y hold NaN (in which sample), batches end early or change shape.
        """
        verbose = progress.check_verbose(verbose)
        epochs = shapes.integer(epochs, "epochs", 0)
        with self._lock:
            source, held = sources.sources(
                self, x, y, sample_weight,
                batch_size=batch_size, shuffle=shuffle, class_weight=class_weight,
                steps=steps_per_epoch, split=validation_split, validation=validation_data,
                validation_steps=validation_steps, validation_batch=validation_batch_size,
            )  # fmt: skip
            run = fitting.Run(
                self, source, held,
                epochs=epochs, initial_epoch=shapes.integer(initial_epoch, "initial_epoch", 0),
                callbacks=callbacks, verbose=verbose,
                accumulate_steps=shapes.integer(accumulate_steps, "accumulate_steps"),
                validation_freq=_frequency(validation_freq), class_weight=class_weight,
            )  # fmt: skip
            return run.train()

    def _pairs(self, x: Any, y: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        inputs = self._inputs(x)
        known = self.graph.shapes([array.shape[1:] for array in inputs])
        outputs = [known[tensor] for tensor in self.graph.outputs]
        compiled = self._need_compiled()
        targets = check_targets(y, self.graph, compiled, outputs)
        if any(len(array) != len(inputs[0]) for array in targets):
            called = [t.node.layer.name for t in self.graph.inputs], compiled.names
            names = [
                f"{what} for {name}" if len(those) > 1 else what
                for what, those in zip("xy", called, strict=True)
                for name in those
            ]
            data.length([*inputs, *targets], "x and y", names)
        return inputs, targets

    @explained
    def train_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """One update from one batch; returns the loss, or [loss, metrics…] before the update.

        Arguments as in `fit`.
        """
        self._build_for(x)
        with self._lock:
            batch = sources.one_batch(self, x, y, sample_weight, class_weight)
            plan, heads = self._plan("fit weighted" if batch.weights else "fit", batch.x)
            optimizer = self.optimizer
            optimizer.build(heads.trained)
            running = plan.borrow(batch.n)
            try:
                runner = self._runner(plan, heads, running)
                runner.forward(
                    running, batch.x, batch.y, None, batch.n, self.seed, optimizer.iterations,
                    batch.weights,
                )  # fmt: skip
                running.backward()
                optimizer.apply()
                logs = runner.logs()
            finally:
                plan.give_back(running)
        return _report(logs, return_dict)

    @explained
    def test_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """The loss and metrics on one batch: a number, [loss, metrics…], or a dict."""
        return self.evaluate(
            x, y, batch_size=max(1, len(data.first(x))), verbose=0, sample_weight=sample_weight,
            return_dict=return_dict,
        )  # fmt: skip

    def predict_on_batch(self, x: Any) -> Arrays:
        """Outputs for one batch."""
        return self.predict(x, batch_size=max(1, len(data.first(x))))

    @explained
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics on x and y: a number, [loss, metrics…], or a dict.

        ``x``, ``y`` and ``sample_weight`` as in `fit`; ``steps``: so many batches.
        """
        verbose = progress.check_verbose(verbose)
        with self._lock:
            source = sources.source(
                self, x, y, sample_weight, batch_size=batch_size, shuffle=False, steps=steps,
                steps_name="steps",
            )  # fmt: skip
            listed = CallbackList(callbacks)
            listed.begin(self, {"verbose": verbose, "steps": source.steps})
            try:
                logs = fitting.evaluate(self, source, listed, verbose=verbose)
            finally:
                listed.close()
        return _report(logs, return_dict)

    def fingerprint(self) -> str:
        """SHA-256 of all weights: names, shapes and values. Equal for equal bits alone."""
        from fastconv.weights import fingerprint

        with self._lock:
            return fingerprint(self.parameters())

    # -- files --------------------------------------------------------------------------------

    def save(self, filepath: str | PathLike[str], overwrite: bool = True) -> None:
        """Write the model, its weights and the optimizer's state to one file.

        ``overwrite=False`` refuses to replace a file.
        """
        from fastconv.saving import save_model

        with self._lock:
            save_model(self, filepath, overwrite)

    def export(self, filepath: str | PathLike[str], format: str = "onnx", **options: Any) -> Any:
        """Write the network to ONNX, proved before the file appears; returns the report.

        See `fastconv.onnx.export` for the options.
        """
        from fastconv.onnx import export

        shapes.choice(format, ["onnx"], "format")
        options = {"class_names": self.class_names, **options}
        with self._lock:
            return export(self.graph, filepath, name=self.name, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of `summary`."""
        from fastconv.summary import summary_html

        if not self.built:
            return f"<code>{html.escape(repr(self))}</code>, whose input shape is not known yet"
        return summary_html(self.name, type(self).__name__, self.graph)


class Sequential(Model):
    """Layers one after the other.

    Parameters
    ----------
    layers : list of Layer, optional
        The first may be an ``Input(...)``; without one the shape is taken from the first data.
    name : str, optional
    """

    def __init__(self, layers: Sequence[Any] | None = None, name: str | None = None) -> None:
        self._prepare(name)
        self._graph = None
        self._layers: list[Any] = []
        self._input: Tensor | None = None
        for layer in layers or []:
            self._append(layer)
        self._join()

    @classmethod
    def from_graph(cls, graph: Graph, name: str | None = None) -> "Sequential":
        model = cls(name=name)
        (model._input,) = graph.inputs
        model._layers = [
            item.model if isinstance(item, Call) else item.layer
            for item in graph.items()
            if item.inputs and not is_transpose(item)
        ]
        model._graph = graph
        return model

    @property
    def layers(self) -> list[Any]:
        return list(self._layers)

    def add(self, layer: Any) -> None:
        """Append a layer (or begin with an Input)."""
        self._append(layer)
        try:
            self._join()
        except ValueError:
            self._layers.pop()  # a layer that does not fit leaves the model as it was
            self._join()
            raise

    def pop(self) -> Any:
        """Take the last layer off."""
        if not self._layers:
            raise ValueError(f"{self.name} has no layers")
        layer = self._layers.pop()
        self._join()
        return layer

    def build(self, input_shape: Any) -> None:
        """Make the parameters; ``input_shape`` as in Keras, (None, 28, 28, 1), batch first."""
        shape = tuple(input_shape)
        if self._input is None:
            self._input = Input(shape[1:])
            self._join()

    def _append(self, layer: Any) -> None:
        if isinstance(layer, InputLayer):
            layer = layer.tensor()
        if isinstance(layer, Tensor):
            if not isinstance(layer.node.layer, InputLayer) or self._layers or self._input:
                raise ValueError("an Input stands first, and only there")
            self._input = layer
            return
        if isinstance(layer, Model):
            if layer.built and (len(layer.inputs) > 1 or len(layer.outputs) > 1):
                raise ValueError(f"{layer.name} has several inputs or outputs: not in a Sequential")
        elif not isinstance(layer, Layer):
            raise ValueError(f"a Sequential model is made of layers, not {type(layer).__name__}")
        elif (layer.arity is not None and layer.arity != 1) or layer.arity is None:
            raise ValueError(f"{layer.name} takes several inputs: use the functional form")
        if any(layer.name == other.name and layer is not other for other in self._layers):
            raise ValueError(f"two layers are named {layer.name!r}; names must be unique")
        self._layers.append(layer)
        if self._input is None and len(self._layers) == 1:
            if isinstance(layer, Model) and layer.built:
                self._input = Input(layer.inputs[0].sample_shape)
            elif isinstance(layer, Layer) and layer.first_shape is not None:
                self._input = Input(layer.first_shape)

    def _join(self) -> None:
        """Rebuild the graph from the list."""
        self._plans.clear()
        self._compiled = None
        if self._input is None or not self._layers:
            self._graph = None
            return
        tensor = self._input
        for layer in self._layers:
            tensor = layer(tensor)
        self._graph = Graph(self._input, tensor)

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """Use the model as a layer, see `Model.__call__`; or, where all layers take arrays, as
        those that prepare images do, use them one after the other on an array.
        """
        given = inputs[0] if isinstance(inputs, (list, tuple)) and inputs else inputs
        if isinstance(given, Tensor) or not self._takes_arrays:
            return super().__call__(inputs, training)
        for layer in self._layers:
            inputs = layer(inputs, training=training)
        return inputs

    @property
    def _takes_arrays(self) -> bool:
        """Whether every layer computes on arrays when it is called on one."""
        return bool(self._layers) and all(
            layer._takes_arrays if isinstance(layer, Sequential) else isinstance(layer, OnArrays)
            for layer in self._layers
        )

    def _build_on(self, tensor: Tensor) -> None:
        if self._graph is None and self._input is None:
            self.build(tensor.shape)

    def _build_for(self, x: Any) -> None:
        if self._graph is None and self._input is None:
            if not self._layers:
                raise ValueError(f"{self.name} has no layers")
            shape = as_array(data.first(x), "x").shape
            if len(shape) < 2:
                raise ValueError(f"x must be samples with a shape, not {shape}")
            self.build(shape)


def _from_file(content: bytes) -> Model:
    """What a pickle of a model calls: its bytes are those of a model file."""
    from fastconv.saving import from_bytes

    return from_bytes(content, KINDS)


KINDS: dict[str, type[Model]] = {"Sequential": Sequential, "Model": Model}


def alone(inputs: Sequence[Tensor], output: Tensor) -> Model:
    """A model that computes on arrays and is not trained: no random number is spent on it."""
    with backend.seeded(0):
        return Model(list(inputs), output)


@explained
def load_model(
    filepath: str | PathLike[str],
    custom_objects: Any = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Model:
    """Read what `Model.save` wrote; training goes on where it stood.

    Parameters
    ----------
    filepath : str or path-like
    custom_objects : dict, optional
        Keras': classes of your own are known as soon as they are defined, by their names.
    compile : bool
        False leaves out the compile settings and the optimizer's state.
    safe_mode : bool
        Keras': a file holds no code, whatever this says.

    Returns
    -------
    Model
        A `Sequential` or a `Model`, as it was saved.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not a model file, or damaged, or from a newer fastconv, or its layers and its
        parameters do not belong together. A layer class of your own must be imported before.
    """
    from fastconv.saving import read_model

    for name, value in (custom_objects or {}).items():
        if getattr(value, "__name__", name) != name:
            raise ValueError(f"custom_objects: {value!r} is known by its own name, not as {name!r}")
    return read_model(filepath, KINDS, compile)


def _frequency(value: Any) -> Any:
    """``validation_freq``: every so many epochs, or a collection of epochs."""
    if isinstance(value, (list, tuple, set, range, frozenset)):
        return {shapes.integer(epoch, "validation_freq") for epoch in value}
    return shapes.integer(value, "validation_freq")


def _batch_size(value: Any, default: int) -> int:
    return default if value is None else shapes.integer(value, "batch_size")


def _report(logs: dict[str, float], as_dict: bool) -> Any:
    if as_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
