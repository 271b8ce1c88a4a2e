"""2-D average pooling."""

from typing import TYPE_CHECKING, Any

from fastconv import shapes
from fastconv._native import pool
from fastconv.layer import Frame
from fastconv.layers._pooling import _Pooling

if TYPE_CHECKING:
    from fastconv.node import OnnxTensor, Scope
    from fastconv.plan import Builder, Value


class AveragePooling2D(_Pooling):
    """The mean of each window, channel by channel.

    Shapes: (H, W, C) → (OH, OW, C). Padding is not counted, as in Keras, unless asked for.

    Gradient: each input receives dy / count from every window that it lies in.

    Parameters
    ----------
    pool_size, strides : int or pair of int
        ``strides`` default to ``pool_size``.
    padding : {"valid", "same"}, int, pair of int or pair of (before, after)
    count_include_pad : bool
        Divide by the whole window instead of its pixels inside the image (beyond Keras).
    """

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: Any = "valid",
        data_format: str | None = None,
        *,
        count_include_pad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, b: "Builder", frame: Frame) -> "Value":
        x = frame.inputs[0]
        y = b.output(shapes.known(self.output_shape(x.shape), self.name))
        geometry = self.geometry(x, x.stride, y.stride)
        mask = frame.mask.arguments if frame.mask else None
        b.emit(
            pool.AveragePoolForward(
                geometry, self.count_include_pad, x=x.slot, y=y.slot, dropout=mask
            )
        )
        return y

    def backward(self, b: "Builder", frame: Frame, dy: "Value") -> "list[Value | None]":
        if frame.mask is not None:
            dy = frame.mask.backward(b, dy)
        dx = b.value(frame.inputs[0].shape)
        geometry = self.geometry(frame.inputs[0], dx.stride, dy.stride)
        b.emit(pool.AveragePoolBackward(geometry, self.count_include_pad, dy=dy.slot, dx=dx.slot))
        return [dx]

    def to_onnx(self, scope: "Scope", inputs: "list[OnnxTensor]") -> "OnnxTensor":
        counted = int(self.count_include_pad)
        return self.window_to_onnx(scope, "AveragePool", inputs[0], count_include_pad=counted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count_include_pad": self.count_include_pad}
