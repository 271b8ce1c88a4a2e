"""The Open Inference Protocol's tensors, in JSON and in binary: read and written.

Pure functions of bytes. A request is bytes of a stranger: every size it states is checked against
the bytes that are there, in whole numbers without a limit, before an array is made of it.
https://github.com/open-inference/open-inference-protocol, with Triton's extensions for binary
tensors and for classification.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

DATATYPES = {
    "BOOL": "?",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
NAMES = {np.dtype(code): name for name, code in DATATYPES.items()}
MAX_DEPTH = 32  # lists and objects within each other in a JSON body
MAX_RANK = 16
MAX_TEXT = 80  # characters of a stranger's words that an error repeats
BLOCK = 1 << 20  # bytes of JSON whose depth is counted at a time
# +1 for each byte that opens a list or an object, -1 for each that closes one
STEPS = np.zeros(256, np.int8)
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1


class BadRequest(ValueError):
    """What a client sent cannot be taken; the message says why, in one line."""


class Tensor(Protocol):
    """What is known of an input or output: `fastconv.serving.session.TensorInfo` fits."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> Sequence[int | None]: ...


@dataclass(slots=True)
class Wanted:
    """An output that the client asks for."""

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(slots=True)
class InferRequest:
    """A request, checked against the network's inputs."""

    feeds: dict[str, np.ndarray]
    outputs: list[Wanted]
    id: str = ""
    timeout: float | None = None  # seconds


def shown(value: Any) -> str:
    """A stranger's words as an error repeats them: short, printable."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(c if c.isprintable() else "?" for c in text)
    text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    return repr(text) if isinstance(value, str) else text


# -- JSON -----------------------------------------------------------------------------------------


def parse_json(body: bytes | memoryview) -> Any:
    """The value of a JSON text in UTF-8, nested `MAX_DEPTH` deep at most.

    Raises
    ------
    BadRequest
        It is none, or holds NaN, Infinity or a number of thousands of digits.
    """
    raw = bytes(body)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise BadRequest(f"the JSON is nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the JSON is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"not JSON: {error.msg} ({where})") from error
    except RecursionError as error:
        raise BadRequest(f"the JSON is nested more than {MAX_DEPTH} deep") from error
    except BadRequest:
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise BadRequest("the JSON holds a number of too many digits") from error


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"not JSON: it has no {name}; send such values as binary tensors")


def _depth(raw: bytes) -> int:
    """How deep lists and objects are nested, strings aside: in linear time and little memory,
    whatever the bytes are."""
    # without escapes, every quote opens or closes a string
    text = np.frombuffer(raw.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    quotes = depth = deepest = 0
    for start in range(0, len(text), BLOCK):
        block = text[start : start + BLOCK]
        inside = np.cumsum(block == ord('"'), dtype=np.int32) + quotes
        depths = np.cumsum(STEPS[block] * (inside % 2 == 0), dtype=np.int32) + depth
        quotes, depth = int(inside[-1]) % 2, int(depths[-1])
        deepest = max(deepest, int(depths.max()))
    return deepest


def to_json(value: Any) -> bytes:
    """A JSON text in UTF-8, as short as it gets.

    Raises
    ------
    ValueError
        A number is NaN or infinite, which JSON cannot write.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


# -- requests -------------------------------------------------------------------------------------


def parse_infer(
    body: bytes,
    header_length: str | None,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    batched: bool = True,
) -> InferRequest:
    """Read the body of an infer request.

    Parameters
    ----------
    body : bytes
    header_length : str or None
        The header Inference-Header-Content-Length: bytes of JSON before the binary tensors.
    inputs, outputs : sequence of Tensor
        The network's. Every input must be there once; no output asked for means all of them.
    batched : bool
        The first axis of every input counts the samples.

    Raises
    ------
    BadRequest
    """
    view = memoryview(body)
    size = _header_size(header_length, len(view))
    head = parse_json(view[:size])
    if not isinstance(head, dict):
        raise BadRequest("the request is a JSON object with 'inputs'")
    parameters = _parameters(head, "the request")
    feeds, used = _feeds(
        head.get("inputs"), view[size:], {tensor.name: tensor for tensor in inputs}
    )
    if used != len(view) - size:
        raise BadRequest(
            f"{len(view) - size} bytes follow the JSON, the binary tensors name {used} of them"
        )
    if batched:
        check_rows(feeds)
    identity = head.get("id", "")
    if not isinstance(identity, str):
        raise BadRequest("'id' is a string")
    return InferRequest(
        {tensor.name: feeds[tensor.name] for tensor in inputs},
        _wanted(head.get("outputs"), parameters, [tensor.name for tensor in outputs]),
        identity,
        _timeout(parameters),
    )


def _header_size(text: str | None, available: int) -> int:
    if text is None:
        return available
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= available):
        raise BadRequest(
            f"Inference-Header-Content-Length is {shown(text)}, the body has {available} bytes"
        )
    return int(text)


def _parameters(holder: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"the 'parameters' of {what} are a JSON object")
    if "shared_memory_region" in parameters:
        raise BadRequest(f"{what} lies in shared memory, which this server does not map")
    return parameters


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    microseconds = parameters.get("timeout")
    if microseconds is None:
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or microseconds < 0:
        raise BadRequest("the parameter 'timeout' is a whole number of microseconds")
    return min(microseconds, 10**12) / 1e6 or None


def _feeds(
    entries: Any, binary: memoryview, known: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays by name, and how many of the binary bytes they took."""
    if not isinstance(entries, list):
        raise BadRequest("'inputs' is a list of tensors")
    feeds: dict[str, np.ndarray] = {}
    used = 0
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BadRequest("an input is a JSON object with a 'name'")
        name = entry["name"]
        if name not in known:
            raise BadRequest(f"there is no input {shown(name)} (there are: {', '.join(known)})")
        if name in feeds:
            raise BadRequest(f"input {name!r} comes twice")
        dtype, shape = _checked(entry, known[name])
        count = math.prod(shape)
        size = _parameters(entry, f"input {name!r}").get("binary_data_size")
        if size is None:
            feeds[name] = _from_json(entry, name, dtype, shape, count)
            continue
        if "data" in entry:
            raise BadRequest(f"input {name!r} has both 'data' and 'binary_data_size'")
        if not isinstance(size, int) or size != count * dtype.itemsize:
            raise BadRequest(
                f"input {name!r} of the shape {list(shape)} takes {count * dtype.itemsize} bytes, "
                f"its binary_data_size is {shown(size)}"
            )
        if used + size > len(binary):
            raise BadRequest(
                f"input {name!r} takes {size} bytes, {len(binary) - used} are left in the body"
            )
        feeds[name] = np.frombuffer(binary, dtype, count, used).reshape(shape)
        if dtype.kind == "b" and feeds[name].view(np.uint8).max(initial=0) > 1:
            raise BadRequest(f"input {name!r}: a BOOL is the byte 0 or 1")
        used += size
    if missing := [name for name in known if name not in feeds]:
        raise BadRequest(f"the input {missing[0]!r} is missing")
    return feeds, used


def _checked(entry: Mapping[str, Any], tensor: Tensor) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape of an input, which are the network's."""
    wanted = np.dtype(tensor.dtype)
    name, datatype, shape = tensor.name, entry.get("datatype"), entry.get("shape")
    check_type(name, wanted)
    if datatype != NAMES.get(wanted):
        raise BadRequest(f"input {name!r} is {NAMES.get(wanted)}, not {shown(datatype)}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_RANK
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    ):
        raise BadRequest(f"input {name!r}: 'shape' is a list of whole numbers, not {shown(shape)}")
    check_shape(name, shape, tensor.shape)
    return wanted.newbyteorder("<"), tuple(shape)


def check_type(name: str, dtype: np.dtype) -> None:
    """Whether this server takes an input of this type."""
    if dtype not in NAMES:
        raise BadRequest(f"input {name!r} is BYTES, which this server does not take")


def check_shape(name: str, shape: Sequence[int], wanted: Sequence[int | None]) -> None:
    """Whether a network takes an input of this shape, in which no axis may be empty."""
    fits = len(shape) == len(wanted) and all(
        w in (None, n) for n, w in zip(shape, wanted, strict=True)
    )
    if not fits:
        text = "[" + ", ".join("-1" if size is None else str(size) for size in wanted) + "]"
        raise BadRequest(f"input {name!r} has the shape {shown(list(shape))}, {text} is expected")
    if 0 in shape:
        raise BadRequest(f"input {name!r} is empty: its shape is {list(shape)}")


def check_rows(feeds: Mapping[str, np.ndarray]) -> None:
    """Whether all inputs have as many samples."""
    rows = {name: len(array) for name, array in feeds.items()}
    if len(set(rows.values())) > 1:
        raise BadRequest(f"the inputs differ in their number of samples: {rows}")


def _from_json(
    entry: Mapping[str, Any], name: str, dtype: np.dtype, shape: tuple[int, ...], count: int
) -> np.ndarray:
    data = entry.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r} has no list 'data'")
    array = numbers(data, name, dtype)
    if array.size != count or (array.ndim > 1 and array.shape != shape):
        raise BadRequest(
            f"input {name!r} has data of the shape {list(array.shape)} for the shape {list(shape)}"
        )
    return array.reshape(shape)


def numbers(data: Any, name: str, dtype: np.dtype) -> np.ndarray:
    """A JSON list of numbers, nested or flat, as an array of this type.

    Raises
    ------
    BadRequest
        It is ragged, holds something else, or numbers that the type does not.
    """
    check_type(name, dtype)
    try:
        given = np.asarray(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"input {name!r}: 'data' is a list of numbers, all rows alike") from error
    kinds = {"b": "b", "f": "fiu"}.get(dtype.kind, "iu")
    if given.dtype.kind not in kinds and given.size:
        raise BadRequest(f"input {name!r}: 'data' holds something else than {NAMES[dtype]} numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(dtype, order="C")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"input {name!r}: 'data' holds a number too large for {NAMES[dtype]}")
    if dtype.kind in "iu" and not np.array_equal(array, given):
        raise BadRequest(f"input {name!r}: 'data' holds a number outside {NAMES[dtype]}")
    return array


def _wanted(entries: Any, parameters: Mapping[str, Any], known: Sequence[str]) -> list[Wanted]:
    default = _flag(parameters, "binary_data_output", False)
    if entries is None or entries == []:
        return [Wanted(name, default) for name in known]
    if not isinstance(entries, list) or len(entries) > len(known):
        raise BadRequest(f"'outputs' is a list of at most {len(known)} tensors")
    wanted: list[Wanted] = []
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in known:
            raise BadRequest(f"there is no output {shown(name)} (there are: {', '.join(known)})")
        if any(name == other.name for other in wanted):
            raise BadRequest(f"output {name!r} is asked for twice")
        told = _parameters(entry, f"output {name!r}")
        classes = told.get("classification", 0)
        if not isinstance(classes, int) or isinstance(classes, bool) or classes < 0:
            raise BadRequest(f"output {name!r}: 'classification' is a number of classes")
        wanted.append(Wanted(name, _flag(told, "binary_data", default), classes))
    return wanted


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"the parameter {name!r} is true or false")
    return value


# -- responses ------------------------------------------------------------------------------------


def write_infer(
    request: InferRequest,
    arrays: Sequence[np.ndarray],
    model: str,
    version: str,
    labels: Sequence[str] | None = None,
) -> tuple[bytes, int | None]:
    """The body of the answer, and how many bytes of it are JSON where binary tensors follow.

    Raises
    ------
    BadRequest
        JSON cannot carry a value (NaN, infinity), or an output has no classes.
    """
    entries = []
    pieces = [b""]
    for wanted, array in zip(request.outputs, arrays, strict=True):
        if wanted.classes:
            array = classification(array, wanted, labels)
        entry: dict[str, Any] = {
            "name": wanted.name,
            "datatype": NAMES.get(array.dtype, "BYTES"),
            "shape": list(array.shape),
        }
        if wanted.binary:
            raw = _raw(array)
            entry["parameters"] = {"binary_data_size": len(raw)}
            pieces.append(raw)
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    head = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id:
        head["id"] = request.id
    try:
        pieces[0] = to_json(head)
    except ValueError as error:
        raise BadRequest(
            "an output holds NaN or infinity, which JSON cannot write: ask for 'binary_data'"
        ) from error
    return (b"".join(pieces), len(pieces[0]) if len(pieces) > 1 else None)


def _raw(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = (text.encode() for text in array.ravel())
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def classification(array: np.ndarray, wanted: Wanted, labels: Sequence[str] | None) -> np.ndarray:
    """The best classes of each sample as texts "score:index:label", best first."""
    if array.ndim != 2 or array.dtype not in NAMES:
        kind = NAMES.get(array.dtype, "BYTES")
        raise BadRequest(
            f"output {wanted.name!r}, {kind} of the shape {list(array.shape)}, has no classes"
        )
    count = min(wanted.classes, array.shape[1])
    # as floats: the negative of an unsigned number is none
    best = np.argsort(-array.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = np.empty(best.shape, object)
    for place, number in np.ndenumerate(best):
        index = int(number)
        label = "" if labels is None or index >= len(labels) else f":{labels[index]}"
        texts[place] = f"{array[place[0], index]:f}:{index}{label}"
    return texts
