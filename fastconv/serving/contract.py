"""What a network takes and gives, as its file tells: how an image becomes its input, and what its
scores are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.serving.errors import SessionError

if TYPE_CHECKING:
    from fastconv.serving.session import Session

CHANNELS = (1, 3, 4)  # what an image may have


@dataclass(frozen=True)
class Contract:
    """One input and one output of a network.

    Attributes
    ----------
    path : str
        The file, for messages.
    input, output : str
    shape : tuple of int or None
        One sample's shape in the file's own layout; None where a size is free.
    dtype : dtype
        What the input is made of.
    layout : "NCHW", "NHWC" or None
        Where the channels of an image stand; None where the input is no image.
    input_range : (float, float) or None
        What black and white are for the network; None where the file does not tell.
    class_names : list of str or None
    probabilities : bool
        Whether the scores of a sample are probabilities.
    """

    path: str
    input: str
    output: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    layout: str | None
    input_range: tuple[float, float] | None
    class_names: list[str] | None
    probabilities: bool

    @property
    def channels(self) -> int | None:
        """Channels of the image that the network takes; None where it takes no image."""
        if len(self.shape) != 3 or self.layout is None:
            return None
        channels = self.shape[0] if self.layout == "NCHW" else self.shape[2]
        return channels if channels in CHANNELS else None

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of the image that the network takes."""
        height, width = self.shape[1:] if self.layout == "NCHW" else self.shape[:2]
        return height, width

    def shape_text(self) -> str:
        """The sample's shape as people write it, a free size as a star."""
        return "(" + ", ".join("*" if size is None else str(size) for size in self.shape) + ")"

    def best(self, scores: Any, top: int) -> list[dict[str, Any]]:
        """The best classes of one sample's scores, as plain data.

        Parameters
        ----------
        scores : ndarray, (classes,)
        top : int

        Returns
        -------
        list of dict
            ``class``, ``index`` and ``probability``, or ``score`` where it is none; best first.

        Raises
        ------
        ValueError
            The file names another number of classes.
        """
        names = self.class_names
        if names is not None and len(names) != len(scores):
            raise ValueError(
                f"{self.path}: names {len(names)} classes, its output has {len(scores)} scores"
            )
        kind = "probability" if self.probabilities else "score"
        # as floats: the negative of an unsigned number is none
        order = (-scores.astype(np.float64)).argsort(kind="stable")[:top]
        return [
            {"class": names[i] if names else str(i), "index": int(i), kind: float(scores[i])}
            for i in order
        ]


def contract(session: "Session", output: str | None = None) -> Contract:
    """The contract of a session with one input.

    Parameters
    ----------
    output : str, optional
        Which output; may be left out where there is one.

    Raises
    ------
    ValueError
        The network has several inputs, or several outputs and none was chosen.
    SessionError
        The file's metadata is damaged.
    """
    path = session.path
    if len(session.inputs) != 1:
        names = ", ".join(info.name for info in session.inputs)
        raise ValueError(f"{path}: has {len(session.inputs)} inputs ({names}), one is expected")
    (info,) = session.inputs
    if len(info.shape) < 2:
        raise ValueError(f"{path}: its input has the shape {info.shape}, without a batch axis")
    told = session.metadata
    try:
        limits = told["inputs"][info.name].get("range") if "inputs" in told else None
        input_range = None if limits is None else (float(limits[0]), float(limits[1]))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise SessionError(f"{path} has damaged metadata: {error!r}", "export it again") from error
    return Contract(
        path=path,
        input=info.name,
        output=_choose_output(path, [info.name for info in session.outputs], output),
        shape=info.shape[1:],
        dtype=info.dtype,
        layout=told.get("layout") or _guess_layout(info.shape[1:]),
        input_range=input_range,
        class_names=session.labels,
        probabilities=told.get("output") == "probabilities",
    )


def _choose_output(path: str, names: Sequence[str], wanted: str | None) -> str:
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    if wanted is None:
        raise ValueError(f"{path}: has the outputs {', '.join(names)}; choose one with --output")
    raise ValueError(f"{path}: has no output {wanted!r} (there are: {', '.join(names)})")


def _guess_layout(shape: Sequence[int | None]) -> str | None:
    """For files of others: an axis of 1, 3 or 4 is that of the channels."""
    if len(shape) == 3 and shape[0] in CHANNELS:
        return "NCHW"
    return "NHWC" if len(shape) == 3 and shape[2] in CHANNELS else None
