"""The command line as a user meets it: processes, files, exit codes, one line for what is wrong."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from serving_tools import why_no_gpu

import fastconv
from fastconv import layers
from fastconv.cli import COMMANDS, main
from fastconv.model import Sequential

NAMES = ["cat", "dog", "owl"]


def fastconv_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fastconv", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip


def inside(*arguments):
    """The same in this process, which is a second quicker."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


def says(*arguments, run=fastconv_process):
    """What a command prints when all is well."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    remarks = done.stderr.splitlines(keepends=True)
    assert [line for line in remarks if "does not tell its inputs' range" not in line] == []
    return done.stdout


def complains(*arguments, run=inside):
    """The one line of a command that was given something wrong."""
    done = run(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("fastconv: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def brightness(name, channels, layout="NCHW", sizes=(8, 8), metadata=None, batch="batch"):
    """A network of one input whose two scores are the mean of channel 0 and one minus it."""
    spatial = [2, 3] if layout == "NCHW" else [1, 2]
    shape = [channels, *sizes] if layout == "NCHW" else [*sizes, channels]
    constants = {
        "zero": np.array(0), "weight": np.array([[1.0, -1.0]], "f"), "bias": np.array([0.0, 1], "f")
    }  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=spatial, keepdims=0),
        helper.make_node("Gather", ["m", "zero"], ["c"], axis=1),
        helper.make_node("Unsqueeze", ["c", "one"], ["u"]),
        helper.make_node("Gemm", ["u", "weight", "bias"], ["y"]),
    ]
    constants["one"] = np.array([1])
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="tests")
    helper.set_model_props(model, metadata or {})
    return model


@pytest.fixture
def network(tmp_path):
    """Write a brightness network; returns its path."""

    def make(channels=1, name="net.onnx", **options):
        path = tmp_path / name
        onnx.save(brightness("brightness", channels, **options), path)
        return path

    return make


def ours(low=0.0, high=1.0, **more):
    """Metadata as fastconv writes it."""
    inputs = {"x": {"shape": ["batch", 1, 8, 8], "range": [low, high]}}
    props = {"output": "probabilities", "inputs": inputs, **more}
    return {
        f"fastconv.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in props.items()
    }


# ---- all commands ----


def test_version():
    assert says("--version") == f"fastconv {fastconv.__version__}\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_examples(command):
    text = says(*command, "--help")
    assert f"examples:\n  fastconv {' '.join(command)}" in text


def test_help_is_light():
    program = "import sys, fastconv.cli; fastconv.cli.main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    heavy = {"numpy", "onnx", "onnxruntime", "matplotlib", "PIL", "fastconv.model"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["evil"], "invalid choice: 'evil'"),
        (["info", "a", "b"], "unrecognized arguments: b"),
        (["info", "--loud"], "unrecognized arguments: --loud"),
        (["predict", "net.onnx"], "INPUT"),
        (["predict", "net.onnx", "a.png", "--top", "0"], "not a whole number from 1 on"),
        (["predict", "net.onnx", "a.png", "--json", "--csv"], "not allowed with"),
        (["demo", "--epochs", "-1"], "not a whole number from 1 on"),
        (["demo", "--data", "nowhere"], "nowhere"),
        (["demo", "--seed", "-1"], "seed"),
        (["info", "nowhere"], "nowhere: No such file or directory"),
        (["info", "."], ".: Is a directory"),
        (["predict", "nowhere.onnx", "a.png"], "nowhere.onnx: No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in complains(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_one_line_of_a_process(tmp_path):
    assert "nowhere: No such file" in complains("info", tmp_path / "nowhere", run=fastconv_process)


def test_debugging_shows_the_traceback(tmp_path):
    done = fastconv_process("info", tmp_path / "nowhere", FASTCONV_DEBUG="1")
    assert "Traceback" in done.stderr


def test_a_terminal_of_another_encoding(network):
    path = network(metadata=ours(class_names=["schwarz", "weiß"]))
    assert "schwarz, wei?" in fastconv_process("info", path, PYTHONIOENCODING="ascii").stdout


def test_a_reader_that_leaves():
    head = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    head.wait()
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "info"], stdout=head.stdin, stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (141, b"")


def test_interrupted(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "fastconv", "demo", "--epochs", "100000", "--threads", "1",
         "--out", tmp_path / "out"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell's background jobs ignore the signal, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("Epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "fastconv: interrupted\n"
    assert list((tmp_path / "out").iterdir()) == []


# ---- info ----


def test_info_of_the_build():
    text = says("info")
    for word in ("fastconv", "isa", "threads", "compiler", "numpy"):
        assert f"\n{word} " in f"\n{text}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A saved model and its export."""
    folder = tmp_path_factory.mktemp("trained")
    model = Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 16),
            layers.Conv2D(4, 3, activation="relu", name="first"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (32, 8, 8, 1), np.uint8)
    model.fit(x, rng.integers(0, 3, 32), verbose=0)
    model.save(folder / "m.fastconv")
    model.export(folder / "m.onnx", class_names=NAMES, input_range=(0, 16))
    return model, x, folder


def test_info_of_a_model(trained):
    text = says("info", trained[2] / "m.fastconv")
    for words in (
        "first (Conv2D)", "Parameters: 475", "adam(learning_rate=0.001",
        "sparse_categorical_crossentropy(", "metrics    accuracy", "updates    1",
    ):  # fmt: skip
        assert words in text


def test_info_of_a_model_that_was_not_compiled(tmp_path):
    Sequential([layers.Input((4,)), layers.Dense(2)]).save(tmp_path / "m")
    assert "Not compiled" in says("info", tmp_path / "m")


def test_info_of_an_export(trained):
    text = says("info", trained[2] / "m.onnx")
    for words in (f"fastconv {fastconv.__version__}", "17 (IR version 8)", "(batch, 1, 8, 8)",
                  "(batch, 3)", "Conv", "476 (", "3 classes", "cat, dog, owl", "0 to 16", "NCHW",
                  "tolerance", "sha256"):  # fmt: skip
        assert words in text


def test_info_of_a_foreign_onnx_file(network):
    path = network(metadata={"author": "someone\nelse"})
    text = says("info", path)
    assert "ReduceMean, Gather, Unsqueeze, Gemm" in text
    assert "4 (16 bytes)" in text  # the integers are no parameters
    assert "author  someone else" in text


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4", b"\x08\x08", os.urandom(64)])
def test_info_of_something_else(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert str(path) in complains("info", path)


def test_info_of_damaged_metadata(network):
    path = network(metadata={"fastconv.inputs": "[" * 100000})
    assert "damaged metadata" in complains("info", path)
    path = network(metadata={"fastconv.inputs": "[1, 2]"})
    assert "damaged metadata" in complains("info", path)


# ---- predict ----


def predictions(*arguments):
    return json.loads(says("predict", *arguments, "--json", run=inside))


def save_png(path, pixels, mode=None):
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(path)
    return path


def score(result, index=0):
    return next(
        p.get("probability", p.get("score")) for p in result["predictions"] if p["index"] == index
    )


def test_predict_agrees_with_the_model(trained, tmp_path):
    model, x, folder = trained
    np.save(tmp_path / "x.npy", x.transpose(0, 3, 1, 2))
    results = predictions(folder / "m.onnx", tmp_path / "x.npy")
    assert [r["input"] for r in results[:2]] == [f"{tmp_path}/x.npy[0]", f"{tmp_path}/x.npy[1]"]
    expected = model.predict(x)
    for result, row in zip(results, expected, strict=True):
        order = np.argsort(-row)
        assert [p["index"] for p in result["predictions"]] == order.tolist()
        assert [p["class"] for p in result["predictions"]] == [NAMES[i] for i in order]
        values = [p["probability"] for p in result["predictions"]]
        np.testing.assert_allclose(values, row[order], rtol=0, atol=1e-5)


def test_an_image_is_scaled_to_the_range_of_the_training(trained, tmp_path):
    model, _, folder = trained
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8))
    path = save_png(tmp_path / "a.png", pixels)
    (result,) = predictions(folder / "m.onnx", path)
    row = model.predict((pixels * (16 / 255)).astype("f")[None, ..., None])[0]
    np.testing.assert_allclose([score(result, i) for i in range(3)], row, atol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_and_layout(network, tmp_path, layout, channels):
    path = network(channels, layout=layout, sizes=(8, 6), metadata={"fastconv.layout": layout})
    pixels = np.zeros((8, 6, 3), np.uint8)
    pixels[..., 0] = 51  # a dark red
    (result,) = predictions(path, save_png(tmp_path / "a.png", pixels))
    # grey by ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert score(result) == pytest.approx(round(0.299 * 51) / 255 if channels == 1 else 0.2)


def test_size_range_inversion(network, tmp_path):
    path = network(metadata=ours(-1, 1))
    image = save_png(tmp_path / "a.png", np.full((40, 30), 255))
    assert score(predictions(path, image)[0]) == pytest.approx(1)
    assert score(predictions(path, image, "--invert")[0]) == pytest.approx(-1)
    assert score(predictions(path, image, "--range", 0, 5)[0]) == pytest.approx(5)


def test_kinds_of_images(network, tmp_path):
    path = network()
    sixteen = tmp_path / "sixteen.png"
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(sixteen)
    assert score(predictions(path, sixteen)[0]) == pytest.approx(0.5, abs=1e-4)
    clear = np.zeros((8, 8, 4))  # nothing drawn: seen as white
    assert score(predictions(path, save_png(tmp_path / "clear.png", clear))[0]) == 1
    bits = tmp_path / "bits.png"
    Image.fromarray(np.eye(8, dtype=bool)).save(bits)
    assert score(predictions(path, bits)[0]) == pytest.approx(1 / 8)
    palette = tmp_path / "palette.gif"
    Image.fromarray(np.full((8, 8), 51, np.uint8)).convert("P").save(palette)
    assert score(predictions(path, palette)[0]) == pytest.approx(0.2)


def test_turned_photographs(network, tmp_path):
    path = network(sizes=(2, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90°
    Image.fromarray(np.full((4, 2), 255, np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert score(predictions(path, tmp_path / "a.png")[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    "shape", [(5, 1, 8, 8), (1, 8, 8), (8, 8), (5, 8, 8)], ids=["batch", "one", "plain", "planes"]
)
@pytest.mark.parametrize("dtype", ["float32", ">f8", "uint8", "bool"])
def test_shapes_of_arrays(network, tmp_path, shape, dtype):
    x = np.asfortranarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    results = predictions(network(), tmp_path / "x.npy")
    means = x.astype(float).reshape(-1, 64).mean(1)
    assert [score(r) for r in results] == pytest.approx(means.tolist())


def test_a_fixed_batch_size(network, tmp_path):
    x = np.random.default_rng(0).random((7, 1, 8, 8)).astype("f")
    np.save(tmp_path / "x.npy", x)
    for batch in (1, 3):
        results = predictions(network(batch=batch), tmp_path / "x.npy")
        assert [score(r) for r in results] == pytest.approx(x.mean((1, 2, 3)).tolist())


def test_an_unknown_range_is_remarked(network, tmp_path):
    path, image = network(), tmp_path / "a.png"
    Image.new("L", (8, 8), 128).save(image)
    assert "0 to 1 is taken; see --range" in fastconv_process("predict", path, image).stderr
    assert fastconv_process("predict", path, image, "--range", 0, 1).stderr == ""


def test_values_of_another_range_are_remarked(network, tmp_path):
    np.save(tmp_path / "x.npy", np.full((8, 8), 200.0))
    done = fastconv_process("predict", network(metadata=ours()), tmp_path / "x.npy")
    assert done.returncode == 0
    assert "x.npy: holds values from 200 to 200, the network takes 0 to 1" in done.stderr


def test_table_csv_and_json(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = network(metadata=ours(class_names=["bright", "dark, black"]))
    np.save(tmp_path / "x.npy", np.stack([np.full((8, 8), 0.25), np.ones((8, 8))]).astype("f"))
    arguments = ["predict", path, "x.npy"]
    assert says(*arguments).splitlines() == [
        "input     best                  2nd",
        "x.npy[0]  dark, black   75.0 %  bright       25.0 %",
        "x.npy[1]  bright       100.0 %  dark, black   0.0 %",
    ]
    rows = list(csv.reader(io.StringIO(says(*arguments, "--csv", "--top", 1))))
    assert rows == [["input", "class_1", "probability_1"], ["x.npy[0]", "dark, black", "0.75"],
                    ["x.npy[1]", "bright", "1.0"]]  # fmt: skip
    results = json.loads(says(*arguments, "--json"))
    assert results[0] == {
        "input": "x.npy[0]",
        "predictions": [
            {"class": "dark, black", "index": 1, "probability": 0.75},
            {"class": "bright", "index": 0, "probability": 0.25},
        ],
    }
    assert says(*arguments, "--csv", "--top", 1, "--out", "o.csv") == ""
    assert list(csv.reader((tmp_path / "o.csv").open())) == rows


def test_scores_that_are_no_probabilities(network, tmp_path):
    np.save(tmp_path / "x.npy", np.full((8, 8), 3.0))
    text = says("predict", network(), tmp_path / "x.npy", "--csv")
    assert text.splitlines()[0] == "input,class_1,score_1,class_2,score_2"
    assert ",0,3.0,1,-2.0" in text


def test_outputs_that_are_no_scores(tmp_path):
    x, y, z = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 2, 2]) for name in "xyz"
    )
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])]
    graph = helper.make_graph(nodes, "two", [x], [y, z])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "two.onnx")
    np.save(tmp_path / "x.npy", np.arange(4.0).reshape(1, 1, 2, 2))
    arguments = ["predict", tmp_path / "two.onnx", tmp_path / "x.npy"]
    assert "outputs y, z; choose one with --output" in complains(*arguments)
    assert "no output 'a' (there are: y, z)" in complains(*arguments, "--output", "a")
    assert "--json" in complains(*arguments, "--output", "z")
    (result,) = predictions(*arguments[1:], "--output", "z")
    assert result["output"] == [[[0, 1], [2, 3]]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", np.zeros((3, 5)), "has the shape (3, 5); .* takes samples of (1, 8, 8)"),
        ("a.npy", np.zeros((0, 1, 8, 8)), "a.npy"),
        ("a.npy", np.zeros((8, 8), complex), "holds complex128"),
        ("a.npy", np.zeros((8, 8), "U3"), "holds <U3"),
        ("a.npy", np.full((8, 8), None), "objects"),
        ("a.npy", np.full((8, 8), np.nan), "NaN"),
        ("a.png", b"", "neither a .npy file nor an image"),
        ("a.png", b"hello", "neither a .npy file nor an image"),
        ("a.npy", b"\x93NUMPY", "a.npy"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'a'}  ", "a.npy"),
    ],
)
def test_inputs_that_do_not_fit(network, tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    line = complains("predict", network(), path)
    assert name in line
    for part in words.split(".*"):
        assert part in line


def test_damaged_inputs(network, tmp_path):
    whole = save_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64)))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:1500])
    assert "cut.png: damaged image" in complains("predict", network(), tmp_path / "cut.png")
    np.save(tmp_path / "cut.npy", np.zeros((8, 8)))
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-1])
    assert "cut.npy" in complains("predict", network(), tmp_path / "cut.npy")
    huge = content.replace(b"(8, 8), }" + b" " * 9, b"(8, 9999999999), }")
    assert huge != content
    (tmp_path / "huge.npy").write_bytes(huge)
    assert "huge.npy" in complains("predict", network(), tmp_path / "huge.npy")


def test_networks_that_do_not_serve(network, tmp_path):
    image = save_png(tmp_path / "a.png", np.zeros((8, 8)))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    assert "bad.onnx: not a usable ONNX file" in complains("predict", tmp_path / "bad.onnx", image)
    path = network(5)
    assert "does not take images: its input is (5, 8, 8)" in complains("predict", path, image)
    path = network(metadata=ours(class_names=["one"]))
    assert "names 1 classes, its output has 2 scores" in complains("predict", path, image)
    for damage in ({"fastconv.class_names": "{"}, {"fastconv.inputs": "[]"}):
        assert "damaged metadata" in complains("predict", network(metadata=damage), image)


@pytest.mark.skipif(why_no_gpu() is None, reason="there is a GPU here")
def test_a_device_that_is_missing(network, tmp_path):
    arguments = ["predict", network(), save_png(tmp_path / "a.png", np.zeros((8, 8)))]
    assert why_no_gpu() in complains(*arguments, "--device", "cuda", run=fastconv_process)
    done = fastconv_process(*arguments, "--device", "cuda", "--allow-cpu", "--range", 0, 1)
    assert done.returncode == 0
    assert "runs on the CPU, not on cuda" in done.stderr


def test_nothing_is_written_when_an_input_is_bad(network, tmp_path):
    good = save_png(tmp_path / "a.png", np.zeros((8, 8)))
    (tmp_path / "bad.png").write_bytes(b"")
    out = tmp_path / "out.csv"
    complains(
        "predict", network(metadata=ours()), good, tmp_path / "bad.png", "--csv", "--out", out
    )
    assert not out.exists()
    assert "nowhere" in complains(
        "predict", network(metadata=ours()), good, "--out", tmp_path / "nowhere" / "o"
    )


@pytest.mark.parametrize("module", ["onnxruntime", "PIL"])
def test_a_missing_extra_is_named(module, network, tmp_path):
    image = save_png(tmp_path / "a.png", np.zeros((8, 8)))
    program = f"import sys; sys.modules[{module!r}] = None; from fastconv.cli import main; "
    program += f"sys.exit(main(['predict', {str(network())!r}, {str(image)!r}]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'fastconv[" in done.stderr
    assert done.stderr.count("\n") == 1


def test_starting_is_quick():
    fastconv_process("--version")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        fastconv_process("--version")
        times.append(time.perf_counter() - start)
    assert min(times) < 1
