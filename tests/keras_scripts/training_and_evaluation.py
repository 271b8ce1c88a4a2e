"""The guide to fit and evaluate: arrays, data sets, weights, several outputs, callbacks."""

import os
import tempfile

import numpy as np

import fastconv as keras
from fastconv import layers


def get_uncompiled_model():
    inputs = keras.Input(shape=(784,), name="digits")
    x = layers.Dense(64, activation="relu", name="dense_1")(inputs)
    x = layers.Dense(64, activation="relu", name="dense_2")(x)
    outputs = layers.Dense(10, activation="softmax", name="predictions")(x)
    return keras.Model(inputs=inputs, outputs=outputs)


def get_compiled_model():
    model = get_uncompiled_model()
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
    )
    return model


(x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
x_train = x_train.reshape(-1, 784).astype("float32") / 255
x_test = x_test.reshape(-1, 784).astype("float32") / 255
y_train = y_train.astype("float32")
y_test = y_test.astype("float32")
x_val, y_val = x_train[-100:], y_train[-100:]
x_train, y_train = x_train[:-100], y_train[:-100]

model = get_compiled_model()
history = model.fit(x_train, y_train, batch_size=64, epochs=2, validation_data=(x_val, y_val))
results = model.evaluate(x_test, y_test, batch_size=128)
predictions = model.predict(x_test[:3])
assert predictions.shape == (3, 10)

# data sets, which tf.data's scripts spell the same way
train_dataset = keras.Dataset.from_tensor_slices((x_train, y_train))
train_dataset = train_dataset.shuffle(buffer_size=1024).batch(64)
val_dataset = keras.Dataset.from_tensor_slices((x_val, y_val)).batch(64)
test_dataset = keras.Dataset.from_tensor_slices((x_test, y_test)).batch(64)
model = get_compiled_model()
model.fit(train_dataset, epochs=2, validation_data=val_dataset)
result = dict(zip(["loss", "accuracy"], model.evaluate(test_dataset), strict=True))
model.fit(train_dataset, epochs=1, steps_per_epoch=3, validation_data=val_dataset,
          validation_steps=1)  # fmt: skip


class ExamplePyDataset(keras.utils.PyDataset):
    def __init__(self, x, y, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return int(np.ceil(len(self.x) / self.batch_size))

    def __getitem__(self, idx):
        rows = slice(idx * self.batch_size, (idx + 1) * self.batch_size)
        return self.x[rows], self.y[rows]


model = get_compiled_model()
model.fit(
    ExamplePyDataset(x_train, y_train, 32), validation_data=ExamplePyDataset(x_val, y_val, 32)
)

# weights
class_weight = {i: 2.0 if i == 5 else 1.0 for i in range(10)}
model.fit(x_train, y_train, class_weight=class_weight, batch_size=64, epochs=1)
sample_weight = np.ones(shape=(len(y_train),))
sample_weight[y_train == 5] = 2.0
model.fit(x_train, y_train, sample_weight=sample_weight, batch_size=64, epochs=1)

# two outputs
image_input = keras.Input(shape=(32, 32, 3), name="img_input")
x1 = layers.Conv2D(3, 3)(image_input)
x1 = layers.GlobalMaxPooling2D()(x1)
score_output = layers.Dense(1, name="score_output")(x1)
class_output = layers.Dense(5, name="class_output")(x1)
two = keras.Model(inputs=image_input, outputs=[score_output, class_output])
two.compile(
    optimizer=keras.optimizers.SGD(1e-3),
    loss={
        "score_output": keras.losses.MeanSquaredError(),
        "class_output": keras.losses.CategoricalCrossentropy(from_logits=True),
    },
    loss_weights={"score_output": 2.0, "class_output": 1.0},
)
img_data = np.random.default_rng(0).random((64, 32, 32, 3))
score_targets = np.random.default_rng(1).random((64, 1))
class_targets = keras.utils.to_categorical(np.arange(64) % 5, 5)
two.fit(img_data, [score_targets, class_targets], batch_size=32, epochs=1)
two.fit(
    {"img_input": img_data},
    {"score_output": score_targets, "class_output": class_targets},
    batch_size=32,
    epochs=1,
)

# callbacks


class LossHistory(keras.callbacks.Callback):
    def on_train_begin(self, logs):
        self.per_batch_losses = []

    def on_train_batch_end(self, batch, logs):
        self.per_batch_losses.append(logs.get("loss"))


with tempfile.TemporaryDirectory() as folder:
    losses = LossHistory()
    model = get_compiled_model()
    model.fit(
        x_train,
        y_train,
        epochs=4,
        batch_size=64,
        validation_split=0.2,
        callbacks=[
            losses,
            keras.callbacks.EarlyStopping(
                monitor="val_loss", min_delta=1e-2, patience=2, verbose=1
            ),
            keras.callbacks.ModelCheckpoint(
                filepath=os.path.join(folder, "mymodel_{epoch}.keras"),
                save_best_only=True,
                monitor="val_loss",
                verbose=1,
            ),
            keras.callbacks.ReduceLROnPlateau(patience=1),
            keras.callbacks.TensorBoard(log_dir=os.path.join(folder, "logs"), histogram_freq=1),
        ],
    )
    checkpoints = sorted(os.listdir(folder))
    loaded = keras.models.load_model(os.path.join(folder, checkpoints[-1]))
assert len(losses.per_batch_losses) >= 2
