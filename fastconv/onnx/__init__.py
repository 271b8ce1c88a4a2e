"""Writing a network to ONNX, with proof.

Lazy: `fastconv.onnx.metadata` reads what a file says of itself without loading the exporter or the
onnx package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.node import ExportError
    from fastconv.onnx.exporter import export
    from fastconv.onnx.report import ExportReport

_NAMES = {
    "ExportError": "fastconv.node",
    "ExportReport": "fastconv.onnx.report",
    "export": "fastconv.onnx.exporter",
}

__all__ = ["ExportError", "ExportReport", "export"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"fastconv.onnx has no {name!r}")
    return getattr(import_module(_NAMES[name]), name)
