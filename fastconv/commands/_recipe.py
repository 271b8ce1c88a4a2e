"""How `train` learns: optimizer, schedule of the learning rate and loss, from the options."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastconv import losses, optimizers, schedules

FALLS = (0.5, 0.75)  # shares of the training after which "step" divides the rate by ten


def optimizer(options: Mapping[str, Any], steps: int | None = None) -> Any:
    """The optimizer that the options describe.

    Parameters
    ----------
    options : mapping
    steps : int, optional
        Of an epoch. Where they are not known yet the options are checked all the same, so that
        what is wrong is said before the data are read.
    """
    made = optimizers.get(options["optimizer"])
    config = optimizers.to_config(made)
    for name in ("momentum", "weight_decay"):
        if name in options and name not in config:
            raise ValueError(f"--{name} is for sgd and rmsprop; {made.name} has its own")
        config |= {name: options[name]} if name in options else {}
    rate = options.get("learning_rate", made.learning_rate)
    config["learning_rate"] = schedule(options, rate, 1 if steps is None else steps)
    return optimizers.get(config)


def schedule(options: Mapping[str, Any], rate: float, steps: int) -> Any:
    """The learning rate over all epochs, which have so many steps each."""
    name, epochs, warmup = options["schedule"], options["epochs"], options.get("warmup", 0.0)
    if warmup >= epochs:
        raise ValueError(f"--warmup {warmup:g} leaves nothing of {epochs} epochs")
    whole = epochs * steps
    if name == "one-cycle":
        more = {"rise": warmup / epochs} if warmup else {}
        return schedules.OneCycle(rate, whole, **more)
    rising = round(warmup * steps)
    left = max(1, whole - rising)
    falls = [round(share * left) for share in FALLS]
    follows: dict[str, Any] = {
        "constant": lambda: rate,
        "cosine": lambda: schedules.CosineDecay(rate, left),
        "linear": lambda: schedules.PolynomialDecay(rate, left, 0.0),
        "step": lambda: (
            schedules.PiecewiseConstantDecay(falls, [rate, rate / 10, rate / 100])
            if falls[0] < falls[1]
            else rate  # of one or two steps
        ),
    }
    found = follows[name]()
    return schedules.WarmUp(found, rising) if rising else found


def loss(options: Mapping[str, Any]) -> Any:
    """Cross-entropy: on class numbers, or where they are smoothed on distributions."""
    share = options.get("label_smoothing")
    if not share:
        return "sparse_categorical_crossentropy"
    return losses.CategoricalCrossentropy(label_smoothing=share)


def as_they_are(images: Any, labels: np.ndarray) -> tuple[Any, np.ndarray]:
    """Class numbers are targets already."""
    return images, labels


class OneHot:
    """Class numbers (n,) as rows (n, classes), which smoothed labels need.

    It can stand in `Dataset.map`: given images too, it leaves them alone.
    """

    def __init__(self, classes: int) -> None:
        self.rows = np.eye(classes, dtype=np.float32)

    def __call__(self, images: Any, labels: np.ndarray) -> tuple[Any, np.ndarray]:
        return images, self.rows[labels]
