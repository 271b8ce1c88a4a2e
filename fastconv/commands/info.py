"""Show what this build runs on, or what a file holds.

Without FILE: instruction set, threads and versions, what a bug report needs.
With a model saved by fastconv: its layers, parameters and compile settings.
With an ONNX file: opset, inputs, outputs, operators, and what the export proved.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from fastconv.commands._common import fields
from fastconv.files import size_text

SUMMARY = "show what this build runs on, or what a file holds"
EXAMPLES = """examples:
  fastconv info
  fastconv info model.fastconv
  fastconv info model.onnx
"""
ZIP_MAGIC = b"PK"
MAX_TEXT = 200  # characters shown of what others wrote into a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", metavar="FILE", help="a saved model or an ONNX file")


def run(arguments: argparse.Namespace) -> int:
    if arguments.file is None:
        from fastconv.config import show_config

        show_config()
        return 0
    with open(arguments.file, "rb") as file:
        is_zip = file.read(2) == ZIP_MAGIC
    print("\n".join((_model if is_zip else _onnx)(arguments.file)))
    return 0


def _model(path: str) -> list[str]:
    from fastconv.model import load_model

    model = load_model(path)
    words = [f"{path}: a model of fastconv, {size_text(os.path.getsize(path))}", ""]
    model.summary(print_fn=words.append)
    words.append(f"Weights: sha256 {model.fingerprint()}")
    settings = model.compile_config()
    if settings is None:
        return [*words, "Not compiled"]
    rows = [
        ("optimizer", _call(settings["optimizer"])),
        *(("loss", _call(loss)) for loss in settings["loss"]),
        *(("metrics", ", ".join(map(_call, found))) for found in settings["metrics"] if found),
        ("updates", f"{model.optimizer.iterations:,}"),
    ]
    return [*words, "", "Compiled", *fields(rows)]


def _call(config: Any) -> str:
    """``{"name": "sgd", "learning_rate": 0.1}`` as people write it, without what is not given."""
    if not isinstance(config, dict):
        return str(config)
    name = config.get("name", config.get("class"))
    values = [
        f"{key}={_call(value) if isinstance(value, dict) else value}"
        for key, value in config.items()
        if key not in ("name", "class") and value is not None and value is not False
    ]
    return f"{name}({', '.join(values)})"


def _onnx(path: str) -> list[str]:
    from fastconv.onnx.describe import Described, describe
    from fastconv.onnx.metadata import PREFIX, decode

    def tensors(items: Sequence[Any]) -> str:
        return ", ".join(f"{name}: {dtype} ({', '.join(shape)})" for name, dtype, shape in items)

    found: Described = describe(path)
    operators = [f"{name} × {count}" if count > 1 else name for name, count in found.operators]
    rows = [
        ("producer", found.producer or "not told"),
        ("opset", f"{', '.join(found.opsets)} (IR version {found.ir_version})"),
        ("inputs", tensors(found.inputs)),
        ("outputs", tensors(found.outputs)),
        ("operators", ", ".join(operators)),
        ("parameters", f"{found.parameters:,} ({size_text(found.parameter_bytes)})"),
    ]
    words = [f"{path}: an ONNX network, {size_text(os.path.getsize(path))}", *fields(rows)]
    try:
        told = _metadata(decode(found.metadata))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged metadata: {error!r}") from error  # by whoever wrote it
    if told:
        words += ["", "Metadata of fastconv", *fields(told)]
    others = {k: v for k, v in found.metadata.items() if not k.startswith(PREFIX)}
    if others:
        rows = [(key, " ".join(value.split())[:MAX_TEXT]) for key, value in others.items()]
        words += ["", "Other metadata", *fields(sorted(rows))]
    return words


def _metadata(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What an export says of itself, as far as it says it."""
    rows = [(str(key), told[key]) for key in ("version", "layout", "output") if key in told]
    for name, entry in told.get("inputs", {}).items():
        if "range" in entry:
            low, high = entry["range"]
            rows.append((f"range of {name}", f"{low:g} to {high:g}"))
    if names := told.get("class_names"):
        rows.append((f"{len(names)} classes", ", ".join(names)))
    if "weights_sha256" in told:
        rows.append(("weights", f"sha256 {told['weights_sha256']}"))
    if samples := told.get("samples"):
        for name, tolerance in samples["tolerance"].items():
            rows.append(
                (
                    f"proof of {name}",
                    f"{samples['count']} samples with outputs; "
                    f"tolerance {tolerance:.2g} of the scale {samples['scale'][name]:.3g}",
                )
            )
    return rows
