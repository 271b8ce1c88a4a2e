"""The course of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastconv import plots, shapes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history(history: Any, metrics: Sequence[str] | None = None) -> "Figure":
    """The loss and the metrics over the epochs, of training and validation.

    Parameters
    ----------
    history : History, Model, or dict of str to list of float
        What `Model.fit` returns, its ``history``, or the model that was trained.
    metrics : list of str, optional
        Which ones, in this order: "loss", "accuracy" and so on; all by default.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        There is nothing to draw, or no metric of that name.
    """
    found = getattr(history, "history", history)
    curves = getattr(found, "history", found)  # a model has a History, which has the numbers
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
