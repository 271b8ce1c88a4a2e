"""A network on the device that was asked for, or an error that says why not."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import cpus
from fastconv.onnx import metadata
from fastconv.serving import latency, proof, runtime
from fastconv.serving.errors import SessionError
from fastconv.serving.graphs import Graphs

BATCH = 64  # samples that `predict` runs at a time
# onnxruntime's names of element types that numpy has
DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "string": "object",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a network; None stands for a size that is free."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]


class Session:
    """An ONNX file, loaded on one device and proved there.

    Parameters
    ----------
    path : path
        A file that fastconv exported, or any other ONNX file; the latter carries no samples and
        cannot be proved.
    device : {"auto", "cpu", "cuda", "tensorrt"}
        Strict: "cuda" is CUDA for every operator or a SessionError. "auto" takes CUDA where it
        works and else the CPU; `device` and `why` tell which and why, and where there is a driver
        and yet no CUDA, a warning is logged.
    allow_cpu : bool
        Run on the CPU where the GPU that was asked for does not work; it is logged as a warning,
        and `fallback` has the reason.
    tf32 : bool
        Let the GPU round factors to 10 bits, for speed. Off: results match the trainer's.
    threads : int, optional
        Of the CPU for one operator. Default: ``OMP_NUM_THREADS``, else the smaller of the process'
        affinity and the container's CPU quota.
    spin : bool
        Let idle threads of the CPU wait busily for the next operator: quickest where a process does
        nothing else, in the way of other threads where it does.
    memory_limit : int, optional
        Bytes that the GPU's arena may take.
    prefer_nhwc : bool
        Let the CUDA provider convert convolutions to channels last.
    cuda_graphs : sequence of int
        Batch sizes that are recorded as a CUDA graph at their first run and replayed afterwards.
        Runs of such a session take turns. The CPU has no such graphs and takes no notice.
    prove : bool
        Run the file's samples and compare before the session is given out. Without, `prove` does
        it later.

    Attributes
    ----------
    path, name : str
        The file; its name without folder and ending.
    device, provider : str
        Where it runs: "cpu", "cuda" or "tensorrt"; onnxruntime's name of it.
    why : str
        Why there, in words.
    fallback : str or None
        Why the CPU runs although a GPU was asked for.
    inputs, outputs : tuple of TensorInfo
        The first axis of a batch is None where it is free.
    metadata : dict
        What fastconv wrote into the file; empty for files of others.
    labels : list of str or None
        Names of the classes.
    proof : Proof or None
        The last one.

    Raises
    ------
    SessionError
        The device, the runtime or the file is not up to it, or the proof failed.
    OSError
        The file cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        *,
        allow_cpu: bool = False,
        tf32: bool = False,
        threads: int | None = None,
        spin: bool = True,
        memory_limit: int | None = None,
        prefer_nhwc: bool = False,
        cuda_graphs: Sequence[int] = (),
        prove: bool = True,
    ) -> None:
        self.path = os.fspath(path)
        self.name = Path(path).stem
        self.tf32 = tf32
        self.threads = _threads(threads)
        self._spin = spin
        self.proof: proof.Proof | None = None
        with open(path, "rb"):  # a missing file is an OSError, not the runtime's own error
            pass
        runtime.check_device(device)
        if cuda_graphs and device == "tensorrt":
            raise ValueError("CUDA graphs by batch size are the CUDA provider's, not TensorRT's")
        options = {
            "tf32": tf32,
            "memory_limit": memory_limit,
            "prefer_nhwc": prefer_nhwc,
            "cuda_graphs": bool(cuda_graphs),
        }
        self._session = self._open(device, allow_cpu, options)
        self._graphs = None
        if cuda_graphs and self.device != "cpu":
            self._graphs = Graphs(runtime.load(), self._session, cuda_graphs)
        self.provider: str = self._session.get_providers()[0]
        self.inputs = tuple(map(_tensor_info, self._session.get_inputs()))
        self.outputs = tuple(map(_tensor_info, self._session.get_outputs()))
        self._inputs = {info.name: info for info in self.inputs}
        self._output_names = [info.name for info in self.outputs]
        self._read_metadata()
        if prove and not self.prove().ok:
            assert self.proof is not None
            raise SessionError(f"{self.path} failed its proof: {self.proof.reason}")

    def _open(self, device: str, allow_cpu: bool, options: dict[str, Any]) -> Any:
        """onnxruntime's session; sets `device`, `why` and `fallback`."""
        module = runtime.load()
        self.fallback: str | None = None
        self.device, self.why = device, "as asked"
        if device != "cpu":
            self.device = "cuda" if device == "auto" else device
            try:
                runtime.gpu_count()
                runtime.require_provider(module, self.device)
                runtime.require_libraries(module, self.device)
                providers = runtime.providers(self.device, **options)
                return runtime.create(module, self.path, providers, self.threads)
            except SessionError as error:
                if device != "auto" and not allow_cpu:
                    raise
                self._settle_for_the_cpu(device, error)
        config = {} if self._spin else {"session.intra_op.allow_spinning": "0"}
        return runtime.create(module, self.path, runtime.providers("cpu"), self.threads, config)

    def _settle_for_the_cpu(self, asked: str, error: SessionError) -> None:
        self.device, self.why = "cpu", error.reason
        if asked != "auto":
            self.fallback = error.reason
            runtime.log.warning("%s runs on the CPU, not on %s: %s", self.path, asked, error)
        elif runtime.has_driver():  # there is a GPU, it seems, and it lies idle
            runtime.log.warning("%s runs on the CPU: %s", self.path, error)
        else:
            runtime.log.info("%s runs on the CPU: %s", self.path, error.reason)

    def _read_metadata(self) -> None:
        try:
            props = self._session.get_modelmeta().custom_metadata_map
            self.metadata: dict[str, Any] = metadata.decode(props)
            names = self.metadata.get("class_names")
            self.labels = None if names is None else [str(name) for name in names]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise SessionError(
                f"{self.path} has damaged metadata: {runtime.first_line(error)}",
                "export it again",
            ) from error

    def __repr__(self) -> str:
        return f"Session({self.path!r}, device={self.device!r})"

    # -- running ----------------------------------------------------------------------------------

    def run(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> list[np.ndarray]:
        """The outputs for one batch, nothing converted.

        Parameters
        ----------
        feeds : mapping
            Every input by name, in exactly its dtype and shape.
        outputs : sequence of str, optional
            Default: all, in the order of `outputs`.

        Raises
        ------
        ValueError
            An input is missing, unknown or of another dtype or shape; it is named. Or the runtime
            says that the network cannot take its values.
        SessionError
            The runtime failed.
        """
        known = self._inputs
        for name, array in feeds.items():
            info = known.get(name)
            if info is None or not _fits(array, info):
                raise ValueError(self._misfit(name, array))
        if len(feeds) != len(known):
            missing = ", ".join(repr(name) for name in known if name not in feeds)
            raise ValueError(f"{self.name}: no input {missing}")
        names = self._output_names if outputs is None else list(outputs)
        try:
            if self._graphs is not None:
                return self._graphs.run(names, feeds)
            return self._session.run(names, feeds)
        except Exception as error:  # the runtime has a class of its own for every kind
            raise self._failure(error, feeds, names) from error

    def _misfit(self, name: str, array: Any) -> str:
        info = self._inputs.get(name)
        if info is None:
            return f"{self.name}: no input {name!r} (there are: {', '.join(self._inputs)})"
        sizes = ", ".join("*" if size is None else str(size) for size in info.shape)
        if isinstance(array, np.ndarray):
            given = f"{array.dtype} {array.shape}"
        else:
            given = f"a {type(array).__name__}"
        wanted = f"an array of {info.dtype} ({sizes})"
        return f"{self.name}: input {name!r} is {given}, {wanted} is expected"

    def _failure(
        self, error: Exception, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> Exception:
        if self._session is None:
            return SessionError(f"{self.name} was closed")
        if unknown := [name for name in names if name not in self._output_names]:
            there = ", ".join(self._output_names)
            return ValueError(f"{self.name}: no output {unknown[0]!r} (there are: {there})")
        given = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        words = f"{self.name} cannot be run with {given}: {runtime.first_line(error)}"
        # sizes that a file leaves free, and numbers that are places in a table, may not suit it
        free = any(None in info.shape[1:] for info in self.inputs)
        if free or type(error).__name__ == "InvalidArgument":
            return ValueError(words)
        return SessionError(words)

    def predict(
        self, x: Any, *, outputs: Sequence[str] | None = None, batch_size: int = BATCH
    ) -> Any:
        """Outputs for any number of samples, in batches.

        Parameters
        ----------
        x : array, or mapping of str to array
            Of one input, or all of them by name: (n, *sample), or a single sample, which gets a
            batch axis of 1. Numbers are cast to the input's dtype.
        outputs : sequence of str, optional
            Default: all.
        batch_size : int
            Samples that are run at a time; a file with a fixed batch size gets that.

        Returns
        -------
        ndarray or list of ndarray
            (n, …) for each output, n = 1 for a single sample; a list where there are several.
        """
        feeds = self._feeds(x)
        count = len(next(iter(feeds.values())))
        fixed = next((i.shape[0] for i in self.inputs if i.shape and i.shape[0] is not None), None)
        step = fixed or batch_size
        parts = []
        for start in range(0, max(count, 1), step):
            rows = {name: array[start : start + step] for name, array in feeds.items()}
            given = len(next(iter(rows.values())))
            if fixed and given < fixed:
                if not given:
                    raise ValueError(f"{self.name}: no samples")
                rows = {name: _padded(array, fixed) for name, array in rows.items()}
            parts.append([result[:given] for result in self.run(rows, outputs)])
        results = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return results[0] if len(results) == 1 else results

    def _feeds(self, x: Any) -> dict[str, np.ndarray]:
        """Arrays by name, cast, each with a batch axis and of the same length."""
        if not isinstance(x, Mapping):
            if len(self.inputs) != 1:
                names = ", ".join(self._inputs)
                raise ValueError(
                    f"{self.name}: has {len(self.inputs)} inputs; give a dict of {names}"
                )
            x = {self.inputs[0].name: x}
        feeds = {}
        for name, value in x.items():
            info = self._inputs.get(name)
            array = np.asarray(value)
            if info is None:
                raise ValueError(self._misfit(name, array))
            if array.dtype.kind not in "fiub":
                raise ValueError(self._misfit(name, array))
            if array.ndim == len(info.shape) - 1:
                array = array[None]
            array = np.asarray(array, info.dtype)
            if array.ndim != len(info.shape):
                raise ValueError(self._misfit(name, array))
            feeds[name] = array
        lengths = {name: len(array) for name, array in feeds.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: inputs of different lengths: {lengths}")
        if len(feeds) != len(self._inputs):
            missing = ", ".join(repr(name) for name in self._inputs if name not in feeds)
            raise ValueError(f"{self.name}: no input {missing}")
        return feeds

    # -- before it serves -------------------------------------------------------------------------

    def prove(self) -> proof.Proof:
        """Run the file's own samples here and compare with what the trainer gave; see `Proof`."""
        try:
            self.proof = proof.prove(self)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise SessionError(
                f"{self.path} has damaged samples: {runtime.first_line(error)}", "export it again"
            ) from error
        return self.proof

    def example(self, batch: int) -> dict[str, np.ndarray]:
        """Inputs of a batch: the file's samples over and over, or zeros where it carries none.

        Raises
        ------
        ValueError
            The file carries no samples and leaves sizes free.
        """
        if data := self.metadata.get("samples"):
            samples, _ = metadata.decode_samples(data)
            return {
                name: np.resize(array, (batch, *array.shape[1:])).astype(self._inputs[name].dtype)
                for name, array in samples.items()
            }
        feeds = {}
        for info in self.inputs:
            sizes = [size for size in info.shape[1:] if size is not None]
            if len(sizes) < len(info.shape) - 1:
                raise ValueError(
                    f"{self.name}: input {info.name!r} leaves sizes free, and the file carries no "
                    "samples to take them from"
                )
            feeds[info.name] = np.zeros((batch, *sizes), info.dtype)
        return feeds

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run once per batch size: algorithms are chosen and memory is taken before a request."""
        for batch in batch_sizes:
            self.run(self.example(batch))

    def latency(
        self, batch_sizes: Sequence[int] = (1, 8, 64), repeats: int = 100
    ) -> latency.Latency:
        """Measure how long a batch takes; see `Latency`."""
        return latency.measure(self, batch_sizes, repeats)

    def close(self) -> None:
        """Give the network's memory back; the session cannot be run afterwards."""
        self._session = self._graphs = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return cpus.default_num_threads()[0]
    if wanted < 1:
        raise ValueError(f"threads is an integer from 1 on, not {wanted}")
    return wanted


def _tensor_info(item: Any) -> TensorInfo:
    name = item.type.removeprefix("tensor(").removesuffix(")")
    if name not in DTYPES:
        raise SessionError(f"{item.name} is a {item.type}, which has no form in numpy")
    sizes = tuple(size if isinstance(size, int) else None for size in item.shape)
    return TensorInfo(item.name, np.dtype(DTYPES[name]), sizes)


def _fits(array: Any, info: TensorInfo) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != info.dtype:
        return False
    given = array.shape
    if given == info.shape:
        return True
    if len(given) != len(info.shape):
        return False
    for have, want in zip(given, info.shape, strict=True):
        if want is not None and have != want:
            return False
    return True


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The last sample repeated up to a length."""
    return np.concatenate([array, np.repeat(array[-1:], length - len(array), 0)])
