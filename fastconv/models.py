"""Keras' ``models``: the classes of models, and what makes one from a file, a text or another."""

import json
from collections.abc import Callable
from typing import Any

from fastconv.layer import Layer
from fastconv.model import Model, Sequential, load_model
from fastconv.saving import save_model

__all__ = ["Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]


def clone_model(model: Model, clone_function: Callable[[Any], Any] | None = None) -> Model:
    """A model of the same layers with fresh weights, not compiled.

    Parameters
    ----------
    model : Model
    clone_function : callable, optional
        ``clone_function(layer)`` → the layer that stands in its place; by default a new one of the
        same arguments. Not for models that have models within.
    """
    config = model.get_config()
    if clone_function is None:
        return Model.from_config(config)
    graph = config["graph"]
    if graph.get("models"):
        raise ValueError("clone_function cannot be used where a model has models within")
    for entry, layer in zip(graph["layers"], _layers(model), strict=True):
        made = clone_function(layer)
        if not isinstance(made, Layer):
            raise ValueError(f"clone_function makes a layer of {layer.name}, not {made!r}")
        entry["class"], entry["config"] = type(made).__name__, made.get_config()
    return Model.from_config(config)


def _layers(model: Model) -> list[Layer]:
    return list(model.graph.layers)


def model_from_json(text: str) -> Model:
    """The model that `Model.to_json` wrote, with fresh weights.

    Raises
    ------
    ValueError
        The text does not describe a model. Layer classes of your own must be imported before.
    """
    try:
        return Model.from_config(json.loads(text))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the text does not describe a model: {error!r}") from error
