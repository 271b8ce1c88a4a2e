"""Files by which other servers run an exported network: NVIDIA Triton's model repository, KServe's
InferenceService.

Both speak the protocol that `fastconv serve` speaks, so that clients need not care.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastconv.files import replacing
from fastconv.serving.errors import SessionError
from fastconv.serving.session import Session, TensorInfo

# Triton's names of element types; TYPE_<kind><bits> otherwise
TYPES = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "STRING"}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # what Kubernetes takes for a name
GPU_IMAGE = "kserve-tritonserver"  # KServe's runtime that reads a Triton repository


@dataclass(frozen=True)
class Batching:
    """How a server forms batches and on how many copies of the network.

    Attributes
    ----------
    device : {"cuda", "cpu"}
    instances : int
        Copies per GPU, or on the CPU.
    max_batch : int
    max_delay_us : int
        Microseconds that a request may wait for others.
    """

    device: str = "cuda"
    instances: int = 1
    max_batch: int = 64
    max_delay_us: int = 500


# -- Triton ---------------------------------------------------------------------------------------


def write_triton(
    session: Session,
    folder: str | os.PathLike[str],
    batching: Batching,
    *,
    name: str | None = None,
    version: int = 1,
    force: bool = False,
) -> list[Path]:
    """Add a network to a Triton model repository.

    A server that watches the repository never sees half a version: the folder of the version is
    written beside and moved into place, after the configuration.

    Parameters
    ----------
    session : Session
        The network; its file is copied.
    folder : path
        The repository.
    name : str, optional
        Of the model. Default: the file's.
    force : bool
        Replace a version, or a configuration, that is there already.

    Returns
    -------
    list of Path
        What was written, or was there and the same.

    Raises
    ------
    FileExistsError
        There is that version, or another configuration, and not ``force``.
    OSError
        The files cannot be written.
    ValueError
        The name, or an element type, is not one that Triton takes, or the file needs others beside
        it.
    """
    name = name or session.name
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a model: letters, digits, '_', '-' and '.'")
    home = Path(folder) / name
    config, labels, target = home / "config.pbtxt", home / "labels.txt", home / str(version)
    texts = {config: triton_config(session, batching, name)}
    if session.labels:
        texts[labels] = "".join(f"{' '.join(label.split())}\n" for label in session.labels)
    if not force:
        _refuse_to_replace(target, texts)
    home.mkdir(parents=True, exist_ok=True)
    with _copied(Path(session.path), target) as part:
        for path, text in texts.items():
            with replacing(path) as file:
                file.write(text.encode())
        if target.is_dir():
            os.replace(part / "model.onnx", target / "model.onnx")
        else:
            os.replace(part, target)
    return [*texts, target / "model.onnx"]


def _refuse_to_replace(target: Path, texts: dict[Path, str]) -> None:
    for path in (target, *texts):
        same = path in texts and path.is_file() and path.read_text("utf-8") == texts[path]
        if path.exists() and not same:
            raise FileExistsError(17, "is there already; --force replaces it", str(path))


@contextmanager
def _copied(source: Path, target: Path) -> Iterator[Path]:
    """A folder beside ``target`` with a copy of the file as model.onnx, which runs by itself."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        shutil.copyfile(source, part / "model.onnx")
        try:
            Session(part / "model.onnx", "cpu", prove=False).close()
        except SessionError as error:  # where it lay, it did run
            raise ValueError(
                f"{source} does not run without the files beside it: its weights stand in one of "
                "them; write it as one file (torch: external_data=False)"
            ) from error
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def triton_config(session: Session, batching: Batching, name: str) -> str:
    """``config.pbtxt`` of a network."""
    free = all(info.shape and info.shape[0] is None for info in session.inputs)
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batching.max_batch if free else 0}",
        *(line for info in session.inputs for line in _tensor("input", info, free)),
    ]
    for number, info in enumerate(session.outputs):
        named = bool(session.labels) and number == 0
        lines += _tensor("output", info, free, 'label_filename: "labels.txt"' if named else None)
    kind = "KIND_GPU" if batching.device == "cuda" else "KIND_CPU"
    lines.append(f"instance_group [ {{ count: {batching.instances} kind: {kind} }} ]")
    if free:
        delay = batching.max_delay_us
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}")
        lines += _warm_up(session, batching.max_batch)
    if batching.device == "cuda":
        lines += CUDA_OPTIONS
    return "\n".join(lines) + "\n"


# The search stands in two places because Triton resets it to EXHAUSTIVE where the older one is
# silent; TF32 is off as in a session, so that results match the trainer's.
CUDA_OPTIONS = [
    'parameters { key: "cudnn_conv_algo_search" value: { string_value: "1" } }  # HEURISTIC',
    "optimization { execution_accelerators {",
    '  gpu_execution_accelerator [ { name: "cuda"',
    '    parameters { key: "cudnn_conv_algo_search" value: "HEURISTIC" }',
    '    parameters { key: "use_tf32" value: "0" } } ]',
    "} }",
]


def _tensor(kind: str, info: TensorInfo, free: bool, more: str | None = None) -> Iterator[str]:
    yield f"{kind} [ {{"
    yield f"  name: {_quoted(info.name)}"
    yield f"  data_type: {_type(info.dtype)}"
    yield f"  dims: [ {_dims(info.shape[1:] if free else info.shape)} ]"
    if more:
        yield f"  {more}"
    yield "} ]"


def _dims(shape: Sequence[int | None]) -> str:
    # Triton wants at least one; a batch of single numbers is (n, 1) to it
    return ", ".join("-1" if size is None else str(size) for size in shape) or "1"


def _type(dtype: np.dtype) -> str:
    return f"TYPE_{TYPES.get(dtype.name) or dtype.name.upper()}"


def _warm_up(session: Session, max_batch: int) -> Iterator[str]:
    """A run of zeros for 1, 2, 4 … and the largest batch, before the model is ready."""
    if any(None in info.shape[1:] for info in session.inputs):
        return
    sizes = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    for size in (*sizes, max_batch):
        yield f'model_warmup [ {{ name: "batch {size}" batch_size: {size}'
        for info in session.inputs:
            yield (
                f"  inputs {{ key: {_quoted(info.name)} value: {{ data_type: {_type(info.dtype)} "
                f"dims: [ {_dims(info.shape[1:])} ] zero_data: true }} }}"
            )
        yield "} ]"


def _quoted(text: str) -> str:
    """A string in protobuf's text format, which takes JSON's escapes of ASCII."""
    return json.dumps(text)


# -- KServe ---------------------------------------------------------------------------------------


def kserve_service(
    name: str,
    storage: str,
    batching: Batching,
    *,
    replicas: tuple[int, int] = (1, 4),
    concurrency: int = 64,
) -> str:
    """An InferenceService that runs a Triton repository, scaled by the requests in flight.

    Parameters
    ----------
    name : str
        A lowercase DNS label.
    storage : str
        Where the cluster finds the repository: ``s3://…``, ``gs://…``, ``pvc://claim/path`` …
    replicas : (int, int)
        Least and most.
    concurrency : int
        Requests in flight per replica above which another one is started.

    Raises
    ------
    ValueError
        The name is none that Kubernetes takes, the storage is no URI, or least is above most.
    """
    if not DNS_LABEL.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a Kubernetes service: lowercase letters, digits and '-', at "
            "most 63; give one with --name"
        )
    if "://" not in storage:
        raise ValueError(
            f"{storage!r} is no place that a cluster can reach: s3://, gs://, pvc:// …"
        )
    least, most = replicas
    if not 0 <= least <= most or most < 1:
        raise ValueError(f"replicas are from {least} to {most}: 0 ≤ least ≤ most, most ≥ 1")
    text = f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    minReplicas: {least}
    maxReplicas: {most}
    scaleMetric: concurrency
    scaleTarget: {concurrency}
    model:
      modelFormat:
        name: triton
      runtime: {GPU_IMAGE}
      protocolVersion: v2
      storageUri: {json.dumps(storage)}
"""
    if batching.device == "cuda":
        text += """\
      env:
        - name: NVIDIA_TF32_OVERRIDE  # results match the trainer's
          value: "0"
      resources:
        limits:
          nvidia.com/gpu: "1"
"""
    return text
