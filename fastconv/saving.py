"""Models as files: a zip of JSON and safetensors, from which nothing is ever executed.

::

    metadata.json            {"format": 1, "fastconv": version, "weights_sha256": fingerprint}
    config.json              class, name, graph, compile settings (or null), and class names where
                             the model has them
    model.safetensors        the parameters, by name
    optimizer.safetensors    the optimizer's state by name, and "iterations" (compiled models only)

The entries are stored, not deflated, in this order and with a fixed date: the same model gives the
same bytes. A file may come from a stranger, so nothing in it is believed. All that is read lies
inside the file, layers take their parameters from its tensors instead of from what their arguments
ask for, and every disagreement is a ValueError that names the file.
"""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from fastconv import filetypes
from fastconv.files import check_overwrite, replacing
from fastconv.graph import Graph
from fastconv.layer import REGISTRY, parameters_from
from fastconv.version import __version__
from fastconv.weights import fingerprint

if TYPE_CHECKING:
    from fastconv.model import Model

__all__ = ["custom_object_scope", "load_model", "register_keras_serializable", "save_model"]

FORMAT = 1
METADATA, CONFIG = "metadata.json", "config.json"
PARAMETERS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
REQUIRED = (METADATA, CONFIG, PARAMETERS)
MAX_JSON = 1 << 26  # bytes; the largest graphs take a few hundred kilobytes
ITERATIONS = "iterations"
MAX_ITERATIONS = 1 << 40  # what the optimizers count to
CLASSES = ("Sequential", "Model")

# what the zip reader raises on damage, apart from ValueError
DAMAGED = (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, OverflowError)

StrPath = str | os.PathLike[str]


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[type], type]:
    """Keras' decorator: classes are known by their own names as soon as they are defined."""
    return lambda cls: cls


@contextmanager
def custom_object_scope(custom_objects: Any) -> Iterator[None]:
    """Keras': see `register_keras_serializable`."""
    yield


def load_model(*args: Any, **kwargs: Any) -> "Model":
    """`fastconv.load_model`, where Keras has it, too."""
    from fastconv.model import load_model

    return load_model(*args, **kwargs)


def save_model(model: "Model", filepath: StrPath, overwrite: bool = True) -> None:
    """Write a model with its parameters, compile settings and optimizer state.

    The file is written beside `filepath` and moved there when it is whole. The same model gives the
    same bytes.

    Parameters
    ----------
    model : Model
    filepath : str or path-like
        Usually ends in ``.fastconv`` or ``.fc``; the ending of
        another kind of file, ``.keras``, gives a warning.
    overwrite : bool
        Whether a file that stands there may be replaced.

    Raises
    ------
    ValueError
        The model has a part that a file cannot hold, for example an initializer of your own; or
        the path ends in ``.onnx``, which `Model.export` writes.
    OSError
        The file cannot be written, or is there and must stay.
    """
    filetypes.check_ending(filepath, filetypes.MODEL, "model.fc")
    check_overwrite(filepath, overwrite)
    with replacing(filepath) as file:
        _write(model, file)


def read_model(path: StrPath, classes: Mapping[str, type["Model"]], compile: bool) -> "Model":
    """What `fastconv.load_model` does; ``classes`` are the models that there are, by name."""
    with open(path, "rb") as file:
        try:
            return _read(file, classes, compile)
        except (*DAMAGED, ValueError) as error:
            kind = filetypes.kind_of(path)
            if kind not in (None, filetypes.MODEL):
                words = f"{kind}, not {filetypes.MODEL}{_instead(kind)}"
            elif isinstance(error, DAMAGED):
                words = f"not a whole model file: {error}"
            else:
                words = str(error)
            raise ValueError(f"{os.fspath(path)}: {words}") from error


def _instead(kind: str | None) -> str:
    """What to do with a file of this kind, where it is not one of ours."""
    if kind == filetypes.ONNX:
        return (
            ": fastconv predict and fastconv evaluate run it; to train or export, the file that "
            "model.save wrote is needed"
        )
    if kind in (filetypes.KERAS, filetypes.HDF5, filetypes.TORCH):
        return (
            ": nothing of it can be read here. Build the same network and hand the weights over as "
            "arrays, model.set_weights(other.get_weights())"
        )
    if kind in (filetypes.WEIGHTS, filetypes.ARRAYS):
        return ": it holds no network; model.load_weights reads weights into one that is there"
    return ""


def to_bytes(model: "Model") -> bytes:
    """What `save_model` writes, in memory."""
    file = io.BytesIO()
    _write(model, file)
    return file.getvalue()


def from_bytes(content: bytes, classes: Mapping[str, type["Model"]]) -> "Model":
    """The model that `to_bytes` wrote; ``classes`` as in `read_model`."""
    try:
        return _read(io.BytesIO(content), classes, compile=True)
    except DAMAGED as error:
        raise ValueError(f"not a whole model: {error}") from error


# -- writing ----------------------------------------------------------------------------------


def _write(model: "Model", file: IO[bytes]) -> None:
    if type(model).__name__ not in CLASSES:
        raise ValueError(
            f"a {type(model).__name__} cannot be written to a file, only a Sequential or a Model: "
            "build the network from layers, with fc.Model(inputs, outputs)"
        )
    compiled = model.compile_config()
    config: dict[str, Any] = {
        "class": type(model).__name__,
        "name": model.name,
        "graph": model.graph.to_config(),
        "compile": compiled,
    }
    if model.class_names is not None:
        config["class_names"] = _names(model.class_names)
    metadata = {
        "format": FORMAT,
        "fastconv": __version__,
        "weights_sha256": fingerprint(model.parameters()),
    }
    with zipfile.ZipFile(file, "w") as archive:
        _add(archive, METADATA, _to_json(metadata))
        _add(archive, CONFIG, _to_json(config))
        _add(archive, PARAMETERS, _to_tensors({p.name: p.value for p in model.parameters()}))
        if compiled is not None:
            # state that no update has needed yet is made now, so that a file always has it whole
            model.optimizer.build([p for p in model.parameters() if p.trainable])
            iterations = np.array(model.optimizer.iterations, np.int64)
            state = {**model.optimizer.variables(model.parameters()), ITERATIONS: iterations}
            _add(archive, OPTIMIZER, _to_tensors(state))


def _names(names: Any) -> list[str]:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names is a list of strings, not {names!r}")
    return list(names)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add an entry that depends on its content alone: fixed date, system and permissions."""
    entry = zipfile.ZipInfo(name)  # 1980-01-01, stored
    entry.create_system = 3  # Unix
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _to_json(value: Any) -> bytes:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except TypeError as error:
        raise ValueError(f"a layer's get_config gives what JSON cannot hold: {error}") from error


def _to_tensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    # safetensors reads the memory from an array's first element on, whatever its strides
    return safetensors.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


# -- reading ----------------------------------------------------------------------------------


def _read(file: IO[bytes], classes: Mapping[str, type["Model"]], compile: bool) -> "Model":
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, file.seek(0, os.SEEK_END))
        metadata = _from_json(archive, entries, METADATA)
        _check_format(metadata)
        _check_names(entries)
        config = _from_json(archive, entries, CONFIG)
        parameters = _from_tensors(archive, entries, PARAMETERS)
        state = _from_tensors(archive, entries, OPTIMIZER) if OPTIMIZER in entries else None
    model = _model(config, parameters, classes)
    told = metadata.get("weights_sha256")  # files of 0.1.0 have none
    if told is not None and told != fingerprint(model.parameters()):
        raise ValueError("the weights are not those of the fingerprint that the file carries")
    settings = config.get("compile")
    if (settings is None) != (state is None):
        raise ValueError(f"compile settings and {OPTIMIZER} belong together, one is missing")
    if compile and settings is not None and state is not None:
        with _described(f"{CONFIG}, compile settings"):
            model.compile_from_config(settings)
        _restore_optimizer(model, state)
    return model


def _entries(archive: zipfile.ZipFile, room: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, each stored in plain and no larger than the file."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        if name in entries:
            raise ValueError(f"the entry {name!r} is there twice")
        if entry.flag_bits & 1:
            raise ValueError(f"the entry {name!r} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError(f"the entry {name!r} is compressed; model files store their entries")
        if entry.file_size > room:
            raise ValueError(
                f"the entry {name!r} claims {entry.file_size} bytes, the whole file has {room}"
            )
        entries[name] = entry
    return entries


def _check_format(metadata: Any) -> None:
    number = metadata.get("format") if isinstance(metadata, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{METADATA} does not name the file's format")
    if number > FORMAT:
        raise ValueError(
            f"written by fastconv {metadata.get('fastconv')!s:.20} in format {number}; this is "
            f"fastconv {__version__}, which reads format {FORMAT}: upgrade it"
        )


def _check_names(entries: Mapping[str, Any]) -> None:
    if unknown := [name for name in entries if name not in (*REQUIRED, OPTIMIZER)]:
        raise ValueError(f"an unknown entry {unknown[0]!r}: not a model file")
    if missing := [name for name in REQUIRED if name not in entries]:
        raise ValueError(f"no {missing[0]}: not a model file")


def _from_json(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    if name not in entries:
        raise ValueError(f"no {name}: not a model file")
    if entries[name].file_size > MAX_JSON:
        raise ValueError(f"{name} has {entries[name].file_size} bytes, at most {MAX_JSON} are read")
    try:
        return json.loads(archive.read(entries[name]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error


def _from_tensors(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str
) -> dict[str, np.ndarray]:
    """Read-only arrays over the entry's bytes."""
    try:
        return safetensors.load(archive.read(entries[name]))
    except SafetensorError as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    except KeyError as error:
        raise ValueError(f"{name} holds a tensor of the unknown type {error}") from error


def _model(
    config: Any, parameters: Mapping[str, np.ndarray], classes: Mapping[str, type["Model"]]
) -> "Model":
    """The model that the configuration describes, with these parameters."""
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise ValueError(f"{CONFIG} does not describe a model")
    kind = config.get("class")
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"{CONFIG}: a model is a Sequential or a Model, not {kind!r}")
    with _described(CONFIG):
        _check_registered(config["graph"])
        with parameters_from(parameters):
            graph = Graph.from_config(config["graph"], classes["Model"].from_config)
        model = classes[kind].from_graph(graph, config["name"])
        if "class_names" in config:
            model.class_names = _names(config["class_names"])
    live = {parameter.name: parameter.value for parameter in model.parameters()}
    _copy(parameters, live, PARAMETERS)
    return model


def _check_registered(graph: Any) -> None:
    for model in graph.get("models", []):
        _check_registered(model["graph"])
    for entry in graph["layers"]:
        if entry["class"] not in REGISTRY:
            raise ValueError(
                f"the layer {entry['config']['name']!r} is a {entry['class']!r}, a class that is "
                "not known here; import the module that defines it before the model is loaded"
            )


@contextmanager
def _described(what: str) -> Iterator[None]:
    """Whatever data of the wrong form does to a constructor becomes a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what} does not have the form that is expected: {words}") from error


def _restore_optimizer(model: "Model", state: dict[str, np.ndarray]) -> None:
    """Copy the optimizer's state in, once it has been made for the parameters that have one."""
    iterations = state.pop(ITERATIONS, None)
    if (
        iterations is None
        or iterations.shape
        or iterations.dtype != np.int64
        or not (0 <= iterations < MAX_ITERATIONS)
    ):
        raise ValueError(f"{OPTIMIZER} does not say how many updates were made")
    updated = {name.rpartition("/")[0] for name in state}  # <parameter>/<state>
    optimizer, parameters = model.optimizer, model.parameters()
    optimizer.build([p for p in parameters if p.trainable or p.name in updated])
    _copy(state, optimizer.variables(parameters), OPTIMIZER)
    optimizer.iterations = int(iterations)


def _copy(source: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], entry: str) -> None:
    """Copy tensors into the arrays of their names; both must be the same set."""
    if missing := sorted(live.keys() - source.keys()):
        raise ValueError(f"{entry} lacks {missing[0]!r}")
    if extra := sorted(source.keys() - live.keys()):
        raise ValueError(f"{entry} holds {extra[0]!r}, which the model does not have")
    for name, array in live.items():
        given = source[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise ValueError(
                f"{entry} holds {name!r} as {given.dtype} of shape {given.shape}, the model has "
                f"{array.dtype} of shape {array.shape}" + _hint(given.dtype, array.dtype)
            )
        array[...] = given


def _hint(given: np.dtype, wanted: np.dtype) -> str:
    if given == wanted or given.name not in ("float32", "float64"):
        return ""
    return f"; call fastconv.set_floatx({given.name!r}) before"
