"""CUDA graphs: a batch's kernels recorded once and launched as one.

A recorded graph reads and writes the addresses that it was recorded with. So each batch size has
buffers on the GPU that stay where they are: inputs are copied into them, the graph is replayed,
outputs are copied out of them, under a lock. The graphs of one session are told apart by the run
option ``gpu_graph_id``; -1 is a run without.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

PLAIN = -1
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recorded:
    """One batch size: the binding, its buffers by name, and the option that names the graph."""

    shapes: dict[str, tuple[int, ...]]
    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: Any


class Graphs:
    """Runs a session by graphs where the batch size has one.

    Parameters
    ----------
    runtime : module
        onnxruntime.
    session : onnxruntime.InferenceSession
        Made with ``enable_cuda_graph``.
    batch_sizes : sequence of int
        What is recorded, each at its first run; the first shape of that size counts where a network
        leaves more than the batch free.
    device : str
        onnxruntime's name of where the buffers lie.
    """

    def __init__(
        self, runtime: ModuleType, session: Any, batch_sizes: Sequence[int], device: str = "cuda"
    ) -> None:
        self._runtime, self._session, self._device = runtime, session, device
        self._ids = {batch: number for number, batch in enumerate(batch_sizes, start=1)}
        self._recorded: dict[int, Recorded] = {}
        self._names = [output.name for output in session.get_outputs()]
        self._plain = self._options(PLAIN)
        # onnxruntime records and replays for one thread at a time
        self._lock = threading.Lock()

    def run(self, names: Sequence[str], feeds: Arrays) -> list[np.ndarray]:
        """The outputs named for one batch, whose feeds have been checked."""
        shapes = {name: array.shape for name, array in feeds.items()}
        batch = next(iter(shapes.values()))[0]
        with self._lock:
            recorded = self._recorded.get(batch)
            if recorded is None and batch in self._ids:
                recorded = self._recorded[batch] = self._bind(batch, shapes, feeds)
            if recorded is None or recorded.shapes != shapes:
                return list(self._session.run(list(names), dict(feeds), self._plain))
            for name, array in feeds.items():
                recorded.inputs[name].update_inplace(np.ascontiguousarray(array))
            recorded.binding.synchronize_inputs()
            self._session.run_with_iobinding(recorded.binding, recorded.options)
            recorded.binding.synchronize_outputs()
            # copies: the buffers are written again by the next run
            return [np.array(recorded.outputs[name].numpy()) for name in names]

    def _bind(self, batch: int, shapes: dict[str, tuple[int, ...]], feeds: Arrays) -> Recorded:
        """Buffers for a batch size; a plain run tells the outputs' sizes and takes the memory that
        must not be taken while a graph is recorded."""
        value = self._runtime.OrtValue
        binding = self._session.io_binding()
        inputs, outputs = {}, {}
        for name, array in feeds.items():
            inputs[name] = value.ortvalue_from_numpy(array, self._device, 0)
            binding.bind_ortvalue_input(name, inputs[name])
        found = self._session.run(self._names, dict(feeds), self._plain)
        for name, array in zip(self._names, found, strict=True):
            outputs[name] = value.ortvalue_from_shape_and_type(
                array.shape, array.dtype, self._device, 0
            )
            binding.bind_ortvalue_output(name, outputs[name])
        return Recorded(shapes, binding, inputs, outputs, self._options(self._ids[batch]))

    def _options(self, number: int) -> Any:
        options = self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        return options
