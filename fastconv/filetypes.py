"""What a file is, by its first bytes, for messages about one that is not what was expected."""

import os
import warnings
import zipfile

MODEL, ONNX = "a model saved by fastconv", "an ONNX file"
KERAS, HDF5 = "a model of Keras", "a file in HDF5, as older Keras writes"
TORCH, ARRAY, ARRAYS = "a file of PyTorch", "an array of numpy", "arrays of numpy"
WEIGHTS, PICTURE, PICKLE = "weights in safetensors", "a picture", "a pickle of Python's"

STARTS = {
    b"\x89HDF\r\n\x1a\n": HDF5, b"\x93NUMPY": ARRAY, b"\x89PNG": PICTURE, b"\xff\xd8\xff": PICTURE,
    b"GIF8": PICTURE, b"\x80": PICKLE,
}  # fmt: skip
# of other programs' files; a name with one of them promises what is not in ours
ENDINGS = {
    ".keras": KERAS, ".h5": HDF5, ".hdf5": HDF5, ".pt": TORCH, ".pth": TORCH, ".onnx": ONNX,
    ".npz": ARRAYS, ".npy": ARRAY, ".safetensors": WEIGHTS,
}  # fmt: skip
# an ONNX file begins with the field 1, a small number, and goes on with a string or a message
IR_VERSIONS, FIELDS = range(1, 32), b"\x12\x1a\x3a"


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """One of the words above, or None for what nobody knows."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        if head[:2] == b"PK":
            return _archive(path)
    except Exception:  # a damaged archive raises all sorts; then nobody knows
        return None
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return WEIGHTS
    if len(head) > 2 and head[0] == 8 and head[1] in IR_VERSIONS and head[2] in FIELDS:
        return ONNX
    return None


def check_ending(path: str | os.PathLike[str], kind: str, usual: str) -> None:
    """Warn where a file of this kind is to be written under the name of another kind; what is kept
    of a model and what is exported are not taken for each other."""
    promised = ENDINGS.get(os.path.splitext(os.fspath(path))[1].lower(), kind)
    if promised == kind:
        return
    if promised == ONNX:
        raise ValueError(f"{os.fspath(path)}: model.save writes {kind}; model.export writes {ONNX}")
    warnings.warn(
        f"what is written under a name like *{os.path.splitext(os.fspath(path))[1]} is {kind}, not "
        f"{promised}: other programs do not read it. Its usual name is {usual}",
        UserWarning,
        stacklevel=4,
    )


def _archive(path: str | os.PathLike[str]) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "model.safetensors" in names:
        return MODEL
    if "model.weights.h5" in names:
        return KERAS
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    return ARRAYS if names and all(name.endswith(".npy") for name in names) else None
