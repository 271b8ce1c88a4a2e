"""A network to be asked about images: a saved model, or an exported file run by onnxruntime."""

import os
from typing import Any

import numpy as np

from fastconv.commands.info import ZIP_MAGIC

BATCH = 128


class Asked:
    """One face for both kinds of files.

    Attributes
    ----------
    path : str
    kind : str
        In words.
    names : list of str or None
        Of the classes, as the file tells.
    size : (int or None, int or None)
    channels : int
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with open(path, "rb") as file:
            is_model = file.read(2) == ZIP_MAGIC
        self._run = self._open_model() if is_model else self._open_network()
        if self.channels not in (1, 3, 4):
            raise ValueError(f"{self.path}: does not take images")

    def _open_model(self) -> Any:
        from fastconv.model import load_model
        from fastconv.onnx.samples import known_range

        model = load_model(self.path, compile=False)
        shape = model.inputs[0].sample_shape
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(f"{self.path}: one input and one output are expected")
        self.kind = "a model of fastconv"
        self.names = model.class_names
        self.size: Any = tuple(shape[:2]) if len(shape) == 3 else (None, None)
        self.channels = shape[2] if len(shape) == 3 else None
        self._range = known_range(model.graph)
        return lambda x: model.predict(x, batch_size=len(x), verbose=0)

    def _open_network(self) -> Any:
        from fastconv.serving import Session
        from fastconv.serving.contract import contract

        session = Session(self.path, "cpu")
        network = contract(session)
        self.kind = "an ONNX network"
        self.names = network.class_names
        self.channels = network.channels
        self.size = network.size if self.channels else (None, None)
        self._range = network.input_range
        first = network.layout == "NCHW"

        def scores(x: np.ndarray) -> np.ndarray:
            x = x.transpose(0, 3, 1, 2) if first else x
            return session.predict(x, outputs=[network.output], batch_size=len(x))

        return scores

    def scores(self, part: Any) -> np.ndarray:
        """Outputs for the images of a `Part`, in order; bytes become what the network takes."""
        return np.concatenate([self._run(self._scaled(x)) for x, _ in part.batches(BATCH)])

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        low, high = self._range or (0.0, 1.0)
        return x if (low, high) == (0, 255) else (low + x * ((high - low) / 255)).astype(np.float32)

    @property
    def remark(self) -> str | None:
        """What the user should know of how images were read."""
        if self._range is not None:
            return None
        return f"{self.path}: does not tell its inputs' range, 0 to 1 is taken"
