"""The guide to the functional API, as far as its layers exist: a dense network, an encoder and a
decoder, models within models, a toy ResNet, a shared layer, features from the middle."""

import os
import tempfile

import numpy as np

import fastconv as keras
from fastconv import layers

(x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
flat_train = x_train.reshape(-1, 784).astype("float32") / 255
flat_test = x_test.reshape(-1, 784).astype("float32") / 255

inputs = keras.Input(shape=(784,))
x = layers.Dense(64, activation="relu")(inputs)
x = layers.Dense(64, activation="relu")(x)
outputs = layers.Dense(10)(x)
model = keras.Model(inputs=inputs, outputs=outputs, name="mnist_model")
model.summary()
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer=keras.optimizers.Adam(),
    metrics=["accuracy"],
)
history = model.fit(flat_train, y_train, batch_size=64, epochs=2, validation_split=0.2)
score = model.evaluate(flat_test, y_test, verbose=2)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "my_model.keras")
    model.save(path)
    del model
    model = keras.models.load_model(path)
assert model.evaluate(flat_test, y_test, verbose=0) == score

# one graph, two models
encoder_input = keras.Input(shape=(28, 28, 1), name="img")
x = layers.Conv2D(16, 3, activation="relu")(encoder_input)
x = layers.Conv2D(32, 3, activation="relu")(x)
x = layers.MaxPooling2D(3)(x)
x = layers.Conv2D(16, 3, activation="relu")(x)
encoder_output = layers.GlobalMaxPooling2D()(x)
encoder = keras.Model(encoder_input, encoder_output, name="encoder")
encoder.summary()

x = layers.Reshape((4, 4, 1))(encoder_output)
x = layers.Conv2DTranspose(16, 3, activation="relu")(x)
decoder_output = layers.Conv2DTranspose(1, 3, activation="relu")(x)
autoencoder = keras.Model(encoder_input, decoder_output, name="autoencoder")
assert autoencoder.output_shape == (None, 8, 8, 1)

# models are layers
decoder_input = keras.Input(shape=(16,), name="encoded_img")
x = layers.Reshape((4, 4, 1))(decoder_input)
decoder = keras.Model(decoder_input, layers.Conv2DTranspose(1, 3)(x), name="decoder")
autoencoder_input = keras.Input(shape=(28, 28, 1), name="img")
encoded_img = encoder(autoencoder_input)
decoded_img = decoder(encoded_img)
chained = keras.Model(autoencoder_input, decoded_img, name="chained")
chained.summary()
assert [layer.name for layer in chained.layers] == ["img", "encoder", "decoder"]


def get_model():
    inputs = keras.Input(shape=(128,))
    outputs = layers.Dense(1)(inputs)
    return keras.Model(inputs, outputs)


members = [get_model() for _ in range(3)]
inputs = keras.Input(shape=(128,))
ensemble = keras.Model(inputs, layers.add([member(inputs) for member in members]))
rows = np.ones((2, 128), "float32")
np.testing.assert_allclose(
    ensemble.predict(rows), sum(member.predict(rows) for member in members), rtol=1e-5
)

# a toy ResNet
inputs = keras.Input(shape=(32, 32, 3), name="img")
x = layers.Conv2D(32, 3, activation="relu")(inputs)
x = layers.Conv2D(64, 3, activation="relu")(x)
block_1_output = layers.MaxPooling2D(3)(x)
x = layers.Conv2D(64, 3, activation="relu", padding="same")(block_1_output)
x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
block_2_output = layers.add([x, block_1_output])
x = layers.Conv2D(64, 3, activation="relu", padding="same")(block_2_output)
x = layers.Conv2D(64, 3, activation="relu", padding="same")(x)
block_3_output = layers.add([x, block_2_output])
x = layers.Conv2D(64, 3, activation="relu")(block_3_output)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dense(256, activation="relu")(x)
x = layers.Dropout(0.5)(x)
outputs = layers.Dense(10)(x)
resnet = keras.Model(inputs, outputs, name="toy_resnet")
resnet.summary()
resnet.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
    metrics=["acc"],
)
images = np.random.default_rng(0).random((64, 32, 32, 3))
labels = keras.utils.to_categorical(np.arange(64) % 10, 10)
resnet.fit(images, labels, batch_size=32, epochs=1, validation_split=0.2)

# features from the middle
features_list = [layer.output for layer in resnet.layers]
extraction = keras.Model(inputs=resnet.input, outputs=features_list)
assert len(extraction.predict(images[:2])) == len(resnet.layers)
