"""The guide to transfer learning: a frozen model within a new one, then fine-tuning."""

import numpy as np

import fastconv as keras
from fastconv import layers

keras.utils.set_random_seed(0)
base_model = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        layers.Rescaling(1.0 / 255),
        layers.Conv2D(8, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ],
    name="base",
)
(x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()

base_model.trainable = False
inputs = keras.Input(shape=(28, 28, 1))
x = base_model(inputs, training=False)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
outputs = layers.Dense(10)(x)
model = keras.Model(inputs, outputs)
model.summary(show_trainable=True)

before = base_model.get_weights()
model.compile(
    optimizer=keras.optimizers.Adam(),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(x_train, y_train, epochs=1)
assert all(np.array_equal(a, b) for a, b in zip(before, base_model.get_weights(), strict=True))

base_model.trainable = True
model.compile(
    optimizer=keras.optimizers.Adam(1e-5),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(x_train, y_train, epochs=1)
statistics = base_model.layers[2].get_weights()[2:]
assert all(np.array_equal(a, b) for a, b in zip(before[4:], statistics, strict=True))
assert not np.array_equal(before[0], base_model.get_weights()[0])
score = model.evaluate(x_test, y_test, verbose=0)
