"""How well a network knows its classes: loss, accuracy, and the numbers of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.tables import RULE, table

WIDE = 20  # classes from which on the matrix is left to the picture
LEAST = 1e-7  # of a probability, as Keras clips it


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores of one row per sample as probabilities of the classes.

    Rows that sum to one are taken as they are, others as logits; a single column is the score of
    the second of two classes.
    """
    if scores.ndim != 2:
        raise ValueError(f"the network gives {scores.shape[1:]} per image, not a row of scores")
    scores = scores.astype(np.float64)
    if scores.shape[1] == 1:
        inside = scores.min() >= 0 and scores.max() <= 1
        second = scores if inside else 1 / (1 + np.exp(-scores))
        return np.concatenate([1 - second, second], axis=1)
    if scores.min() >= 0 and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


@dataclass(frozen=True)
class Scores:
    """Of a network on labelled samples.

    Attributes
    ----------
    names : list of str
    matrix : ndarray of int, (classes, classes)
        True class by predicted class.
    loss : float
        Mean cross-entropy.
    """

    names: Sequence[str]
    matrix: np.ndarray
    loss: float

    @classmethod
    def of(cls, names: Sequence[str], scores: np.ndarray, labels: np.ndarray) -> "Scores":
        """From a network's outputs and the true classes."""
        found = probabilities(scores)
        if found.shape[1] != len(names):
            raise ValueError(f"the network has {found.shape[1]} classes, the data {len(names)}")
        matrix = np.zeros((len(names), len(names)), int)
        np.add.at(matrix, (labels, found.argmax(1)), 1)
        own = np.clip(found[np.arange(len(labels)), labels], LEAST, 1)
        return cls(list(names), matrix, float(-np.log(own).mean()))

    @property
    def count(self) -> int:
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        return float(self.matrix.trace() / self.count)

    @property
    def precision(self) -> np.ndarray:
        """Of what is called so, the share that is; NaN where nothing is."""
        return _shares(self.matrix.diagonal(), self.matrix.sum(0))

    @property
    def recall(self) -> np.ndarray:
        """Of what is so, the share that is called so."""
        return _shares(self.matrix.diagonal(), self.matrix.sum(1))

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of the two: 2 · right / (called so + are so)."""
        return _shares(2 * self.matrix.diagonal(), self.matrix.sum(0) + self.matrix.sum(1))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; null where a number has no meaning."""
        columns = zip(
            self.names, self.precision, self.recall, self.f1, self.matrix.sum(1), strict=True
        )
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "images": self.count,
            "classes": [
                {"class": name, "precision": _plain(p), "recall": _plain(r), "f1": _plain(f),
                 "images": int(n)}
                for name, p, r, f, n in columns
            ],
            "confusion_matrix": self.matrix.tolist(),
        }  # fmt: skip

    def rows(self) -> list[list[str]]:
        """Class, precision, recall, F1 and number of images, as text."""
        columns = (self.precision, self.recall, self.f1)
        return [
            [name, *(_percent(column[i]) for column in columns), f"{self.matrix[i].sum():,}"]
            for i, name in enumerate(self.names)
        ]

    def mean_row(self) -> list[str]:
        """The classes' mean, each class counting alike."""
        columns = (self.precision, self.recall, self.f1)
        means = [_percent(np.nanmean(c) if np.isfinite(c).any() else np.nan) for c in columns]
        return ["mean", *means, f"{self.count:,}"]

    def __str__(self) -> str:
        wrong = self.count - int(self.matrix.trace())
        lines = [
            f"Accuracy: {100 * self.accuracy:.2f} % ({wrong:,} of {self.count:,} wrong), "
            f"loss {self.loss:.4f}",
            "",
            *table(HEADER, [*self.rows(), RULE, self.mean_row()]),
        ]
        if len(self.names) <= WIDE:
            rows = [
                [name, *(f"{n:,}" for n in row)]
                for name, row in zip(self.names, self.matrix, strict=True)
            ]
            lines += ["", *table(["true \\ predicted", *self.names], rows)]
        return "\n".join(lines)


HEADER = ["class", "precision", "recall", "F1", "images"]


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
