"""What the global poolings share: all pixels of an image become one."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastconv import backend, shapes
from fastconv.layer import Layer, one_of
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope


class _GlobalPooling(Layer):
    """One number per channel; ``keepdims`` keeps spatial dims of size 1."""

    rank = 2

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)
        self.keepdims = bool(keepdims)

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = one_of(self, inputs[0], (self.rank + 1,), "images (H, W, channels)")
        shapes.known(shape[-1:], self.name)
        return ((1,) * self.rank if self.keepdims else ()) + shape[-1:]

    def global_to_onnx(self, scope: "Scope", op: str, x: "OnnxTensor") -> "OnnxTensor":
        """The global operator ``op``, which keeps the spatial dims, and what takes them away."""
        x = scope.channels_first(x)
        y = scope.node(op, [x], replace(x, shape=(*(1,) * self.rank, x.shape[-1])))
        return y if self.keepdims else scope.flatten(y)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keepdims": self.keepdims}
