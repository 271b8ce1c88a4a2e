"""The contract of a layer, and the registry of all of them.

A layer *describes*: it holds hyper-parameters and parameters, says what shape it makes of what
shape, and emits the steps of its forward and of its backward when a plan is made. It holds no
buffer of a pass, so that one layer can stand at several places of a graph and one model can have
several passes alive.

Calling a layer on symbolic tensors records a `Node`; the graph is made of them.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import numpy as np

from fastconv import activations, arguments, constraints, initializers, regularizers, shapes
from fastconv.activations import Activation, Mask
from fastconv.backend import floatx
from fastconv.parameter import Parameter, assign_all
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.layers.batch_normalization import BatchNormalization
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value

REGISTRY: dict[str, type["Layer"]] = {}
_counts: dict[str, int] = {}
_given: "ContextVar[Mapping[str, np.ndarray] | None]" = ContextVar("given", default=None)


class Tensor:
    """A symbolic tensor: what a node will make, one sample's shape of it.

    Attributes
    ----------
    shape : tuple of int or None
        As Keras has it: the batch in front, None, and images in the order in which they are shown.
    sample_shape : tuple of int or None
        One sample's shape as layers see it, channels last.
    channels_first : bool
        Shown as (None, C, H, W), where layers see (H, W, C): see `fastconv.layout`.
    node : Node
        Who makes it.
    """

    def __init__(self, shape: Shape, node: "Node", channels_first: bool = False) -> None:
        self.sample_shape = shape
        self.channels_first = channels_first
        self.node = node
        self.other: Tensor | None = None  # the same in the other order, once it was asked for

    @property
    def shape(self) -> Shape:
        sizes = self.sample_shape
        return (None, *sizes[-1:], *sizes[:-1]) if self.channels_first else (None, *sizes)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def name(self) -> str:
        return self.node.layer.name

    @property
    def dtype(self) -> str:
        return floatx()

    # arithmetic makes the layers that do it

    def __add__(self, other: Any) -> "Tensor":
        if isinstance(other, Tensor):
            return _of("Add")([self, other])
        return _of("Rescaling", 1.0, _number(other, "+"))(self)

    def __sub__(self, other: Any) -> "Tensor":
        return self + (-other if isinstance(other, Tensor) else -_number(other, "-"))

    def __mul__(self, other: Any) -> "Tensor":
        return _of("Rescaling", _number(other, "*"))(self)

    def __truediv__(self, other: Any) -> "Tensor":
        return _of("Rescaling", 1 / _number(other, "/"))(self)

    def __neg__(self) -> "Tensor":
        return _of("Rescaling", -1.0)(self)

    def __rsub__(self, other: Any) -> "Tensor":
        return -self + other

    __radd__, __rmul__ = __add__, __mul__
    __array_ufunc__ = None  # numpy's numbers on the left leave it to us

    def __repr__(self) -> str:
        return f"Tensor(shape={shapes.shape_text(self.shape)}, layer={self.node.layer.name!r})"


def _of(name: str, *arguments: float) -> "Layer":
    return REGISTRY[name](*arguments)


def _number(value: Any, sign: str) -> float:
    """A number beside a symbolic tensor."""
    if isinstance(value, (bool, Tensor)) or np.ndim(value) or not np.isreal(value):
        what = "a tensor" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"a symbolic tensor {sign} {what}: a layer of your own has to do that")
    return float(value)


class Node:
    """One use of a layer: its symbolic inputs and output.

    ``calls`` are the uses of models that it is part of, the outermost first; with ``inference``
    batch norm and dropout act as at inference, also in training.
    """

    def __init__(
        self,
        layer: "Layer",
        inputs: Sequence[Tensor],
        shape: Shape,
        channels_first: bool = False,
    ) -> None:
        self.layer = layer
        self.inputs = tuple(inputs)
        self.output = Tensor(shape, self, channels_first and len(shape) > 1)
        self.calls: tuple[Call, ...] = ()
        self.inference = False


class Call:
    """One use of a model as a layer: the tensors that it was given, and what it makes of them."""

    def __init__(self, model: Any, inputs: Sequence[Tensor], inference: bool = False) -> None:
        self.model = model
        self.inference = inference
        self.inputs = tuple(inputs)
        self.outputs: tuple[Tensor, ...] = ()


class Frame(SimpleNamespace):
    """What a plan knows of one node while its steps are emitted.

    Attributes
    ----------
    inputs : list of Value
        Behind those of the layer, a residual to be added to its result or its norm's.
    output : Value
        Set after ``forward``.
    activation : Activation
        To be applied to the result, for nodes that follow this one (`fastconv.fusion`).
    norm : BatchNormalization, optional
        To be applied to a product's sums, before a residual and the activation (inference alone).
    mask : Mask or None
        A dropout to be applied behind the activation, for a node that follows (`fastconv.fusion`).
    needs : list of bool
        For which inputs the gradient is wanted.
    moments : bool
        A batch norm wants mean and variance of the result: a product that can leaves their slots in
        ``saved.moments``.
    given : tuple of int, optional
        For a batch norm: the slots of its input's mean and variance, where its maker left them.
    input_activation : Activation
        That of the node which made the input: backward passes it too, as the input has no other
        reader (max pooling alone).
    inference : bool
        Batch norm and dropout act as at inference, also in training (``model(x, training=False)``).
    stream : int
        A number of this node's own: keeps the random numbers of two dropouts apart.
    saved : SimpleNamespace
        What forward keeps for backward, by name.
    first : SimpleNamespace, optional
        In a second forward, which makes anew what was not kept (`Model.compile`, ``recompute``):
        what the first one saved. Whatever must not happen twice looks at it.
    """

    inputs: "list[Value]"
    output: "Value"
    activation: Activation
    norm: "BatchNormalization | None"
    moments: bool
    given: tuple[int, int] | None
    input_activation: Activation
    mask: Mask | None
    needs: list[bool]
    stream: int
    saved: SimpleNamespace
    first: SimpleNamespace | None = None
    inference: bool = False


class Layer:
    """Base of all layers.

    A subclass defines `output_shape`, `forward` and `backward`; `build` when it has parameters, and
    `to_onnx` when it can be exported.

    Parameters
    ----------
    name : str, optional
        Default: the class' name with a number.
    trainable : bool
        False freezes the parameters (and batch statistics).
    input_shape : tuple, optional
        One sample's shape, for a layer that stands first in a `Sequential` without an Input (Keras'
        old way; ``input_dim`` and ``batch_input_shape`` too).
    """

    arity: ClassVar[int | None] = 1  # how many inputs; None: one or more, as a list
    # parameters with a regularizer and a constraint, → the word before _regularizer in arguments
    held: ClassVar[dict[str, str]] = {}
    data_format: str | None = None  # of layers that know images
    elementwise = False  # takes images in any order, and makes them in the same
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls)
        layer._made_with = args, kwargs  # for those who say nothing of them by get_config
        return layer

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = not cls.__module__.startswith("fastconv.")
        if own and "call" in vars(cls) and not hasattr(super(cls, cls), "call"):
            raise TypeError(
                f"{cls.__name__}.call would never be called: a layer in numpy is a subclass of "
                "fastconv.own.NumpyLayer, with call and gradient; one of steps defines "
                "output_shape, forward and backward: docs/own_layers.md"
            )
        if own and "__init__" in vars(cls) and "get_config" not in vars(cls):
            cls.get_config = _config_of_arguments  # type: ignore[method-assign, assignment]
        if not abstract and not cls.__name__.startswith("_"):
            register(cls)

    def __init__(self, *, name: str | None = None, trainable: bool = True, **unknown: Any) -> None:
        self.first_shape = _first_shape(unknown)
        if unknown.pop("dtype", None) not in (None, "float32"):
            raise ValueError(
                f"{type(self).__name__}: all layers compute in float32; mixed precision is "
                "compile(dtype_policy=…), float64 fastconv.set_floatx"
            )
        self._take_holds(unknown)
        for word in unknown:
            raise arguments.unknown(type(self).__name__, word, arguments.keywords(type(self)))
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"a layer's name is a string without '/', not {name!r}")
        self.name = name or _fresh_name(type(self))
        self.trainable = bool(trainable)
        self.built = False
        self.parameters: list[Parameter] = []
        self._node: Node | None = None  # its last use
        self.transposes: dict[type, Layer] = {}  # of its output, see `fastconv.layout`
        self._alone: tuple[Any, Any] | None = None  # shapes, and a model of it for such arrays

    @property
    def channels_first(self) -> bool:
        """Whether what it reads and makes is shown channels first."""
        return self.data_format == "channels_first"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_node": None, "_alone": None}  # a copy is part of no model yet

    @classmethod
    def _holds(cls) -> dict[str, Any]:
        """The arguments that hold its parameters: module that knows their values."""
        kinds = {"regularizer": regularizers, "constraint": constraints}
        return {f"{word}_{k}": m for word in cls.held.values() for k, m in kinds.items()}

    @classmethod
    def _more_keywords(cls) -> tuple[str, ...]:
        """What its constructor takes beside what the signatures name."""
        return (*cls._holds(), *FIRST_SHAPE)

    def _take_holds(self, given: dict[str, Any]) -> None:
        """Take ``kernel_regularizer`` and the like out of a layer's arguments."""
        for name, module in self._holds().items():
            setattr(self, name, module.get(given.pop(name, None), name))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Layer":
        """The layer that `get_config` describes, with fresh parameters."""
        return cls(**config)

    def add_parameter(
        self,
        name: str,
        shape: Sequence[int | None],
        initializer: Any,
        trainable: bool = True,
    ) -> Parameter:
        """A new parameter ``<layer>/<name>``, filled by the initializer, or by the one of a name.

        Raises
        ------
        ValueError
            A size is not known, or the initializer gives another shape, NaN or infinities.
        """
        full_name = f"{self.name}/{name}"
        sizes = shapes.known(tuple(shape), full_name)
        shapes.elements(sizes, full_name)
        initializer = initializers.get(initializer)
        given = _given.get()
        try:
            value = initializer(sizes) if given is None else _take(given, full_name, sizes)
            if given is None:
                _check_initial(full_name, initializer, value, sizes)
            parameter = Parameter(full_name, value, trainable, self)
        except MemoryError:
            raise ValueError(f"{full_name} of shape {sizes} does not fit into memory") from None
        if name in self.held:
            parameter.regularizer = getattr(self, f"{self.held[name]}_regularizer")
            if parameter.regularizer is not None:
                try:
                    parameter.regularizer.check(sizes)
                except ValueError as error:
                    raise ValueError(f"{full_name}: {error}") from None
            parameter.constraint = getattr(self, f"{self.held[name]}_constraint")
        self.parameters.append(parameter)
        return parameter

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> Parameter:
        """`add_parameter` as Keras calls it, from names and configs, with a penalty of its own.

        The initializer is "glorot_uniform" where none is named, the name "weight" with a number.
        """
        number = len(self.parameters)
        parameter = self.add_parameter(
            name or (f"weight_{number}" if number else "weight"),
            shapes.integers(shape, len(shape), "shape"),
            initializers.get("glorot_uniform" if initializer is None else initializer),
            trainable,
        )
        if regularizer is not None:
            parameter.regularizer = regularizers.get(regularizer)
        if constraint is not None:
            parameter.constraint = constraints.get(constraint)
        return parameter

    def build(self, *inputs: Any, **options: Any) -> None:
        """Make the parameters for inputs of these shapes; called once, at the first use."""

    def output_shape(self, *inputs: Any, **options: Any) -> Any:
        """The output's shape for these input shapes, or a ValueError that names this layer."""
        raise NotImplementedError(f"{type(self).__name__} must define output_shape")

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        """Emit the steps from ``frame.inputs`` to the output; returns where it lies."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        """Emit the gradients of the parameters and of the inputs that ``frame.needs``."""
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def multiply_adds(self, inputs: Sequence[Shape], output: Shape) -> int | None:
        """Multiplications with an addition of one sample, in products with a weight; None where
        sizes are open."""
        return 0

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        """Describe the forward pass of inference in ONNX operators; returns the result."""
        raise scope.refuse(f"{type(self).__name__} does not define to_onnx")

    @overload
    def __call__(
        self, inputs: Tensor | Sequence[Tensor], training: bool | None = None
    ) -> Tensor: ...
    @overload
    def __call__(self, inputs: Any, training: bool | None = None) -> Any: ...
    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """A symbolic tensor of symbolic tensors; of arrays what it makes of them, at once.

        Parameters
        ----------
        inputs : Tensor or array, or a list of them
            Arrays with the batch in front.
        training : bool, optional
            Of arrays: True does what training does. Of tensors: False lets the layer act as at
            inference always; `fit` decides otherwise.
        """
        tensors = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if not any(isinstance(tensor, Tensor) for tensor in tensors):
            return self._at_once(inputs, bool(training))
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise ValueError(
                    f"{self.name} is called on tensors or on arrays, not on both: "
                    f"{type(tensor).__name__}"
                )
        if training:
            raise ValueError(f"{self.name}: training is None or False: fit decides")
        if self.arity is not None and len(tensors) != self.arity:
            raise ValueError(f"{self.name} takes {self.arity} input, not {len(tensors)}")
        if not tensors:
            raise ValueError(f"{self.name} takes at least one input")
        shown = tensors[0].shape[1:]
        if self.first_shape is not None and not shapes.fits(self.first_shape, shown):
            raise ValueError(
                f"{self.name} was told input_shape={self.first_shape}, its input has the shape "
                f"{shapes.shape_text(shown)}"
            )
        first = self._takes_channels_first(tensors)
        if any(tensor.channels_first != first for tensor in tensors):
            from fastconv.layout import laid_out

            tensors = [laid_out(tensor, first) for tensor in tensors]
        given = [tensor.sample_shape for tensor in tensors]
        shape = self.output_shape(*given)
        if not self.built:
            self.build(*given)
            self.built = True
        self._node = Node(self, tensors, shape, first)
        self._node.inference = training is False
        return self._node.output

    def _at_once(self, inputs: Any, training: bool) -> Any:
        """What it makes of arrays: through a model of this layer alone, which is kept."""
        several = self.arity != 1 and isinstance(inputs, (list, tuple))
        arrays = [np.asarray(x) for x in (inputs if several else [inputs])]
        for x in arrays:
            if x.dtype.kind not in "buif" or x.ndim < 2:
                what = f"{x.dtype} of shape {x.shape}"
                raise ValueError(
                    f"{self.name} is called on symbolic tensors, or on arrays of numbers with the "
                    f"batch in front, not on {what}"
                )
        sizes = [x.shape[1:] for x in arrays]
        if self._alone is None or self._alone[0] != sizes:
            model = import_module("fastconv.model")  # the one look upwards: from above, by name
            kept, given = self._node, [model.Input(shape) for shape in sizes]
            output = self(given if several else given[0])
            self._node = kept
            self._alone = sizes, model.alone(given, output)
        return self._alone[1].forward(arrays if several else arrays[0], training)[0]

    def _takes_channels_first(self, tensors: Sequence[Tensor]) -> bool:
        """Whether it takes these images in the order (C, H, W)."""
        if self.elementwise:
            return any(tensor.channels_first for tensor in tensors)
        return self.channels_first

    @property
    def output(self) -> Tensor:
        """What it makes where it was used last: for a model that ends here."""
        return self._used().output

    @property
    def input(self) -> Tensor | list[Tensor]:
        """What it reads where it was used last."""
        inputs = list(self._used().inputs)
        return inputs[0] if len(inputs) == 1 else inputs

    def _used(self) -> Node:
        if self._node is None:
            raise ValueError(f"{self.name} is not part of a model yet")
        return self._node

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again."""
        holds = {name: m.to_config(getattr(self, name)) for name, m in self._holds().items()}
        given = {name: config for name, config in holds.items() if config is not None}
        if self.data_format is not None:
            given["data_format"] = self.data_format
        return {"name": self.name, "trainable": self.trainable, **given}

    @property
    def weights(self) -> list[Parameter]:
        """Keras' name of ``parameters``."""
        return list(self.parameters)

    @property
    def variables(self) -> list[Parameter]:
        return list(self.parameters)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The output's shape, the batch in front of both; a list of shapes for several inputs."""
        several = self.arity != 1 and isinstance(input_shape[0], (list, tuple))
        given = [tuple(shape) for shape in (input_shape if several else [input_shape])]
        first = self.channels_first
        sizes = [(*s[2:], s[1]) if first and len(s) > 2 else s[1:] for s in given]
        shape = self.output_shape(*sizes)
        shape = (*shape[-1:], *shape[:-1]) if first and len(shape) > 1 else shape
        return (given[0][0], *shape)

    @property
    def trainable_variables(self) -> list[Parameter]:
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Parameter]:
        return self.non_trainable_weights

    @property
    def trainable_weights(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.trainable]

    @property
    def non_trainable_weights(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if not parameter.trainable]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the parameters' values."""
        return [parameter.value.copy() for parameter in self.parameters]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Copy the values in, in the order of `get_weights`."""
        assign_all(self.parameters, weights, self.name)

    def count_params(self) -> int:
        return sum(parameter.value.size for parameter in self.parameters)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


FIRST_SHAPE = ("input_shape", "input_dim", "batch_input_shape")


def _first_shape(given: dict[str, Any]) -> Shape | None:
    """Take what says the input's shape out of a layer's arguments."""
    if "input_shape" in given:
        return shapes.shape_of(given.pop("input_shape"), "input_shape")
    if "input_dim" in given:
        return (shapes.integer(given.pop("input_dim"), "input_dim"),)
    if "batch_input_shape" in given:
        return shapes.shape_of(tuple(given.pop("batch_input_shape"))[1:], "batch_input_shape")
    return None


def _config_of_arguments(layer: Layer) -> dict[str, Any]:
    """What the constructor was given, for a class that says nothing of it by ``get_config``."""
    who = type(layer).__name__
    args, given = layer._made_with
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    kinds = {p.kind for p in parameters}
    if inspect.Parameter.VAR_POSITIONAL in kinds and args:
        raise ValueError(f"{who} must define get_config: it takes arguments without names")
    names = [p.name for p in parameters][1:]
    config = dict(zip(names, args, strict=False)) | given
    for word, value in (("name", layer.name), ("trainable", layer.trainable)):
        if word in names or inspect.Parameter.VAR_KEYWORD in kinds:
            config[word] = value
    return {word: _plain(value, f"{who}({word}=…)") for word, value in config.items()}


def _plain(value: Any, what: str) -> Any:
    """An argument as data that a file holds."""
    for module, cls in (
        (initializers, initializers.Initializer), (regularizers, regularizers.Regularizer),
        (constraints, constraints.Constraint), (activations, Activation),
    ):  # fmt: skip
        if isinstance(value, cls):
            return module.to_config(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(item, what) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, what) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"{what} is {value!r}, which a file cannot hold: define get_config, and take what it gives"
    )


@contextmanager
def parameters_from(values: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Inside, layers take their parameters from ``values`` by name: no random number is drawn, and
    no memory is taken for an array that ``values`` does not have in the same shape."""
    token = _given.set(values)
    try:
        yield
    finally:
        _given.reset(token)


def _check_initial(
    name: str, initializer: initializers.Initializer, value: Any, shape: tuple[int, ...]
) -> None:
    """An initializer of one's own may give anything."""
    who = f"{name}: the initializer {type(initializer).__name__} gives"
    if np.shape(value) != shape:
        raise ValueError(f"{who} the shape {np.shape(value)}, {shape} is due")
    bad = np.count_nonzero(~np.isfinite(value))
    if bad:
        raise ValueError(f"{who} {bad} numbers that are NaN or infinite")


def _take(values: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> "np.ndarray":
    if name not in values:
        raise ValueError(f"there is no value for the parameter {name!r}")
    if values[name].shape != shape:
        raise ValueError(f"{name!r} has shape {shape}, its value {values[name].shape}")
    return values[name]


def register(cls: type[Layer]) -> type[Layer]:
    """Make a layer class loadable by its name; a second class of a name takes its place only
    when it is the same definition run again (a notebook's cell)."""
    old = REGISTRY.get(cls.__name__)
    if old is not None and old.__module__ != cls.__module__:
        raise ValueError(f"there is a layer {cls.__name__} already, in {old.__module__}")
    REGISTRY[cls.__name__] = cls
    return cls


def from_config(class_name: str, config: dict[str, Any]) -> Layer:
    """A layer from its class' name and what `get_config` gave."""
    cls = REGISTRY[shapes.choice(class_name, REGISTRY, "layer")]
    return cls.from_config(config)


def one_of(layer: Layer, shape: Shape, ranks: tuple[int, ...], what: str) -> Shape:
    """The shape when its rank is one of ``ranks``, or a ValueError that names the layer."""
    if len(shape) not in ranks:
        raise ValueError(f"{layer.name} needs {what}, not an input of shape "
                         f"{shapes.shape_text(shape)}")  # fmt: skip
    return shape


def stream_of(seed: int | None, number: int) -> int:
    """Which random numbers a node draws: its own, or those of its layer's own seed."""
    return number if seed is None else (seed + 1) * 0x1_0000 + number


def forget_names() -> None:
    """Number the automatic names from the beginning."""
    _counts.clear()


def _fresh_name(cls: type) -> str:
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", cls.__name__)
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
    number = _counts.get(words, 0)
    _counts[words] = number + 1
    return f"{words}_{number}" if number else words
