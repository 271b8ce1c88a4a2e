"""What max and average pooling share: a window that slides, and its shape rule."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastconv import backend, shapes
from fastconv._native import pool
from fastconv.layer import Layer, one_of
from fastconv.shapes import Shape

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Value


class _Pooling(Layer):
    """A window over each channel of an image; ``strides`` default to the window itself."""

    rank = 2

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = backend.data_format_of(data_format)
        self.pool_size = shapes.integers(pool_size, self.rank, "pool_size")
        self.strides = (
            self.pool_size if strides is None else shapes.integers(strides, self.rank, "strides")
        )
        self.padding = shapes.check_padding(padding, self.rank)
        if not isinstance(self.padding, str):
            for window, pad in zip(self.pool_size, self.padding, strict=True):
                if max(pad) >= window:
                    raise ValueError(
                        f"{self.name}: padding {padding!r} must be smaller than the window "
                        f"{self.pool_size}, or a window would hold no pixel"
                    )

    def output_shape(self, *inputs: Shape) -> Shape:
        shape = one_of(self, inputs[0], (self.rank + 1,), "images (H, W, channels)")
        spatial = shapes.window_shape(
            self.name, shape[:-1], self.pool_size, self.strides, (1,) * self.rank, self.padding
        )
        return (*spatial, shape[-1])

    def pads(self, spatial: tuple[int, ...]) -> shapes.Pads:
        """Padding before and after each spatial dim for an input of this size."""
        return shapes.resolve_padding(
            self.padding, spatial, self.pool_size, self.strides, (1,) * self.rank
        )

    def geometry(self, x: "Value", x_stride: int, y_stride: int) -> pool.PoolGeometry:
        return pool.PoolGeometry(
            in_size=shapes.three(x.shape[:-1], 1),
            window=shapes.three(self.pool_size, 1),
            strides=shapes.three(self.strides, 1),
            pads=shapes.three(self.pads(x.shape[:-1]), (0, 0)),
            channels=x.channels,
            x_stride=x_stride,
            y_stride=y_stride,
        )

    def window_to_onnx(
        self, scope: "Scope", op: str, x: "OnnxTensor", **attributes: int
    ) -> "OnnxTensor":
        """The pooling operator ``op``; it wants channels first."""
        x = scope.channels_first(x)
        ones = (1,) * self.rank
        window = scope.window_attributes(x, self.pool_size, self.strides, ones, self.padding)
        like = replace(x, shape=self.output_shape(x.shape))
        return scope.node(op, [x], like, **window, **attributes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": self.padding,
        }
