"""Train a generative adversarial network with passes by hand: no `fit`, no autograd, two models.

A generator G makes images from noise z, a discriminator D gives a logit that says how real an image
looks (Goodfellow et al., 2014). With t the truth, the cross-entropy of a logit a has the gradient

    da = (sigmoid(a) − t) / n

and that is all that must be derived. The discriminator sees a real and a fake batch, *each in a
pass of its own, both alive at once*: every pass has its own activations, dropout masks and batch
statistics, and the second backward adds to the gradients of the first. The generator's gradient is
what the discriminator's backward gives at its input.

    python examples/gan.py --steps 1500 --check 0.9 --picture digits.png

The digits come with scikit-learn. Expected after 1500 steps (some seconds): the mean of the images
that G makes correlates with that of the real ones by more than 0.9.
"""

import argparse
import sys

import numpy as np

import fastconv as fc
from fastconv import layers, optimizers

NOISE = 16
BATCH = 64


def generator() -> fc.Sequential:
    return fc.Sequential(
        [
            layers.Input((NOISE,)),
            layers.Dense(2 * 2 * 64, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Reshape((2, 2, 64)),
            layers.Conv2DTranspose(32, 4, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )


def discriminator() -> fc.Sequential:
    return fc.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(32, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Dropout(0.3),
            layers.Conv2D(64, 3, strides=2, padding="same"),
            layers.LeakyReLU(0.2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ],
        name="discriminator",
    )


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def cross_entropy(a: np.ndarray, t: float) -> float:
    """The mean of ``−t log s(a) − (1 − t) log(1 − s(a))``, without overflow."""
    return float(np.mean(np.logaddexp(0, a) - t * a))


class Trainer:
    """Two models, an optimizer each, and one step of the game."""

    def __init__(self, g: fc.Sequential, d: fc.Sequential, rate: float = 5e-4) -> None:
        self.g, self.d = g, d
        self.optimize_g = optimizers.Adam(rate, beta_1=0.5)
        self.optimize_d = optimizers.Adam(rate, beta_1=0.5)
        self.optimize_g.build([p for p in g.parameters() if p.trainable])
        self.optimize_d.build([p for p in d.parameters() if p.trainable])

    def step(self, real: np.ndarray, z: np.ndarray) -> tuple[float, float]:
        """One update of both; returns D's loss and G's."""
        g, d, n = self.g, self.d, len(real)
        fake, g_pass = g.forward(z, training=True)

        # D: two passes alive at once, then backward through each; the second one adds
        a_real, real_pass = d.forward(real, training=True)
        a_fake, fake_pass = d.forward(fake, training=True)
        d.backward(real_pass, (sigmoid(a_real) - 0.9) / n)  # 0.9: labels a little smoothed
        d.backward(fake_pass, sigmoid(a_fake) / n, accumulate=True)
        self.optimize_d.apply()

        # G: through the discriminator to its input, and on through the generator's own pass
        a, through = d.forward(fake, training=True)
        dx = d.backward(through, (sigmoid(a) - 1) / n)  # D's own gradients are not used
        g.backward(g_pass, dx)
        self.optimize_g.apply()
        loss = cross_entropy(a_real, 0.9) + cross_entropy(a_fake, 0)
        return loss, cross_entropy(a, 1)


def sheet(images: np.ndarray, columns: int = 8) -> np.ndarray:
    """Images (n, H, W) side by side, as bytes."""
    n, height, width = images.shape
    rows = images[: n // columns * columns].reshape(-1, columns, height, width)
    whole = rows.transpose(0, 2, 1, 3).reshape(-1, columns * width)
    return (255 * (1 - whole)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=float, metavar="MIN", help="fail below this correlation")
    parser.add_argument("--picture", metavar="PATH", help="write what G makes, needs Pillow")
    args = parser.parse_args()

    (x, _), _ = fc.datasets.digits.load_data()
    x = (x[..., None] / 16).astype(np.float32)
    fc.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    trainer = Trainer(generator(), discriminator())
    for step in range(1, args.steps + 1):
        real = x[rng.choice(len(x), BATCH, replace=False)]
        z = rng.standard_normal((BATCH, NOISE))
        d_loss, g_loss = trainer.step(real, z)
        if step % 250 == 0 or step == args.steps:
            print(f"step {step}: discriminator {d_loss:.3f}, generator {g_loss:.3f}", flush=True)

    made = trainer.g.predict(rng.standard_normal((256, NOISE)))[..., 0]
    likeness = float(np.corrcoef(made.mean(0).ravel(), x.mean(0).ravel())[0, 1])
    print(f"mean images correlate by {likeness:.3f}; spread {made.std(0).mean():.3f}, "
          f"of the real ones {x.std(0).mean():.3f}")  # fmt: skip
    if args.picture:
        from PIL import Image

        image = Image.fromarray(sheet(made[:64]))
        image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST).save(
            args.picture
        )
    if args.check is not None and likeness < args.check:
        sys.exit(f"the correlation {likeness:.3f} is below {args.check:g}")


if __name__ == "__main__":
    main()
