"""The course of a training."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import plots, shapes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history(history: Any, metrics: Sequence[str] | None = None) -> "Figure":
    """The loss and the metrics over the epochs, of training and validation.

    Parameters
    ----------
    history : History, Model, dict of str to list of float, or path
        What `Model.fit` returns, its ``history``, the model that was trained; or a file that
        `CSVLogger` or `JSONLogger` wrote.
    metrics : list of str, optional
        Which ones, in this order: "loss", "accuracy" and so on; all by default.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        There is nothing to draw, or no metric of that name.
    FileNotFoundError
        There is no such file.
    """
    curves = _curves(history)
    if not curves:
        raise ValueError("the history is empty: train the model first")
    if metrics is not None:
        names = [name for name in curves if not name.startswith("val_")]
        wanted = [metrics] if isinstance(metrics, str) else metrics
        wanted = [shapes.choice(name, names, "metric of the history") for name in wanted]
        curves = {
            key: curves[key] for name in wanted for key in (name, f"val_{name}") if key in curves
        }
    figure: Any = plots.plot_history(curves)
    return figure


def _curves(history: Any) -> dict[str, list[float]]:
    """The numbers of each epoch, by their names."""
    if isinstance(history, (str, PathLike)):
        return _read(Path(history))
    found = getattr(history, "history", history)
    found = getattr(found, "history", found)  # a model has a History, which has the numbers
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(
            "history is what fit returns, the model, a dict of lists, or the path of a logger's "
            f"file, not {type(history).__name__}"
        )
    return {name: _numbers(name, values) for name, values in found.items()}


def _numbers(name: str, values: Any) -> list[float]:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(())
    if numbers.ndim != 1:
        raise ValueError(f"history has no list of numbers for {name!r}: {values!r}")
    return numbers.tolist()


def _read(path: Path) -> dict[str, list[float]]:
    """What a logger wrote, a line per epoch; NaN where an epoch has no number."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: Iterable[dict[str, Any]]
    try:
        if lines and lines[0].startswith("{"):
            rows = [json.loads(line) for line in lines]
        else:
            if lines and not lines[0].startswith("epoch"):
                raise ValueError("its first column is not called epoch")
            separator = lines[0][5:6] if lines else ""
            rows = list(csv.DictReader(lines, delimiter=separator or ","))
        names = [name for name in dict.fromkeys(n for row in rows for n in row)
                 if name not in ("epoch", "time")]  # fmt: skip
        empty = (None, "", "NA")
        return {
            name: [np.nan if row.get(name) in empty else float(row[name]) for row in rows]
            for name in names
        }
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: not a file of CSVLogger or JSONLogger ({error})") from None
