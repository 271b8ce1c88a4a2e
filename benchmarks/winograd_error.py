"""Rounding errors of direct and of Winograd convolutions, on layers of the field.

Inputs are normal numbers after a ReLU, weights are drawn as He does it, gradients are normal.
Errors are the largest distance from float64, as a share of the largest number there.
"""

import numpy as np

import fastconv as fc
from fastconv import layers
from fastconv.plan import Plan

LAYERS = [  # samples, size, channels in and out
    (2, 112, 64, 64), (2, 56, 128, 128), (2, 28, 256, 256), (4, 14, 512, 512), (8, 7, 512, 512),
    (8, 32, 16, 16),
]  # fmt: skip


def gradients(model: fc.Model, x: np.ndarray, dy: np.ndarray, convolution: str) -> list[np.ndarray]:
    """y, dx and dw of the model's one convolution."""
    plan = Plan(
        model.graph, [x.shape[1:]], training=True, backward=True, input_gradients=True,
        double=x.dtype == np.float64, convolution=convolution,
    )  # fmt: skip
    running = plan.borrow(len(x))
    running.read(plan.inputs[0], x, None, len(x))
    running.forward(len(x))
    y = running.array(plan.outputs[0]).copy()
    running.array(plan.gradients[0])[...] = dy
    running.backward()
    (dx,) = plan.input_gradients
    assert dx is not None
    return [y, running.array(dx).copy(), model.parameters()[0].grad.copy()]


def errors(n: int, size: int, channels: int, filters: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((n, size, size, channels), np.float32), 0)
    dy = rng.standard_normal((n, size, size, filters), np.float32)
    weight = rng.standard_normal((3, 3, channels, filters), np.float32)
    weight *= np.float32((2 / (9 * channels)) ** 0.5)

    def run(dtype: str, convolution: str) -> list[np.ndarray]:
        fc.set_floatx(dtype)
        convolve = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        model = fc.Sequential([layers.Input((size, size, channels)), convolve])
        model.set_weights([weight.astype(dtype)])
        return gradients(model, x.astype(dtype), dy.astype(dtype), convolution)

    exact = run("float64", "direct")
    found = {name: run("float32", name) for name in ("direct", "winograd")}
    return {
        name: [
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, exact, strict=True)
        ]
        for name, got in found.items()
    }


def main() -> None:
    print("| layer | direct y | dx | dw | Winograd y | dx | dw |\n|---|---|---|---|---|---|---|")
    for n, size, channels, filters in LAYERS:
        found = errors(n, size, channels, filters)
        numbers = " | ".join(f"{e:.1e}" for e in (*found["direct"], *found["winograd"]))
        print(f"| {n} × {size}²·{channels}→{filters} | {numbers} |")


if __name__ == "__main__":
    main()
