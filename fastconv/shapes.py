"""Checks and arithmetic on shapes. A shape is one sample's, channels last, without the batch."""

import difflib
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

Shape = tuple[int | None, ...]
Pads = tuple[tuple[int, int], ...]

MAX_ELEMENTS = 2**48  # of one sample: what no machine holds is an error, not an overflow


def integer(value: Any, name: str, minimum: int = 1) -> int:
    """``value`` as an int ≥ ``minimum``, or a ValueError that names the argument."""
    if not isinstance(value, bool):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if number >= minimum:
                return number
    raise ValueError(f"{name} must be an integer ≥ {minimum}, not {value!r}")


def integers(value: Any, rank: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """``value`` as ``rank`` ints: one int for all dims or a sequence of ``rank`` of them."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        items = tuple(value)
        if len(items) != rank:
            raise ValueError(f"{name} must be an integer or {rank} of them, not {value!r}")
        return tuple(integer(item, name, minimum) for item in items)
    return (integer(value, name, minimum),) * rank


def real(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float in [low, high], or a ValueError that names the argument."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, (bool, str)) or not low <= number <= high or math.isinf(number):
        bounds = f" in [{low:g}, {high:g}]" if not math.isinf(low) or not math.isinf(high) else ""
        raise ValueError(f"{name} must be a number{bounds}, not {value!r}")
    return number


def flag(value: Any, name: str) -> bool:
    """``value`` as a bool: True or False, numpy's too, 1 or 0; a word is an error."""
    if getattr(value, "ndim", 0) == 0 and value in (True, False):
        return bool(value)
    raise ValueError(f"{name} is True or False, not {value!r}")


def shape_of(value: Any, name: str = "shape") -> Shape:
    """A sample's shape: a non-empty tuple of positive ints; None stands for a size yet unknown."""
    if isinstance(value, (int, str)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a tuple of sizes such as (28, 28, 1), not {value!r}")
    sizes = tuple(None if size is None else integer(size, name) for size in value)
    if not sizes:
        raise ValueError(f"{name} must have at least one dimension")
    elements(sizes, name)
    return sizes


def elements(shape: Shape, name: str = "shape") -> int:
    """Product of the known sizes; a ValueError where no machine could hold it."""
    count = math.prod(size for size in shape if size is not None)
    if count > MAX_ELEMENTS:
        raise ValueError(f"{name} {shape} has more than 2^48 elements")
    return count


def known(shape: Shape, who: str) -> tuple[int, ...]:
    """The shape when every size is known, or a ValueError that names who needs it."""
    if None in shape:
        raise ValueError(f"{who} needs known sizes, its input has shape {shape_text(shape)}")
    return tuple(size for size in shape if size is not None)


def fits(wanted: Shape, given: Sequence[int]) -> bool:
    """Whether sizes are those that are wanted; None wants any."""
    if wanted == given:  # nearly always
        return True
    return len(wanted) == len(given) and all(
        want in (None, got) for want, got in zip(wanted, given, strict=True)
    )


def shape_text(shape: Sequence[int | None]) -> str:
    """The shape as people read it, with the batch axis in front: (None, 28, 28, 1)."""
    return "(" + ", ".join(map(str, (None, *shape))) + ")"


def choice(value: Any, options: Iterable[str], name: str) -> Any:
    """``value`` when it is one of the options, or a ValueError with the nearest ones."""
    options = list(options)
    if value in options:
        return value
    raise ValueError(unknown(value, options, name))


def unknown(value: Any, options: Sequence[str], name: str) -> str:
    """The words for a value that is none of the options: the nearest ones, and all."""
    near = difflib.get_close_matches(str(value).lower(), options, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {name} {value!r}{hint} (there are: {', '.join(options)})"


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after for an output of ⌈size / stride⌉; the odd one comes after."""
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


def window_output(size: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> int:
    """How many windows fit: ⌊(size + pads − (kernel − 1)·dilation − 1) / stride⌋ + 1."""
    return (size + sum(pad) - (kernel - 1) * dilation - 1) // stride + 1


def transposed_crop(
    kernel: int, stride: int, dilation: int, padding: str, output_padding: int | None
) -> tuple[int, int]:
    """What a transposed window cuts off before and after its (size − 1)·stride + span outputs.

    span = (kernel − 1)·dilation + 1. A negative number after: so many outputs are appended. Sizes
    are Keras': "valid" leaves (size − 1)·stride + span + output_padding (by default as many as make
    it a multiple of the stride, where span is smaller), "same" leaves size·stride, or with
    output_padding (size − 1)·stride + span % 2 + output_padding, and cuts off the smaller half
    before.
    """
    span = (kernel - 1) * dilation + 1
    if padding == "valid":
        return 0, -(max(stride - span, 0) if output_padding is None else output_padding)
    rest = stride if output_padding is None else span % 2 + output_padding
    cut = span - rest
    before = max(cut // 2, 0)
    return before, cut - before


def transposed_window(
    who: str,
    shape: Shape,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str,
    output_padding: Sequence[int] | None,
) -> tuple[Shape, Pads]:
    """Spatial output sizes of a transposed window, and what is cut off (`transposed_crop`)."""
    extra = output_padding or (None,) * len(shape)
    crops = tuple(
        transposed_crop(k, s, d, padding, o)
        for k, s, d, o in zip(kernel, strides, dilation, extra, strict=True)
    )
    out = tuple(
        None if size is None else (size - 1) * s + (k - 1) * d + 1 - sum(crop)
        for size, k, s, d, crop in zip(shape, kernel, strides, dilation, crops, strict=True)
    )
    if any(size is not None and size < 1 for size in out):
        raise ValueError(
            f"{who}: output_padding {output_padding} leaves nothing of the output of {shape}"
        )
    return out, crops


def check_output_padding(value: Any, strides: Sequence[int]) -> tuple[int, ...] | None:
    """``output_padding`` as one int a dim, each smaller than the stride; None stays None."""
    if value is None:
        return None
    extra = integers(value, len(strides), "output_padding", 0)
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(f"output_padding {extra} must be smaller than the strides {strides}")
    return extra


def check_padding(padding: Any, rank: int, name: str = "padding") -> str | Pads:
    """``"valid"``, ``"same"``, or explicit: an int, one int a dim, or (before, after) a dim."""
    if isinstance(padding, str):
        return str(choice(padding.lower(), ["valid", "same"], name))
    if isinstance(padding, Iterable):
        items = tuple(padding)
        if len(items) == rank:
            return tuple(integers(item, 2, name, 0) for item in items)  # type: ignore[misc]
        raise ValueError(
            f"{name} must be 'valid', 'same', an integer, or {rank} integers or pairs of them, "
            f"not {padding!r}"
        )
    return ((integer(padding, name, 0),) * 2,) * rank


def resolve_padding(
    padding: str | Pads,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """The zeros before and after each dim for these sizes."""
    if padding == "valid":
        return ((0, 0),) * len(sizes)
    if padding == "same":
        return tuple(map(same_padding, sizes, kernel, strides, dilation))
    return padding  # type: ignore[return-value]


def window_shape(
    who: str,
    shape: Shape,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str | Pads,
) -> Shape:
    """Spatial output sizes of a window that slides over ``shape`` (spatial dims only)."""
    out: list[int | None] = []
    for dim, size in enumerate(shape):
        if size is None:
            out.append(None)
            continue
        one = slice(dim, dim + 1)
        pad = resolve_padding(
            padding if isinstance(padding, str) else padding[one],
            [size], kernel[one], strides[one], dilation[one],
        )  # fmt: skip
        result = window_output(size, kernel[dim], strides[dim], dilation[dim], pad[0])
        if result < 1:
            raise ValueError(
                f"{who}: a window of {tuple(kernel)} (dilation {tuple(dilation)}) does not fit "
                f"into an input of {tuple(shape)} with padding {padding!r}"
            )
        out.append(result)
    return tuple(out)


def three(values: Sequence[Any], fill: Any) -> tuple[Any, Any, Any]:
    """Spatial values of 1-D and 2-D as (D, H, W): ones, or whatever fills, in front."""
    return (*(fill,) * (3 - len(values)), *values)


def check_channel_axis(name: str, axis: int, shape: Shape) -> None:
    """The axis over which a layer works, the batch counted: 1 (channels first) or the last."""
    if axis not in (-1, 1, len(shape)):
        raise ValueError(
            f"{name}: axis {axis} of {shape_text(shape)} is not the channels: -1, or 1 where "
            "images are shown channels first"
        )
