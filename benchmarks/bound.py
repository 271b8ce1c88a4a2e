"""The bound of this machine for a network: Σ over kernels of max(flops / peak, bytes / bandwidth).

It says how fast a step could be if every kernel ran at the multiply-add peak or at the bandwidth
that `peak.py` measures, whichever takes longer, with nothing between the kernels. What is counted:

- **Products** (convolution, dense, depthwise, transposed), in three directions; nobody needs the
  gradient at the images, so the layers that read them have two. A multiply-add is two flops. Where
  Winograd's F(4x4, 3x3) is used, each tile of 4x4 outputs takes 36 products in place of 144 (with
  F(2x2, 5x5) in place of 100), tiles at the edges counted whole; transforms cost nothing. Bytes:
  both operands read once, the result written once.
- **Batch norm**: its statistics are gathered by the kernel before it and cost nothing; forward
  reads x and writes y; backward reads x once for the sums, then reads dy and x and writes dx. At
  inference it is folded into the weights and costs nothing.
- **Pooling**: forward reads x, writes y, in training with one byte per output for the maximum's
  place; backward reads dy and these bytes and writes dx.
- **Residual addition**: one more operand, read while the other's kernel writes the sum. The same
  for the gradients of a tensor that several layers read.
- **Bias, activation, dropout, flattening, concatenation**: done while a neighbor's kernel reads or
  writes, nothing.
- **Loss**: the logits read, their gradient written.
- **Optimizer**: parameter, gradient and states read; parameter and states written.

The bandwidth of a kernel is the triad's on as many bytes as the kernel touches, taken from the next
larger size that was measured: what fits the caches moves at their speed.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

WINOGRAD_PRODUCTS = 36  # of a tile, which has (7 - k) x (7 - k) outputs of a k x k window
FREE = {
    "InputLayer", "Flatten", "Reshape", "Dropout", "Activation", "ReLU", "LeakyReLU", "ELU",
    "Softmax", "Concatenate",
}  # fmt: skip
POOLS = {
    "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D",
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """One pass over data: what it computes and what it must move, for the whole batch.

    ``direct`` are the flops of the direct algorithm, by which speeds are counted whatever is run.
    """

    layer: str
    kind: str
    direction: str
    bytes: float
    flops: float = 0.0
    direct: float = 0.0

    def seconds(self, limit: dict[str, Any]) -> float:
        """At least, on a machine with these limits (`peak.measure`)."""
        rate = next((g for size, g in limit["levels"] if size >= self.bytes), limit["gbytes"])
        return max(1e-9 * self.flops / limit["gflops"], 1e-9 * self.bytes / rate)


def kernels(model: Any, batch: int, training: bool, states: int = 0) -> list[dict[str, Any]]:
    """All kernels of a training step or of inference, as plain data.

    ``states``: arrays that the optimizer keeps per parameter.
    """
    found: list[Kernel] = []
    wanted, readers = _wants_gradient(model.graph), model.graph.consumers()
    for node in model.graph.nodes:
        needs = [tensor in wanted for tensor in node.inputs]
        found += _of_node(node, batch, training, needs)
        extra = len(readers[node.output]) - 1
        if training and extra > 0 and node.output in wanted:
            size = 4.0 * batch * prod(node.output.sample_shape)
            found.append(Kernel(node.layer.name, "add", "backward", extra * size))
    if training:
        logits = sum(batch * prod(tensor.sample_shape) for tensor in model.graph.outputs)
        values = sum(p.value.size for p in model.graph.parameters if p.trainable)
        found.append(Kernel("loss", "loss", "backward", 4.0 * 2 * logits))
        found.append(Kernel("optimizer", "optimizer", "update", 4.0 * (3 + 2 * states) * values))
    return [asdict(kernel) for kernel in found]


def _of_node(node: Any, batch: int, training: bool, needs: list[bool]) -> Iterator[Kernel]:
    layer, name = node.layer, type(node.layer).__name__
    if name in FREE:
        return
    x, y = (batch * prod(t.sample_shape) for t in (node.inputs[0], node.output))

    def kernel(kind: str, direction: str, values: float, *flops: float) -> Kernel:
        return Kernel(layer.name, kind, direction, 4.0 * values, *flops)

    if getattr(layer, "weight", None) is not None:
        shapes = node.inputs[0].sample_shape, node.output.sample_shape
        values = x + y + layer.weight.value.size
        direct = 2.0 * batch * direct_products(layer, *shapes)
        directions = ["forward", "weight gradient", "input gradient"]
        for direction in directions[: 1 if not training else 3 if needs[0] else 2]:
            kind, flops = product(layer, *shapes, direction)
            yield kernel(kind, direction, values, batch * flops, direct)
    elif name == "BatchNormalization":
        if training:
            yield kernel("norm", "forward", 2 * x)
            yield kernel("norm", "backward", 4 * x)
    elif name == "Add":
        yield kernel("add", "forward", x * (len(node.inputs) - 1))
    elif name in POOLS:
        places = y / 4 if name == "MaxPooling2D" and training else 0
        yield kernel("pool", "forward", x + y + places)
        if training and needs[0]:
            yield kernel("pool", "backward", x + y + places)
    else:
        raise ValueError(f"the bound does not know what {name} costs")


def multiply_adds(model: Any) -> int:
    """Of the forward pass of one sample by the direct algorithm: convolutions and dense layers."""
    return sum(
        direct_products(node.layer, node.inputs[0].sample_shape, node.output.sample_shape)
        for node in model.graph.nodes
        if getattr(node.layer, "weight", None) is not None
    )


def direct_products(layer: Any, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    """Multiply-adds of one direction for one sample."""
    pixels = prod((x if type(layer).__name__ == "Conv2DTranspose" else y)[:-1])
    return layer.weight.value.size * pixels


def product(
    layer: Any, x: tuple[int, ...], y: tuple[int, ...], direction: str
) -> tuple[str, float]:
    """Kind and flops of one direction for one sample."""
    flops = 2.0 * direct_products(layer, x, y)
    if type(layer).__name__ == "Dense":
        return "dense", flops
    kind = algorithm(layer, x, y, direction)
    if kind == "winograd":
        made = x if direction == "input gradient" else y
        tiles = prod(-(-size // (7 - k)) for size, k in zip(made, layer.kernel_size, strict=False))
        flops = 2.0 * tiles * WINOGRAD_PRODUCTS * prod(layer.weight.shape[-2:])
    return kind, flops


def algorithm(layer: Any, x: tuple[int, ...], y: tuple[int, ...], direction: str) -> str:
    """What fastconv chooses: "winograd", "depthwise" or "direct"."""
    from fastconv import algorithms  # late: workers of other libraries do without fastconv
    from fastconv.plan import Value

    if type(layer).__name__ == "Conv2DTranspose":  # taps apart, as these networks have it
        return "direct"
    geometry = layer.geometry(Value(0, x, x[-1]), x[-1], y[-1])
    return algorithms.convolution(geometry, direction.replace(" ", "_"), algorithms.choice())


def _wants_gradient(graph: Any) -> set[Any]:
    """Tensors on whose way back a trainable parameter waits."""
    wanted: set[Any] = set()
    for node in graph.nodes:
        if any(t in wanted for t in node.inputs) or any(p.trainable for p in node.layer.parameters):
            wanted.add(node.output)
    return wanted


# -- what the tables show -----------------------------------------------------------------------

KINDS = ("winograd", "direct", "depthwise", "dense", "norm", "pool", "add", "loss", "optimizer")


def seconds(found: list[dict[str, Any]], limit: dict[str, Any]) -> float:
    """The bound of these kernels."""
    return sum(Kernel(**kernel).seconds(limit) for kernel in found)


def gflop(found: list[dict[str, Any]]) -> float:
    """Work of these kernels by the direct algorithm."""
    return 1e-9 * sum(kernel["direct"] for kernel in found)


def by_kind(found: list[dict[str, Any]], limit: dict[str, Any]) -> dict[str, float]:
    """Seconds of the bound by kind of kernel."""
    total = dict.fromkeys(KINDS, 0.0)
    for kernel in found:
        total[kernel["kind"]] += Kernel(**kernel).seconds(limit)
    return total
