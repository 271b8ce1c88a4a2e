"""An exported network as `predict` and `demo` use it: run by onnxruntime on the CPU."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

BATCH = 64  # samples that a network takes at a time


class Network:
    """An ONNX file with one input, and what its metadata tells.

    Parameters
    ----------
    path : str or path-like
    output : str, optional
        Which output to compute; may be left out where there is one.

    Attributes
    ----------
    shape : tuple of int or None
        One sample's shape in the file's own layout; None where a size is free.
    layout : "NCHW", "NHWC" or None
        Where the channels of an image stand; None where the input is no image.
    input_range : (float, float) or None
        What black and white are for the network; None where the file does not tell.
    class_names : list of str or None
    probabilities : bool
        Whether the scores of a sample are probabilities.
    """

    def __init__(self, path: str | os.PathLike[str], output: str | None = None) -> None:
        self.path = os.fspath(path)
        with open(path, "rb"):  # a missing file is an OSError, not the runtime's own error
            pass
        session = self._session = _session(self.path)
        inputs = session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(item.name for item in inputs)
            raise ValueError(f"{self.path}: has {len(inputs)} inputs ({names}), one is expected")
        self._input = inputs[0]
        self._dtype = _dtype(self.path, self._input)
        self._output = _choose_output(self.path, [o.name for o in session.get_outputs()], output)
        sizes = [size if isinstance(size, int) else None for size in self._input.shape]
        if len(sizes) < 2:
            raise ValueError(f"{self.path}: its input has the shape {sizes}, without a batch axis")
        self._fixed_batch = sizes[0]
        self.shape = tuple(sizes[1:])
        self._read_metadata(session.get_modelmeta().custom_metadata_map)

    def _read_metadata(self, props: dict[str, str]) -> None:
        from fastconv.onnx.metadata import decode

        try:
            metadata = decode(props)
            names = metadata.get("class_names")
            self.class_names = None if names is None else [str(name) for name in names]
            told = metadata["inputs"][self._input.name] if "inputs" in metadata else {}
            limits = told.get("range")
            self.input_range = None if limits is None else (float(limits[0]), float(limits[1]))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise ValueError(f"{self.path}: damaged metadata: {_first_line(error)}") from error
        self.layout = metadata.get("layout") or _guess_layout(self.shape)
        self.probabilities = metadata.get("output") == "probabilities"

    @property
    def channels(self) -> int | None:
        """Channels of the image that the network takes; None where it takes no image."""
        if len(self.shape) != 3 or self.layout is None:
            return None
        return self.shape[0] if self.layout == "NCHW" else self.shape[2]

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width of the image that the network takes."""
        height, width = self.shape[1:] if self.layout == "NCHW" else self.shape[:2]
        return height, width

    def shape_text(self) -> str:
        """The sample's shape as people write it, a free size as a star."""
        return "(" + ", ".join("*" if size is None else str(size) for size in self.shape) + ")"

    def run(self, samples: np.ndarray) -> np.ndarray:
        """Outputs for samples (n, *shape), in batches; a file of a fixed batch size gets that."""
        step = self._fixed_batch or BATCH
        results = []
        for start in range(0, len(samples), step):
            rows = np.asarray(samples[start : start + step], self._dtype, order="C")
            count = len(rows)
            if self._fixed_batch and count < step:
                rows = np.concatenate([rows, np.repeat(rows[-1:], step - count, 0)])
            try:
                (result,) = self._session.run([self._output], {self._input.name: rows})
            except Exception as error:  # the runtime's own, which name no file
                raise ValueError(f"{self.path}: cannot be run: {_first_line(error)}") from error
            results.append(result[:count])
        return np.concatenate(results)


def _session(path: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "to run ONNX files, onnxruntime is needed, which is not installed: "
            "pip install 'fastconv[runtime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised, too
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class of its own for every kind
        raise ValueError(f"{path}: not a usable ONNX file: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _dtype(path: str, item: Any) -> np.dtype:
    names = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8"}
    name = item.type.removeprefix("tensor(").removesuffix(")")
    if name not in names:
        raise ValueError(f"{path}: its input is a {item.type}, a tensor of floats is expected")
    return np.dtype(names[name])


def _choose_output(path: str, names: Sequence[str], wanted: str | None) -> str:
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    if wanted is None:
        raise ValueError(f"{path}: has the outputs {', '.join(names)}; choose one with --output")
    raise ValueError(f"{path}: has no output {wanted!r} (there are: {', '.join(names)})")


def _guess_layout(shape: Sequence[int | None]) -> str | None:
    """For files of others: an axis of 1, 3 or 4 is that of the channels."""
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "NCHW"
    return "NHWC" if len(shape) == 3 and shape[2] in (1, 3, 4) else None
