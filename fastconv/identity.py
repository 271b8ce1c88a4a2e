"""What a run is: all that must be the same when it goes on, and in words what is not."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastconv.tables import table

if TYPE_CHECKING:
    from fastconv.feeding import Source
    from fastconv.fitting import Run

Description = dict[str, dict[str, str]]

MAX_ROWS = 20  # of a table of differences
MAX_WIDTH = 40  # of its cells
NUMBER = re.compile(r"_\d+$")  # of a layer that was not named by hand: a notebook numbers it on


def describe(run: "Run") -> Description:
    """What must be the same, in groups, by names that a user knows.

    It is asked for before anything of an earlier run is restored: learning rate and first epoch are
    those that the script asks for.
    """
    model = run.model
    config = model.compile_config() or {}
    compiled = ("loss", "loss_weights", "metrics", "weighted_metrics", "dtype_policy")
    return {
        "layers": _layers(model.graph),
        "parameters": {
            f"parameter {i}, {_plain_name(p.name)}": f"{p.value.dtype} {_shape(p.shape)}"
            for i, p in enumerate(model.parameters())
        },
        "optimizer": _flat(config["optimizer"], "optimizer"),
        "training": {
            **_flat({name: _only(config[name]) for name in compiled}),
            **_source(run.source),
            "shuffle": str(run.source.random),
            "accumulate_steps": str(run.accumulate),
            "initial_epoch": str(run.epoch),
            "class_weight": str(run.class_weight),
        },
        "validation": {
            "validation": "no" if run.held is None else "yes",
            **({} if run.held is None else _source(run.held, "validation: ")),
            "validation_freq": str(run.validation_freq),
        },
    }


def difference(saved: Description, now: Description) -> str:
    """A table of what is not the same; empty where all is."""
    rows: list[list[str]] = []
    for group in dict.fromkeys([*saved, *now]):
        a, b = saved.get(group, {}), now.get(group, {})
        names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
        others = tuple(f"{name}{dot}" for name in names for dot in (".", ": "))
        if "layers" in names:
            others += ("layer ",)  # by number
        # of another kind of thing the options are others, too
        names = [name for name in names if not name.startswith(others)]
        rows += [[name, *_cells(a.get(name, "–"), b.get(name, "–"))] for name in names]
    if not rows:
        return ""
    more = len(rows) - MAX_ROWS
    lines = table(["", "in the file", "now"], rows[:MAX_ROWS])
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else [])])


def _layers(graph: Any) -> dict[str, str]:
    """Their kinds in order, then each one's options."""
    rows = {"layers": ", ".join(type(layer).__name__ for layer in graph.layers)}
    for i, layer in enumerate(graph.layers):
        config = {k: v for k, v in layer.get_config().items() if k != "name"}
        rows |= _flat(config, f"layer {i}, {_plain_name(layer.name)}: ")
    joined = json.dumps(_without_layers(graph.to_config()), sort_keys=True)
    return rows | {"how layers are joined": hashlib.sha256(joined.encode()).hexdigest()[:16]}


def _without_layers(graph: Mapping[str, Any]) -> dict[str, Any]:
    within = [_without_layers(model["graph"]) for model in graph.get("models", [])]
    return {k: v for k, v in graph.items() if k not in ("layers", "models")} | {"within": within}


def _source(source: "Source", before: str = "") -> dict[str, str]:
    size, samples = source.batch_size, getattr(source, "samples", None)
    return {
        f"{before}samples": "those of the data" if samples is None else str(samples),
        f"{before}batch size": "that of the data" if size is None else str(size),
        f"{before}steps of an epoch": str(source.steps),
    }


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Plain data as rows: ``optimizer`` its kind, ``optimizer.beta_1`` an option, and so on."""
    if isinstance(value, dict) and value:
        kind = value.get("class", value.get("name"))
        rows = {} if kind is None else {name: str(kind)}
        items = [(key, item) for key, item in value.items() if key not in ("class", "name")]
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        rows, items = {}, list(enumerate(value))
    else:
        return {name: str(value)}
    dot = name if not name or name.endswith(": ") else f"{name}."
    return rows | {k: v for key, item in items for k, v in _flat(item, f"{dot}{key}").items()}


def _only(value: Any) -> Any:
    """That of the only output."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _plain_name(name: str) -> str:
    return "/".join(NUMBER.sub("", word) for word in name.split("/"))


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"


def _cells(a: str, b: str) -> tuple[str, str]:
    """Both texts, long ones from a little before the place where they part."""
    if max(len(a), len(b)) <= MAX_WIDTH:
        return a, b
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    start = max(0, min(first or min(len(a), len(b)), max(len(a), len(b))) - MAX_WIDTH // 2)

    def cut(text: str) -> str:
        end = start + MAX_WIDTH
        return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")

    return cut(a), cut(b)
