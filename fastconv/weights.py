"""Weights alone, to and from ``.safetensors`` and ``.npz`` files, by the parameters' names."""

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from fastconv.files import replacing
from fastconv.parameter import Parameter
from fastconv.tables import Printed

StrPath = str | os.PathLike[str]
NUMBERED = re.compile(r"(?P<kind>[^/]*?)(_(?P<number>\d+))?(?P<rest>/.*)")  # <layer>/<parameter>
SUFFIXES = (".safetensors", ".npz")
SHOWN = 8  # names of each kind in a report


@dataclass(repr=False)
class WeightsReport(Printed):
    """What `load_weights` did, by the parameters' names; prints as text.

    Attributes
    ----------
    loaded : list of str
    missing : list of str
        Of the model, not in the file: left as they were.
    unexpected : list of str
        Of the file, not in the model.
    mismatched : dict of str to (tuple, tuple)
        Shapes in the file and in the model, where these differ: left as they were.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the file had every parameter of the model, and nothing else."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [f"{name} {a} ≠ {b}" for name, (a, b) in self.mismatched.items()]
        kinds = {
            "in the model alone": self.missing,
            "in the file alone": self.unexpected,
            "of another shape in the file": shapes,
        }
        lines = [f"{len(self.loaded)} parameters loaded"]
        lines += [f"{len(names)} {kind}: {_list(names)}" for kind, names in kinds.items() if names]
        return "\n".join(lines)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def check_suffix(path: StrPath) -> str:
    """``.safetensors`` or ``.npz``, or a ValueError."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{os.fspath(path)}: weights are written to .safetensors or .npz files, not to "
            f"{suffix or 'a file without a suffix'}"
        )
    return suffix


def fingerprint(parameters: Sequence[Parameter]) -> str:
    """SHA-256 of each parameter's name, shape and value (little-endian), in the model's order.

    For float32 it is the one that an exported ONNX file carries as ``weights_sha256``.
    """
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(f"{parameter.name} {parameter.shape}\n".encode())
        order = parameter.value.dtype.newbyteorder("<")
        digest.update(np.ascontiguousarray(parameter.value, order).data)
    return digest.hexdigest()


def write(parameters: Sequence[Parameter], path: StrPath) -> None:
    """Write the values by name; the file appears whole or not at all."""
    suffix = check_suffix(path)
    arrays = {parameter.name: np.ascontiguousarray(parameter.value) for parameter in parameters}
    with replacing(path) as file:
        if suffix == ".npz":
            np.savez(file, **arrays)  # type: ignore[arg-type]
        else:
            file.write(safetensors.save(arrays))


def read(path: StrPath) -> dict[str, np.ndarray]:
    """The arrays of a file by name."""
    suffix = check_suffix(path)
    data = Path(path).read_bytes()
    try:
        if suffix == ".safetensors":
            return safetensors.load(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (SafetensorError, zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError) as error:
        raise ValueError(f"{os.fspath(path)}: not a whole {suffix} file: {error}") from error


def _renumbered(names: Sequence[str]) -> list[str]:
    """conv2d_7/kernel, conv2d_9/kernel → conv2d_0/kernel, conv2d_1/kernel."""
    numbers: dict[str, set[int]] = {}
    parts = [NUMBERED.fullmatch(name) for name in names]
    for part in parts:
        if part:
            numbers.setdefault(part["kind"], set()).add(int(part["number"] or 0))
    return [
        f"{p['kind']}_{sorted(numbers[p['kind']]).index(int(p['number'] or 0))}{p['rest']}"
        if p
        else name
        for name, p in zip(names, parts, strict=True)
    ]


def assign(
    parameters: Sequence[Parameter], arrays: Mapping[str, np.ndarray], partial: bool, who: str
) -> WeightsReport:
    """Copy values in by name: all, or with ``partial`` those that fit.

    Names that were given automatically depend on what else was made in a process. Where they
    differ, and agree as soon as the layers of each kind are numbered anew, they are the same.
    """
    own, theirs = [p.name for p in parameters], list(arrays)
    if set(own) != set(theirs) and sorted(_renumbered(own)) == sorted(_renumbered(theirs)):
        numbers = dict(zip(_renumbered(theirs), theirs, strict=True))
        arrays = {
            name: arrays[numbers[key]] for name, key in zip(own, _renumbered(own), strict=True)
        }
    report = WeightsReport(unexpected=[n for n in arrays if n not in {p.name for p in parameters}])
    found = []
    for parameter in parameters:
        name, given = parameter.name, arrays.get(parameter.name)
        if given is None:
            report.missing.append(name)
        elif given.shape != parameter.shape:
            report.mismatched[name] = given.shape, parameter.shape
        else:
            found.append((parameter, parameter.checked(given)))
            report.loaded.append(name)
    if not report.complete and not partial:
        raise ValueError(
            f"{who} and the file do not belong together; partial=True loads what fits\n{report}"
        )
    for parameter, value in found:
        parameter.value[...] = value
    return report
