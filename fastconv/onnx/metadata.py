"""What a file says of itself: ``metadata_props`` with a ``fastconv.`` prefix, JSON where they nest.

The file carries samples with the outputs that the trainer gives for them, so that whoever serves it
can check a runtime or a GPU against the trainer. Their inputs are stored, or, where they are too
large, made again from a seed.

This module needs numpy alone.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastconv.parameter import Parameter

PREFIX = "fastconv."
MAX_SAMPLES_BYTES = 64 * 1024  # of all samples together, as they stand in the file
GENERATOR = "philox4x64-raw"
SUMMARY_VALUES = 16

Arrays = dict[str, np.ndarray]


def generate(seed: int, shape: Sequence[int], low: float, high: float) -> np.ndarray:
    """Float32 numbers in [low, high) that any reader of a file can make again.

    The generator is Philox 4x64-10 with key ``seed`` and counter 0 (numpy's
    ``np.random.Philox(key=seed)``). Each raw 64-bit output r gives, in float32 arithmetic,
    ``low + (high − low) · (r >> 40) / 2²⁴``; the array is filled in C order.
    """
    raw = np.random.Philox(key=seed).random_raw(int(np.prod(shape)))
    unit = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    low32, high32 = np.float32(low), np.float32(high)
    return (low32 + (high32 - low32) * unit).reshape(tuple(shape))


def encode_samples(
    inputs: Arrays,
    outputs: Arrays,
    tolerance: Mapping[str, Any],
    seed: int | None,
    value_range: Sequence[float],
) -> dict[str, Any]:
    """Samples as JSON data of at most 64 KB.

    As many samples as fit, inputs and outputs in full. Where not one fits and they came from
    `generate` (``seed`` is not None): the seed for the inputs, and outputs in full or, at last, a
    summary of them.
    """
    count = len(next(iter(inputs.values())))
    for n in range(count, 0, -1):
        full = {
            "count": n,
            "inputs": {name: encode_array(array[:n]) for name, array in inputs.items()},
            "outputs": {name: encode_array(array[:n]) for name, array in outputs.items()},
            **tolerance,
        }
        if _fits(full):
            return full
    if seed is None:
        return {}
    seeds = {
        name: {
            "generator": GENERATOR,
            "seed": seed + i,
            "shape": list(array.shape),
            "range": list(value_range),
        }
        for i, (name, array) in enumerate(inputs.items())
    }
    made = {"count": count, "inputs": seeds, **tolerance}
    in_full = {**made, "outputs": {name: encode_array(a) for name, a in outputs.items()}}
    if _fits(in_full):
        return in_full
    return {**made, "outputs": {name: summary(array) for name, array in outputs.items()}}


def _fits(data: dict[str, Any]) -> bool:
    return len(json.dumps(data)) <= MAX_SAMPLES_BYTES


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Shape, and float32 values, little-endian, in base64."""
    raw = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "data": base64.b64encode(raw).decode("ascii")}


def decode_array(data: Mapping[str, Any]) -> np.ndarray:
    """The array that `encode_array` stored, or that a seed stands for."""
    if "generator" in data:
        if data["generator"] != GENERATOR:
            raise ValueError(f"unknown sample generator {data['generator']!r}")
        return generate(data["seed"], data["shape"], *data["range"])
    raw = base64.b64decode(data["data"], validate=True)
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(data["shape"])


def summary(array: np.ndarray) -> dict[str, Any]:
    """What is kept of an output too large to keep: evenly spaced values of the flattened array,
    and the mean and largest magnitude of all of it."""
    flat = array.ravel()
    places = np.linspace(0, flat.size - 1, SUMMARY_VALUES).astype(np.int64)
    return {
        "shape": list(array.shape),
        "places": places.tolist(),
        "values": encode_array(flat[places]),
        "mean": float(flat.mean(dtype=np.float64)),
        "largest": float(np.abs(flat).max()),
    }


def weights_sha256(parameters: "Sequence[Parameter]") -> str:
    """Of each parameter's name, shape and float32 values (little-endian), in the model's order."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(f"{parameter.name} {parameter.shape}\n".encode())
        digest.update(np.ascontiguousarray(parameter.value, "<f4").tobytes())
    return digest.hexdigest()


def encode(data: Mapping[str, Any]) -> dict[str, str]:
    """``metadata_props`` of an ONNX file: strings as they are, everything else as JSON."""
    return {
        PREFIX + key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in data.items()
        if value is not None
    }


def decode(props: Mapping[str, str]) -> dict[str, Any]:
    """The data that `encode` wrote; other tools' entries are left out.

    ``props`` is what onnxruntime gives as ``session.get_modelmeta().custom_metadata_map``.
    """
    texts = {"version", "weights_sha256", "output", "layout", "dtype"}
    ours = {k.removeprefix(PREFIX): v for k, v in props.items() if k.startswith(PREFIX)}
    return {key: value if key in texts else json.loads(value) for key, value in ours.items()}


def decode_samples(data: Mapping[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Inputs by name, and outputs by name: arrays, or summaries where only these were kept."""
    inputs = {name: decode_array(entry) for name, entry in data["inputs"].items()}
    outputs = {
        name: entry if "places" in entry else decode_array(entry)
        for name, entry in data["outputs"].items()
    }
    return inputs, outputs
