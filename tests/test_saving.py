"""Model files: nothing is lost, nothing half-written, and no file can do harm."""

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors

from fastconv import backend, layers
from fastconv.initializers import Initializer
from fastconv.layer import REGISTRY, Layer
from fastconv.model import Model, Sequential, load_model
from fastconv.optimizers import SGD, Adadelta, Adam
from fastconv.saving import save_model

SHAPE = (6, 6, 2)
CLASSES = 3
ENTRIES = ["metadata.json", "config.json", "model.safetensors", "optimizer.safetensors"]


def small():
    return Sequential(
        [
            layers.Input(SHAPE),
            layers.Conv2D(4, 3, activation="relu", padding="same", name="conv2d"),
            layers.BatchNormalization(name="norm"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax", name="dense"),
        ],
        name="small",
    )


def functional():
    """Two inputs, a layer used twice, a sum, a concatenation, two outputs."""
    a, b = layers.Input(SHAPE, name="a"), layers.Input(SHAPE, name="b")
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    x, y = shared(a), shared(b)
    joined = layers.Concatenate()([layers.Add()([x, y]), x])
    joined = layers.LeakyReLU(0.1)(layers.BatchNormalization()(joined))
    flat = layers.GlobalAveragePooling2D()(joined)
    classes = layers.Dense(CLASSES, activation="softmax", name="classes")(flat)
    return Model([a, b], [classes, layers.Dense(1, name="value")(flat)], name="two")


def batch(n=24, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, *SHAPE)).astype(np.float32), rng.integers(0, CLASSES, n)


def compiled(optimizer="adam"):
    model = small()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(autouse=True)
def _seed():
    backend.set_random_seed(7)


def saved(model, folder, name="m.fastconv"):
    path = folder / name
    save_model(model, path)
    return path


def assert_same_values(a, b):
    assert [p.name for p in a.parameters()] == [p.name for p in b.parameters()]
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        np.testing.assert_array_equal(one.value, other.value, err_msg=one.name)
        assert one.trainable == other.trainable


# ---- nothing is lost ----


def test_round_trip(tmp_path):
    x, y = batch()
    model = compiled()
    model.fit(x, y, epochs=2, verbose=0)
    path = saved(model, tmp_path)
    loaded = load_model(path)
    assert type(loaded) is Sequential
    assert loaded.name == "small"
    assert_same_values(model, loaded)
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert loaded.compile_config() == model.compile_config()
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def test_round_trip_of_a_graph_with_a_shared_layer(tmp_path):
    x, y = batch()
    other = batch(seed=1)[0]
    model = functional()
    model.compile(
        "sgd",
        {"classes": "sparse_categorical_crossentropy", "value": "mse"},
        metrics={"classes": ["accuracy"]},
        loss_weights={"classes": 1.0, "value": 0.5},
    )
    targets = [y, x.mean((1, 2, 3))[:, None]]
    model.fit([x, other], targets, epochs=2, verbose=0)
    loaded = load_model(saved(model, tmp_path))
    assert type(loaded) is Model
    assert_same_values(model, loaded)
    assert sum(p.name.startswith("shared/") for p in loaded.parameters()) == 2
    for mine, theirs in zip(model.predict([x, other]), loaded.predict([x, other]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert loaded.evaluate([x, other], targets, verbose=0) == model.evaluate(
        [x, other], targets, verbose=0
    )


@pytest.mark.parametrize("in_a_list", [False, True])
def test_one_output_stays_as_it_was_given(tmp_path, in_a_list):
    inputs = layers.Input((3,))
    output = layers.Dense(2)(inputs)
    model = Model(inputs, [output] if in_a_list else output)
    loaded = load_model(saved(model, tmp_path))
    assert isinstance(model.predict(np.ones((1, 3))), list) == in_a_list
    assert isinstance(loaded.predict(np.ones((1, 3))), list) == in_a_list


@pytest.mark.parametrize(
    "optimizer", [SGD(0.05), SGD(0.05, 0.9, nesterov=True), Adam(0.01), Adadelta(1.0)], ids=repr
)
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, optimizer):
    x, y = batch(40)
    straight = compiled(optimizer)  # with dropout and batch norm
    straight.fit(x, y, batch_size=16, epochs=2, verbose=0)
    resumed = load_model(saved(straight, tmp_path))
    assert resumed.optimizer.iterations == straight.optimizer.iterations == 6
    logs = []
    for model in (straight, resumed):
        backend.set_random_seed(11)  # of the order of the samples
        logs.append(model.fit(x, y, batch_size=16, epochs=2, verbose=0).history)
    assert logs[0] == logs[1]
    assert_same_values(straight, resumed)


def test_a_model_that_was_compiled_but_not_trained(tmp_path):
    x, y = batch()
    model = compiled()
    resumed = load_model(saved(model, tmp_path))
    for one in (model, resumed):
        backend.set_random_seed(3)
        one.fit(x, y, verbose=0)
    assert_same_values(model, resumed)


def test_state_of_a_layer_that_was_frozen_later(tmp_path):
    x, y = batch()
    model = compiled()
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = False
    resumed = load_model(saved(model, tmp_path))
    assert not resumed.layers[0].trainable
    names = [set(m.optimizer.variables(m.parameters())) for m in (resumed, model)]
    assert names[0] == names[1]
    resumed.fit(x, y, verbose=0)
    np.testing.assert_array_equal(resumed.get_weights()[0], model.get_weights()[0])


def test_state_of_a_layer_that_was_taken_off(tmp_path):
    x, y = batch()
    model = compiled(Adam())
    model.fit(x, y, verbose=0)
    model.pop()
    model.add(layers.Dense(CLASSES, activation="softmax", name="dense"))  # a new one of the name
    model.fit(x, y, verbose=0)
    loaded = load_model(saved(model, tmp_path))
    assert_same_values(model, loaded)


def test_without_compile_settings(tmp_path):
    path = saved(small(), tmp_path)
    assert zipfile.ZipFile(path).namelist() == ENTRIES[:3]
    assert load_model(path).compile_config() is None
    path = saved(compiled(), tmp_path)
    assert zipfile.ZipFile(path).namelist() == ENTRIES
    assert load_model(path, compile=False).compile_config() is None


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = compiled()
    first = saved(model, tmp_path, "a").read_bytes()
    assert saved(model, tmp_path, "b").read_bytes() == first
    assert saved(load_model(tmp_path / "a"), tmp_path, "c").read_bytes() == first


def test_loading_draws_no_random_weights(tmp_path):
    path = saved(small(), tmp_path)
    data = replaced(path, "config.json", lambda c: json.dumps(with_initializer(c)).encode())
    assert_same_values(load_model(write(tmp_path / "b", data)), load_model(path))


class Refuses(Initializer):
    """An initializer that this file defines."""

    def draw(self, shape, generator):
        raise RuntimeError("drawn")


def with_initializer(content):
    config = json.loads(content)
    for entry in config["graph"]["layers"]:
        if "kernel_initializer" in entry["config"]:
            entry["config"]["kernel_initializer"] = {"name": "Refuses"}
    return config


def test_float64_files_say_so(tmp_path):
    backend.set_floatx("float64")
    try:
        path = saved(small(), tmp_path)
        assert load_model(path).parameters()[0].value.dtype == np.float64
    finally:
        backend.set_floatx("float32")
    with pytest.raises(ValueError, match=r"float64.*set_floatx\('float64'\)"):
        load_model(path)


# ---- layers of the user's own ----


class Twice(layers.Rescaling):
    """A layer that this file defines."""


def test_a_layer_of_ones_own(tmp_path):
    path = saved(Sequential([layers.Input((4,)), Twice(2.0), layers.Dense(2)]), tmp_path)
    assert type(load_model(path).layers[0]) is Twice
    program = f"from fastconv import load_model; load_model({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "'twice' is a 'Twice'" in done.stderr
    assert "import the module" in done.stderr
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    program += f"import test_saving\nprint(test_saving.load_model({str(path)!r}).layers)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Twice" in done.stdout, done.stderr


def test_what_cannot_be_written(tmp_path):
    class Unwritable(layers.Rescaling):
        def get_config(self):
            return {**super().get_config(), "scale": object()}

    class Special(Sequential):
        pass

    try:
        for model, words in (
            (Sequential([layers.Input((4,)), Unwritable(1.0)]), "get_config"),
            (Special([layers.Input((4,)), layers.Dense(2)]), "Special"),
            (Sequential([layers.Dense(2)]), "no input shape"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=words):
                save_model(model, tmp_path / "m.fastconv")
            assert list(tmp_path.iterdir()) == []
    finally:
        del REGISTRY["Unwritable"]


# ---- nothing half-written ----


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(small(), tmp_path)
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(small(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_written(tmp_path):
    model = small()
    with pytest.raises(OSError, match=r"nowhere/m\.fastconv"):
        save_model(model, tmp_path / "nowhere" / "m.fastconv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        save_model(model, tmp_path / "folder")
    with pytest.raises(OSError, match="not a regular file"):
        save_model(model, os.devnull)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_paths_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(OSError, match=path.name):
            load_model(path)


# ---- hostile files ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a trained model's file, and what it predicts."""
    backend.set_random_seed(7)
    x, y = batch()
    model = compiled()
    model.fit(x, y, verbose=0)
    return saved(model, tmp_path_factory.mktemp("saved")).read_bytes(), model


def write(path, data):
    path.write_bytes(data)
    return path


def unpacked(data):
    """The entries of a zip file, a list of (name, content)."""
    from io import BytesIO

    with zipfile.ZipFile(BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def packed(entries, compression=zipfile.ZIP_STORED):
    from io import BytesIO

    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


def replaced(data, name, change):
    if isinstance(data, Path):
        data = data.read_bytes()
    return packed([(n, change(c) if n == name else c) for n, c in unpacked(data)])


def config_with(change):
    """A change of the configuration, as a change of the file's bytes."""

    def edit(content):
        config = json.loads(content)
        change(config)
        return json.dumps(config).encode()

    return lambda data: replaced(data, "config.json", edit)


def tensors_with(change, entry="model.safetensors"):
    def edit(content):
        tensors = {name: array.copy() for name, array in safetensors.load(content).items()}
        change(tensors)
        return safetensors.save(tensors)

    return lambda data: replaced(data, entry, edit)


def header_with(change, entry="model.safetensors"):
    """A change of the JSON header of a safetensors entry."""

    def edit(content):
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        return tensor_file(header, content[8 + length :])

    return lambda data: replaced(data, entry, edit)


def tensor_file(header, values):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def with_entries(*extra):
    return lambda data: packed([*unpacked(data), *extra])


def without(name):
    return lambda data: packed([entry for entry in unpacked(data) if entry[0] != name])


def content(name, value):
    return lambda data: replaced(data, name, lambda _: value)


def claim(size):
    """The directory claims that the first entry has this many bytes."""

    def edit(data):
        at = data.index(b"PK\x01\x02")
        return data[: at + 20] + struct.pack("<II", size, size) + data[at + 28 :]

    return edit


def layer_of(config, kind):
    return next(e["config"] for e in config["graph"]["layers"] if e["class"] == kind)


def set_item(key, value):
    return lambda mapping: mapping.__setitem__(key, value)


FIRST = "conv2d/kernel"
HOSTILE = {
    "empty": (lambda data: b"", "not a whole model file"),
    "no zip": (lambda data: b"hello world" * 10, "not a whole model file"),
    "a pickle": (lambda data: b"\x80\x04cos\nsystem\n", "a pickle of Python's, not a model"),
    "truncated": (lambda data: data[: len(data) // 2], "not a whole model file"),
    "without its end": (lambda data: data[:-1], "not a whole model file"),
    "parent folder": (with_entries(("../evil", b"")), "unknown entry '../evil'"),
    "absolute": (with_entries(("/etc/passwd", b"")), "unknown entry '/etc/passwd'"),
    "unknown entry": (with_entries(("code.py", b"")), "unknown entry 'code.py'"),
    "compressed": (
        lambda data: packed(unpacked(data), zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "a bomb": (
        lambda data: packed([("metadata.json", b" " * 10**7)], zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "a huge claim": (claim(0x7FFFFFF0), "claims 2147483632 bytes"),
    **{f"no {name}": (without(name), name) for name in ENTRIES},
    "metadata is no JSON": (content("metadata.json", b"{"), "metadata.json is damaged"),
    "metadata is a list": (content("metadata.json", b"[]"), "does not name the file's format"),
    "format is no number": (
        content("metadata.json", b'{"format": "1"}'), "does not name the file's format"
    ),
    "a later format": (
        content("metadata.json", b'{"format": 2, "fastconv": "9.1"}'),
        r"written by fastconv 9\.1 in format 2.*upgrade",
    ),
    "config is no JSON": (content("config.json", b"\xff\xfe"), "config.json is damaged"),
    "config is deep": (content("config.json", b"[" * 10**6), "config.json is damaged"),
    "config is a deep object": (
        content("config.json", b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "config.json"
    ),
    "config is a number": (content("config.json", b"1"), "does not describe a model"),
    "config is empty": (content("config.json", b"{}"), "does not describe a model"),
    "config is huge": (content("config.json", b" " * (2**26 + 1)), "at most 67108864 are read"),
    "an unknown class": (config_with(set_item("class", "Evil")), "not 'Evil'"),
    "a class that is a list": (config_with(set_item("class", [])), r"not \[\]"),
    "no graph": (config_with(set_item("graph", None)), "config.json does not have the form"),
    "a graph of strings": (config_with(set_item("graph", "abc")), "config.json does not have"),
    "an unknown layer": (
        config_with(lambda c: c["graph"]["layers"][1].update({"class": "Evil"})),
        "'conv2d' is a 'Evil', a class that is not known here",
    ),
    "an unknown argument": (
        config_with(lambda c: layer_of(c, "Conv2D").update(filter=3)), "argument of Conv2D"
    ),
    "a layer's config is a list": (
        config_with(lambda c: c["graph"]["layers"][1].update(config=[])), "does not have the form"
    ),
    "an absurd shape": (
        config_with(lambda c: layer_of(c, "Dense").update(units=2**60)), "2\\^48|elements"
    ),
    "more weights than the file has": (
        config_with(lambda c: layer_of(c, "Dense").update(units=10**9)), "'dense/kernel' has shape"
    ),
    "an endless window": (
        config_with(lambda c: layer_of(c, "Conv2D").update(kernel_size=[2**40, 2**40])), "conv2d"
    ),
    "an unknown activation": (
        config_with(lambda c: layer_of(c, "Conv2D").update(activation={"name": "__class__"})),
        "unknown activation",
    ),
    "nodes out of order": (
        config_with(lambda c: c["graph"]["nodes"][1].update(inputs=[5])), "names item 5"
    ),
    "a negative node": (
        config_with(lambda c: c["graph"]["nodes"][1].update(inputs=[-1])), "names item -1"
    ),
    "a node of no layer": (
        config_with(lambda c: c["graph"]["nodes"][1].update(layer=99)), "names item 99"
    ),
    "two layers of one name": (
        config_with(lambda c: layer_of(c, "Dense").update(name="conv2d")), "conv2d"
    ),
    "a layer name with a slash": (
        config_with(lambda c: layer_of(c, "Dense").update(name="../x")), "a layer's name"
    ),
    "an unknown optimizer": (
        config_with(lambda c: c["compile"].update(optimizer={"name": "evil"})), "unknown optimizer"
    ),
    "an unknown loss": (
        config_with(lambda c: c["compile"].update(loss=[{"name": "evil"}])), "unknown loss"
    ),
    "compile settings of another kind": (
        config_with(set_item("compile", [1])), "compile settings"
    ),
    "no compile settings": (config_with(set_item("compile", None)), "belong together"),
    "a tensor is missing": (tensors_with(lambda t: t.pop(FIRST)), f"parameter '{FIRST}'"),
    "a tensor too many": (
        tensors_with(set_item("evil", np.zeros(3, np.float32))), "holds 'evil'"
    ),
    "a tensor of another shape": (
        tensors_with(lambda t: t.update({FIRST: t[FIRST][..., :1]})), "has shape"
    ),
    "a tensor of another type": (
        tensors_with(lambda t: t.update({FIRST: t[FIRST].astype(np.int32)})), "as int32"
    ),
    "offsets outside": (
        header_with(lambda h: h[FIRST].update(data_offsets=[0, 2**40])), "model.safetensors"
    ),
    "offsets that overlap": (
        header_with(lambda h: h[FIRST].update(data_offsets=h["dense/bias"]["data_offsets"])),
        "model.safetensors",
    ),
    "an overflowing shape": (
        header_with(lambda h: h[FIRST].update(shape=[2**62, 2**62, 4, 4])), "model.safetensors"
    ),
    "a negative shape": (header_with(lambda h: h[FIRST].update(shape=[-1])), "model.safetensors"),
    "an unknown tensor type": (header_with(lambda h: h[FIRST].update(dtype="X9")), "safetensors"),
    "a type that numpy lacks": (
        lambda data: replaced(
            data, "model.safetensors",
            lambda _: tensor_file(
                {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"ab"
            ),
        ),
        "unknown type 'BF16'",
    ),
    "a header longer than the entry": (
        content("model.safetensors", struct.pack("<Q", 2**62) + b"{}"), "model.safetensors"
    ),
    "an empty tensor file": (content("model.safetensors", b""), "model.safetensors is damaged"),
    "optimizer state is missing": (
        tensors_with(lambda t: t.pop(f"{FIRST}/momentum"), "optimizer.safetensors"),
        f"lacks '{FIRST}/momentum'",
    ),
    "optimizer state too many": (
        tensors_with(set_item("evil/momentum", np.zeros(3, np.float32)), "optimizer.safetensors"),
        "holds 'evil/momentum'",
    ),
    "optimizer state of another shape": (
        tensors_with(
            set_item(f"{FIRST}/momentum", np.zeros(3, np.float32)), "optimizer.safetensors"
        ),
        r"of shape \(3,\)",
    ),
    "no count of updates": (
        tensors_with(lambda t: t.pop("iterations"), "optimizer.safetensors"), "how many updates"
    ),
    "a negative count of updates": (
        tensors_with(set_item("iterations", np.array(-1)), "optimizer.safetensors"),
        "how many updates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file(case, whole, tmp_path):
    change, words = HOSTILE[case]
    path = write(tmp_path / "evil.fastconv", change(whole[0]))
    with pytest.raises(ValueError, match=words) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice(whole, tmp_path):
    data = with_entries(("config.json", b"{}"))(whole[0])
    with pytest.raises(ValueError, match=r"'config\.json' is there twice"):
        load_model(write(tmp_path / "m", data))


def test_a_big_claim_takes_no_memory(whole, tmp_path):
    """A layer of 10⁹ × 36 weights in a file of a few kilobytes is refused before it is made."""
    import tracemalloc

    path = write(tmp_path / "m", HOSTILE["more weights than the file has"][0](whole[0]))
    tracemalloc.start()
    with pytest.raises(ValueError, match="has shape"):
        load_model(path)
    assert tracemalloc.get_traced_memory()[1] < 20 * len(whole[0]) + 2**20
    tracemalloc.stop()


def loads_equal_or_refuses(path, model):
    try:
        loaded = load_model(path)
    except (ValueError, OSError) as error:
        refused = error
    else:
        assert_same_values(model, loaded)
        return
    assert isinstance(refused, OSError) or str(path) in str(refused)


@settings(max_examples=200)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1,
                      max_size=4))  # fmt: skip
def test_flipped_bytes(flips, whole, tmp_path_factory):
    data = bytearray(whole[0])
    for place, bits in flips:
        data[int(place * len(data))] ^= bits
    path = tmp_path_factory.getbasetemp() / "flipped"
    loads_equal_or_refuses(write(path, bytes(data)), whole[1])


@settings(max_examples=200)
@given(place=st.integers(0, 400), bits=st.integers(1, 255))
@example(place=0, bits=255)
def test_flipped_bytes_of_the_directory(place, bits, whole, tmp_path_factory):
    """The last few hundred bytes, where names, sizes and offsets stand."""
    data = bytearray(whole[0])
    data[-1 - place] ^= bits
    path = tmp_path_factory.getbasetemp() / "directory"
    loads_equal_or_refuses(write(path, bytes(data)), whole[1])


@settings(max_examples=100)
@given(share=st.floats(0, 1, exclude_max=True), tail=st.binary(max_size=30))
def test_truncated(share, tail, whole, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "truncated"
    data = whole[0][: int(share * len(whole[0]))] + tail
    loads_equal_or_refuses(write(path, data), whole[1])


def test_layer_is_what_the_registry_holds():
    assert all(issubclass(cls, Layer) for cls in REGISTRY.values())
