"""What lies between two tensors of a model, as a model of its own: the same weights, frozen.

Such a part goes forward and backward like every model, so the gradient at a tensor within the
network is the gradient at the input of the part that begins there. Its layers are copies that read
the same arrays: whatever it does, the model's gradients and statistics stay as they are.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import activations, backend, shapes
from fastconv.data import check_finite
from fastconv.layer import Layer, Node, Tensor
from fastconv.layers.input import Input, InputLayer
from fastconv.layout import ChannelsLast, shown_first
from fastconv.model import Model
from fastconv.shapes import shape_text

LINEAR = activations.get("linear")
PROBABILITIES = ("softmax", "sigmoid")
BATCH = 32  # samples that go through at a time


def single(model: Any) -> Model:
    """The model, which has one input and one output, or a ValueError that says what to give."""
    if not isinstance(model, Model):
        raise ValueError(f"model is a fastconv model, not {type(model).__name__}")
    if len(model.inputs) > 1:
        names = ", ".join(tensor.node.layer.name for tensor in model.inputs)
        raise ValueError(f"{model.name} has several inputs ({names}); pictures look at one image")
    if len(model.outputs) > 1:
        names = ", ".join(tensor.node.layer.name for tensor in model.outputs)
        raise ValueError(
            f"{model.name} has several outputs ({names}): give a model of one of them, "
            "fc.Model(model.inputs, model.outputs[0])"
        )
    return model


def classifier(model: Any) -> Model:
    """The model, whose output is a row of numbers per image."""
    single(model)
    (output,) = model.outputs
    if len(output.sample_shape) != 1:
        raise ValueError(
            f"{model.name} gives {shape_text(output.sample_shape)} for an image, where a score per "
            "class is explained; end it with a pooling, or choose a pixel"
        )
    return model


def tensor_of(model: Model, layer: Any) -> Tensor:
    """What a layer of the model makes, where it is used last; by its name, index or itself."""
    if isinstance(layer, Tensor):
        if layer.node in model.graph.nodes:
            return layer
        raise ValueError(f"{layer} is not part of {model.name}")
    if isinstance(layer, (int, np.integer)) and not isinstance(layer, bool):
        layer = model.get_layer(index=int(layer))
    elif isinstance(layer, str):
        layer = model.get_layer(layer)
    if isinstance(layer, Model):
        calls = [c for node in model.graph.nodes for c in node.calls if c.model is layer]
        if calls and len(calls[-1].outputs) == 1:
            return calls[-1].outputs[0]
        raise ValueError(f"{layer.name} has no single output within {model.name}: name a layer")
    found = [node.output for node in model.graph.nodes if node.layer is layer]
    if not found:
        who = repr(layer.name) if isinstance(layer, Layer) else repr(layer)
        names = ", ".join(node.layer.name for node in model.graph.nodes)
        raise ValueError(f"{who} is no layer of {model.name}; there are: {names}")
    return found[-1]


def part(
    model: Model, end: Tensor, start: Tensor | None = None, without: Sequence[str] | None = None
) -> Model:
    """The layers from ``start`` (None: the input) to ``end``.

    Where a way around ``start`` leads to the end, the part has the model's input as a second input.
    The last layer's activation is left out where it is one of ``without``. Images and maps are
    channels last in every part.
    """
    starts = {start} if start is not None else set()
    needed = _ancestors(end, starts)
    twins: dict[Layer, Layer] = {}
    made: dict[Tensor, Tensor] = {}
    if start is not None:
        made[start] = _channels_last(start, "start")
    first = shown_first(model.graph)
    for node in model.graph.nodes:
        if node not in needed or node.output in made:
            continue
        if isinstance(node.layer, InputLayer):
            made[node.output] = _channels_last(node.output, node.layer.name, node.output in first)
            continue
        if isinstance(node.layer, ChannelsLast) and node.inputs[0] in first:
            made[node.output] = made[node.inputs[0]]
            continue
        last = node is end.node
        twin = _twin(node.layer, without if last else None)
        if not last:
            twin = twins.setdefault(node.layer, twin)
        made[node.output] = twin([made[tensor] for tensor in node.inputs])
    ends = dict.fromkeys(t for t in made.values() if isinstance(t.node.layer, InputLayer))
    for tensor in (*ends, made[end]):
        tensor.channels_first = False
    with backend.seeded(0):  # a model has a seed: looking must not take one from what comes after
        return Model(list(ends), made[end], name=f"{model.name} to {end.node.layer.name}")


def scores(model: Model, start: Tensor | None = None) -> Model:
    """From ``start`` to the classes' scores: the outputs before a softmax or sigmoid, which would
    flatten the gradient of whatever the network is sure of."""
    return part(model, model.outputs[0], start, PROBABILITIES)


def _channels_last(tensor: Tensor, name: str, first: bool = False) -> Tensor:
    """An input of this tensor's shape, channels last; shown first where the tensor was."""
    shape = tensor.sample_shape
    made = Input((*shape[1:], shape[0]) if first else shape, name=name)
    made.channels_first = first or tensor.channels_first
    return made


def outputs_of(model: Model, x: np.ndarray) -> np.ndarray:
    """What the model, which has one output, makes of images (n, H, W, C)."""
    if model.inputs[0] in shown_first(model.graph):
        x = np.moveaxis(x, -1, 1)
    y = model.predict(x)
    assert isinstance(y, np.ndarray)
    return y


def chosen(model: Model, outputs: np.ndarray, classes: Any) -> np.ndarray:
    """The class to explain of each image: as given, one for all or one each, or the predicted."""
    n, count = outputs.shape
    if classes is None:
        return outputs.argmax(axis=1)
    found = np.asarray(classes)
    if found.dtype.kind not in "iu" or found.shape not in ((), (n,)):
        raise ValueError(f"classes is a class number, or one for each of the {n} images")
    if found.size and not (found.min() >= -count and found.max() < count):
        raise ValueError(
            f"{model.name} has {count} classes, 0 to {count - 1}; there is no {found.ravel()[0]}"
            if found.ndim == 0
            else f"classes must lie in 0 to {count - 1}"
        )
    return np.broadcast_to(found % count, (n,))


def input_gradients(part: Model, arrays: Sequence[np.ndarray], classes: np.ndarray) -> np.ndarray:
    """d score[class] / d input for each sample, at the first input."""
    found = []
    for first in range(0, len(classes), BATCH):
        rows = slice(first, first + BATCH)
        given = [array[rows] for array in arrays]
        y, handle = part.forward(given if len(given) > 1 else given[0])
        dy = np.zeros_like(y)
        dy[np.arange(len(dy)), classes[rows]] = 1
        dx = part.backward(handle, dy)
        found.append(dx[0] if isinstance(dx, list) else dx)
    return np.concatenate(found)


def images_of(model: Model, x: Any, most: int) -> np.ndarray:
    """x, which is as the model takes it or one image, as (n, H, W, C), no more than fit on a
    picture."""
    x = x if isinstance(x, (list, tuple)) and len(x) == 1 else np.asarray(x)
    if isinstance(x, np.ndarray) and _is_one(model, x.shape):
        x = x[None]
    model._build_for(x)
    (array,) = model._inputs(x)
    if model.inputs[0] in shown_first(model.graph):
        array = np.moveaxis(array, 1, -1)
    if array.ndim != 4:
        raise ValueError(f"{model.name} takes {shapes.shape_text(array.shape[1:])}: not an image")
    if len(array) > most:
        raise ValueError(f"x has {len(array):,} images, a picture has room for {most}: x[:{most}]")
    check_finite(array, "x")
    return array


def _is_one(model: Model, shape: tuple[int, ...]) -> bool:
    """Whether that is the shape of one image, not of several."""
    if not model.built:
        return len(shape) == 3
    wanted = model.inputs[0].sample_shape
    flat = (*shape, 1) if wanted[-1] == 1 else None  # of one channel, which may be left out
    return shapes.fits(wanted, shape) or (flat is not None and shapes.fits(wanted, flat))


def image_shape(model: Model, input_shape: Any = None) -> tuple[int, ...]:
    """(H, W, C) of the images that the model takes; ``input_shape`` where it leaves sizes open."""
    (shape,) = model._given_shapes(input_shape)
    if len(shape) != 3:
        raise ValueError(f"{model.name} takes {shapes.shape_text(shape)}: not an image")
    return (*shape[1:], shape[0]) if model.inputs[0] in shown_first(model.graph) else shape


def _ancestors(end: Tensor, starts: set[Tensor]) -> set[Node]:
    """The nodes on which ``end`` depends, not looking behind ``starts``."""
    found: set[Node] = set()
    stack = [end]
    while stack:
        tensor = stack.pop()
        if tensor in starts or tensor.node in found:
            continue
        found.add(tensor.node)
        stack += tensor.node.inputs
    return found


def _twin(layer: Layer, without: Sequence[str] | None) -> Layer:
    """A frozen copy of a layer that reads the same weights and writes gradients of its own."""
    twin = copy.copy(layer)
    twin.trainable = False
    own = {id(p): copy.copy(p) for p in layer.parameters}
    for parameter in own.values():
        parameter._owner, parameter._grad = twin, None
    for name, value in vars(layer).items():
        if id(value) in own:
            setattr(twin, name, own[id(value)])
    twin.parameters = [own[id(p)] for p in layer.parameters]
    activation = getattr(twin, "activation", None)
    if without and isinstance(activation, activations.Activation) and activation.name in without:
        twin.activation = LINEAR  # type: ignore[attr-defined]
    return twin
