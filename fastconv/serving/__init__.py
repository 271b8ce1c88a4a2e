"""Running an exported network: a session that is strict about its device, and a server around it.

Stands apart from training: it needs numpy and onnxruntime, and what it knows of a network is what
the file tells. Lazy, so that importing it loads neither of the two::

    from fastconv.serving import Session

    session = Session("mnist.onnx", device="cuda")
    probabilities = session.predict(images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.serving.errors import SessionError
    from fastconv.serving.latency import Latency
    from fastconv.serving.proof import Proof
    from fastconv.serving.session import Session, TensorInfo

# public name → module that has it
_NAMES = {
    "Latency": "fastconv.serving.latency",
    "Proof": "fastconv.serving.proof",
    "Session": "fastconv.serving.session",
    "SessionError": "fastconv.serving.errors",
    "TensorInfo": "fastconv.serving.session",
}

__all__ = ["Latency", "Proof", "Session", "SessionError", "TensorInfo"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"fastconv.serving has no {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
