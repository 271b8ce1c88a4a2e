"""An installed wheel, without the extras: train, save, load, export, from any folder."""

import tempfile
from pathlib import Path

import numpy as np

import fastconv as fc
from fastconv import layers

fc.show_config()
fc.set_random_seed(0)
rng = np.random.default_rng(0)
y = rng.integers(0, 2, 256)
x = rng.normal(size=(256, 8, 8, 1)).astype(np.float32) + 2 * y[:, None, None, None]

model = fc.Sequential(
    [
        layers.Input((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(2, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=20, batch_size=32, verbose=0)
probabilities = model.predict(x)
assert (probabilities.argmax(axis=1) == y).mean() > 0.9

with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder, "m.fastconv"))
    again = fc.load_model(Path(folder, "m.fastconv"))
    np.testing.assert_array_equal(again.predict(x), probabilities)
    print(model.export(Path(folder, "m.onnx")))
