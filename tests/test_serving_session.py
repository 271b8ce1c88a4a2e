"""The session: strict about its device, proved, quick, and clear when something is wrong."""

import json
import logging
import os
import pickle
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from cases import CASES
from PIL import Image
from serving_tools import (
    NAMES,
    edited,
    fake_driver,
    process,
    scale_weights,
    shared_library,
    small_network,
    two_inputs,
    why_no_gpu,
)
from test_onnx import case_model

from fastconv import cpus, layers
from fastconv.model import Sequential
from fastconv.serving import Session, SessionError, proof, runtime, tiny
from fastconv.serving.contract import Contract
from fastconv.serving.graphs import PLAIN, Graphs
from fastconv.serving.images import image_sample

NO_GPU = why_no_gpu()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]
without_gpu = pytest.mark.skipif(NO_GPU is None, reason="there is a GPU here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def model():
    return small_network()


@pytest.fixture(scope="module")
def path(folder, model):
    model.export(folder / "small.onnx", class_names=NAMES)
    return folder / "small.onnx"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 1, 12, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def session(path):
    return Session(path, "cpu")


# ---- what it tells ----


def test_what_a_session_tells(session, path):
    assert (session.path, session.name) == (str(path), "small")
    assert (session.device, session.provider) == ("cpu", "CPUExecutionProvider")
    assert (session.why, session.fallback) == ("as asked", None)
    (x,), (y,) = session.inputs, session.outputs
    assert (x.dtype, x.shape) == (np.float32, (None, 1, 12, 10))
    assert (y.dtype, y.shape) == (np.float32, (None, 3))
    assert session.labels == NAMES
    assert session.metadata["layout"] == "NCHW"
    assert session.metadata["inputs"][x.name]["range"] == [0, 255]
    assert repr(session) == f"Session({str(path)!r}, device='cpu')"


def test_it_was_proved(session):
    found = session.proof
    assert found.ok
    assert found.samples == 4
    assert 0 <= found.difference <= found.tolerance
    assert str(found).startswith("proved: 4 samples on CPUExecutionProvider")


@pytest.mark.parametrize(
    "code", ["import fastconv.serving", "from fastconv.serving import Session"]
)
def test_it_loads_neither_the_training_code_nor_onnx(code):
    done = process(f"{code}; import sys; print(*sys.modules)")
    loaded = set(done.stdout.split())
    training = {"fastconv.model", "fastconv.layers", "fastconv.graph", "fastconv.layer"}
    assert not loaded & ({"onnx", "fastconv._native.dispatch"} | training)
    assert ("numpy" in loaded) == ("Session" in code)


# ---- running ----


def test_it_gives_what_the_trainer_gives(session, model, images):
    expected = model.predict(images.transpose(0, 2, 3, 1))
    (y,) = session.run({session.inputs[0].name: images})
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_array_equal(session.predict(images), y)


def test_predict_takes_what_people_have(session, images):
    y = session.predict(images)
    np.testing.assert_allclose(session.predict(images, batch_size=2), y, atol=1e-6)
    np.testing.assert_array_equal(session.predict(images.astype(np.uint8)), y)
    np.testing.assert_array_equal(session.predict(images.astype(">f8")), y)
    np.testing.assert_array_equal(session.predict(images.tolist()), y)
    one = session.predict(images[0])
    assert one.shape == (1, 3)
    np.testing.assert_allclose(one, y[:1], atol=1e-6)
    name = session.inputs[0].name
    np.testing.assert_array_equal(session.predict({name: images}), y)
    assert session.predict(images[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((5, 12, 10, 1)), r"'\w+' is float32 \(5, 12, 10, 1\), an array of float32 "
                                   r"\(\*, 1, 12, 10\) is expected"),
        (np.zeros(3), r"float32 \(3,\)"),
        (np.zeros((1, 1, 12, 10), complex), "complex128"),
        ({"z": np.zeros(3)}, "no input 'z' .there are: "),
        ({}, "no input '"),
        ("text", "<U4"),
    ],
)  # fmt: skip
def test_predict_names_what_does_not_fit(session, x, words):
    with pytest.raises(ValueError, match=words):
        session.predict(x)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "no input 'input_layer"),
        ({"z": np.zeros(1, "f")}, "no input 'z' .there are: input_layer"),
        (np.zeros((1, 1, 12, 10)), "float64"),
        (np.zeros((1, 1, 12, 10), ">f4"), ">f4"),
        (np.zeros((1, 12, 10, 1), "f"), r"\(1, 12, 10, 1\)"),
        (np.zeros((12, 10), "f"), r"\(12, 10\)"),
        ([[0.0]], "a list"),
    ],
)
def test_run_is_exact_about_its_feeds(session, feeds, words):
    if not isinstance(feeds, dict):
        feeds = {session.inputs[0].name: feeds}
    with pytest.raises(ValueError, match=words):
        session.run(feeds)


def test_outputs_by_name(folder):
    two_inputs().export(folder / "two.onnx")
    session = Session(folder / "two.onnx", "cpu")
    assert session.proof.ok
    a, b = np.ones((3, 4), "f"), np.ones((3, 6), "f")
    u, v = session.run({"b": b, "a": a})
    names = [info.name for info in session.outputs]
    np.testing.assert_array_equal(session.run({"a": a, "b": b}, [names[1]])[0], v)
    np.testing.assert_array_equal(session.predict({"a": a, "b": b})[0], u)
    with pytest.raises(ValueError, match=r"no output 'w' \(there are: "):
        session.run({"a": a, "b": b}, ["w"])
    with pytest.raises(ValueError, match="has 2 inputs; give a dict of a, b"):
        session.predict(a)
    with pytest.raises(ValueError, match="no input 'b'"):
        session.predict({"a": a})
    with pytest.raises(ValueError, match="different lengths"):
        session.predict({"a": a, "b": b[:2]})


@pytest.fixture(scope="module")
def free(folder):
    model = Sequential([layers.Input((None, None, 1)), layers.Conv2D(2, 3)], name="free")
    model.export(folder / "free.onnx")
    return Session(folder / "free.onnx", "cpu")


def test_sizes_that_a_file_leaves_free(free):
    assert free.inputs[0].shape == (None, 1, None, None)
    assert free.predict(np.zeros((2, 1, 7, 5))).shape == (2, 2, 5, 3)
    with pytest.raises(ValueError, match=r"free cannot be run with input_layer\w* \(2, 1, 2, 5\)"):
        free.predict(np.zeros((2, 1, 2, 5)))


def test_places_beyond_a_table_are_the_callers_fault(folder):
    helper, kinds = onnx.helper, onnx.TensorProto
    table = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", kinds.INT64, ["n"])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["n", 3])],
        [table],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "table.onnx")
    with Session(folder / "table.onnx", "cpu") as session:
        np.testing.assert_array_equal(session.run({"x": np.array([2])})[0], [[0, 0, 1]])
        with pytest.raises(ValueError, match="table cannot be run with x"):
            session.run({"x": np.array([7])})


def test_an_image_of_bytes_keeps_its_bytes(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    for dtype in ("uint8", "int32", "float32"):
        wanted = Contract(
            "x.onnx", "x", "y", (1, 16, 16), np.dtype(dtype), "NCHW", (0, 255), None, False
        )
        found = image_sample(tmp_path / "grey.png", wanted)
        assert found.dtype == dtype
        np.testing.assert_allclose(found[0, 0], pixels, rtol=0 if dtype != "float32" else 1e-6)


def test_a_fixed_batch_size(folder, path, session, images):
    def fix(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        del model.metadata_props[:]

    fixed = Session(edited(path, folder / "fixed.onnx", fix), "cpu")
    assert fixed.inputs[0].shape[0] == 2
    np.testing.assert_allclose(fixed.predict(images), session.predict(images), atol=1e-6)
    with pytest.raises(ValueError, match=r"\(2, 1, 12, 10\) is expected"):
        fixed.run({fixed.inputs[0].name: images})


def test_threads_run_it_together(session, images):
    wanted, wrong = [session.predict(x) for x in images], []

    def ask(i):
        for _ in range(50):
            if not np.array_equal(session.predict(images[i]), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_close(path):
    with Session(path, "cpu") as session:
        pass
    with pytest.raises(SessionError, match="closed"):
        session.predict(np.zeros((1, 12, 10)))


def test_processors_of_the_container_are_respected(path, monkeypatch):
    monkeypatch.setattr(cpus, "default_num_threads", lambda: (1, "the quota"))
    session = Session(path, "cpu")
    assert session.threads == 1
    assert session._session.get_session_options().intra_op_num_threads == 1
    assert Session(path, "cpu", threads=2)._session.get_session_options().intra_op_num_threads == 2
    with pytest.raises(ValueError, match="threads is an integer from 1 on, not 0"):
        Session(path, "cpu", threads=0)


# ---- before it serves ----


def test_warm_up_and_latency(session):
    session.warm_up([1, 3])
    found = session.latency([1, 4], repeats=5)
    assert set(found.milliseconds) == {1, 4}
    assert 0 < found.milliseconds[1][50] <= found.milliseconds[1][99]
    lines = repr(found).splitlines()
    assert lines[0] == "small on CPUExecutionProvider, 5 runs each, milliseconds"
    assert [line.split()[0] for line in lines[1:]] == ["batch", "1", "4"]


def test_example_follows_the_samples(session):
    (x,) = session.example(6).values()
    assert x.shape == (6, 1, 12, 10)
    np.testing.assert_array_equal(x[4], x[0])
    assert len(np.unique(x)) > 100


def test_weights_that_were_changed_do_not_pass(folder, path):
    broken = edited(path, folder / "broken.onnx", lambda model: scale_weights(model, 1.01))
    with pytest.raises(
        SessionError, match=r"failed its proof: CPUExecutionProvider gives an output"
    ):
        Session(broken, "cpu")
    session = Session(broken, "cpu", prove=False)
    assert session.proof is None
    found = session.prove()
    assert found is session.proof
    assert not found.ok
    assert found.difference > found.tolerance
    assert "of its scale away from the trainer's" in str(found)


def test_nan_does_not_pass(folder, path):
    broken = edited(path, folder / "nan.onnx", lambda model: scale_weights(model, np.nan))
    assert not Session(broken, "cpu", prove=False).prove().ok


def test_a_file_of_others_cannot_be_proved_and_serves(folder):
    (folder / "foreign.onnx").write_bytes(tiny.network())
    session = Session(folder / "foreign.onnx", "cpu")
    assert (session.metadata, session.labels) == ({}, None)
    assert session.proof.ok
    assert session.proof.samples == 0
    assert str(session.proof).startswith("not proved: the file carries no samples")
    assert session.latency([2], repeats=2).milliseconds
    assert session.predict(np.ones((1, 8, 8))).sum() == pytest.approx(1)


def test_samples_made_from_a_seed_and_summaries(folder):
    model = Sequential(
        [layers.Input((96, 96, 3)), layers.Conv2D(3, 3, padding="same")], name="large"
    )
    model.export(folder / "large.onnx")
    session = Session(folder / "large.onnx", "cpu")
    samples = session.metadata["samples"]
    assert "generator" in next(iter(samples["inputs"].values()))
    assert "places" in next(iter(samples["outputs"].values()))
    assert session.proof.ok
    broken = edited(
        folder / "large.onnx", folder / "b.onnx", lambda model: scale_weights(model, 1.001)
    )
    assert not Session(broken, "cpu", prove=False).prove().ok


def with_metadata(**changes):
    def edit(model):
        for entry in model.metadata_props:
            key = entry.key.removeprefix("fastconv.")
            if key in changes:
                entry.value = changes[key](entry.value)

    return edit


def samples_without(key):
    def change(text):
        data = json.loads(text)
        del data[key]
        return json.dumps(data)

    return change


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (with_metadata(class_names=lambda text: "{"), "damaged metadata"),
        (with_metadata(samples=lambda text: "[[[["), "damaged metadata"),
        (with_metadata(samples=samples_without("tolerance")), "damaged samples"),
        (with_metadata(samples=samples_without("inputs")), "damaged samples"),
        (with_metadata(samples=lambda text: text.replace('"data": "', '"data": "*')), "damaged sa"),
        (with_metadata(samples=lambda text: text.replace('"count": 4', '"count": "x"')), "damaged"),
    ],
)
def test_damaged_metadata(folder, path, edit, words):
    damaged = edited(path, folder / "damaged.onnx", edit)
    with pytest.raises(SessionError, match=words) as caught:
        Session(damaged, "cpu")
    assert caught.value.mend == "export it again"


def test_tf32_has_a_tolerance_of_its_own(path):
    session = Session(path, "cpu", tf32=True)  # without effect on a CPU but for the tolerance
    assert session.proof.tolerance == proof.TF32_TOLERANCE


# ---- what is in the way ----


def test_the_error_has_a_reason_and_a_mend():
    error = SessionError("no room", "make some")
    assert (str(error), error.reason, error.mend) == ("no room; make some", "no room", "make some")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.mend) == ("no room", "make some")


def test_files_that_are_none(folder, path):
    with pytest.raises(FileNotFoundError):
        Session(folder / "nowhere.onnx")
    (folder / "text.onnx").write_text("no network")
    with pytest.raises(SessionError, match=r"text\.onnx: not a usable ONNX file"):
        Session(folder / "text.onnx", "cpu")
    with pytest.raises(ValueError, match="device is one of auto, cpu, cuda, tensorrt, not 'gpu'"):
        Session(path, "gpu")
    with pytest.raises(ValueError, match="not TensorRT's"):
        Session(path, "tensorrt", cuda_graphs=[1])


@pytest.mark.parametrize(
    ("opset", "ir", "words"),
    [(99, 8, "is written in opset 99, onnxruntime .* takes at most"),
     (17, 99, "has IR version 99, onnxruntime .* takes at most")],
)  # fmt: skip
def test_a_file_that_is_too_new(folder, opset, ir, words):
    (folder / "new.onnx").write_bytes(tiny.relu(opset, ir))
    with pytest.raises(SessionError, match=words) as caught:
        Session(folder / "new.onnx", "cpu")
    assert "opset=" in caught.value.mend
    assert "pip install -U onnxruntime" in caught.value.mend


@without_gpu
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_no_gpu_is_an_error_within_seconds(path, device):
    start = time.monotonic()
    with pytest.raises(SessionError) as caught:
        Session(path, device)
    assert time.monotonic() - start < 10
    assert caught.value.reason
    assert caught.value.mend


@without_gpu
def test_the_cpu_only_where_it_is_allowed(path, caplog):
    with caplog.at_level(logging.INFO, "fastconv.serving"):
        session = Session(path, "cuda", allow_cpu=True)
    assert session.device == "cpu"
    assert session.fallback == session.why
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "runs on the CPU, not on cuda" in record.getMessage()
    assert session.proof.ok


@without_gpu
def test_auto_says_what_it_chose(path):
    session = Session(path)
    assert (session.device, session.fallback) == ("cpu", None)
    assert session.why == NO_GPU.split(";")[0]


OPEN = """
from fastconv.serving import Session, SessionError
try:
    print(Session({path!r}, {device!r}).device)
except SessionError as error:
    print(error.reason, error.mend, sep="|")
"""


@without_gpu
@pytest.mark.parametrize(
    ("driver", "environment", "reason", "mend"),
    [
        ({"init": 100}, {}, "shows no GPU", "nvidia-smi"),
        ({"count": 0}, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES='7' hides", "unset"),
        ({"init": 999}, {}, "does not start .*999", "nvidia-smi"),
        ({"count": 0}, {}, "shows no GPU", "nvidia-smi"),
    ],
)
def test_a_driver_without_a_gpu(tmp_path, path, driver, environment, reason, mend):
    folder = fake_driver(tmp_path, **driver)
    code = OPEN.format(path=str(path), device="cuda")
    done = process(code, LD_LIBRARY_PATH=str(folder), **environment)
    assert done.returncode == 0, done.stderr
    found, help_ = done.stdout.strip().split("|")
    assert re.search(reason, found)
    assert mend in help_


@without_gpu
def test_a_gpu_and_the_package_for_the_cpu(tmp_path, path):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed here")
    folder = str(fake_driver(tmp_path))
    done = process(OPEN.format(path=str(path), device="cuda"), LD_LIBRARY_PATH=folder)
    assert "is the package without CUDAExecutionProvider" in done.stdout
    assert "pip uninstall -y onnxruntime && pip install 'fastconv[gpu]'" in done.stdout
    done = process(OPEN.format(path=str(path), device="auto"), LD_LIBRARY_PATH=folder)
    assert done.stdout == "cpu\n"
    assert "runs on the CPU" in done.stderr  # a GPU that lies idle is worth a warning


def test_a_library_that_is_missing(tmp_path):
    """A provider whose library needs one that has gone, and one that lacks nothing."""
    (tmp_path / "capi").mkdir()
    needed = shared_library(tmp_path / "libcudnn_of_the_tests.so", "int f(void) { return 1; }")
    provider = tmp_path / "capi" / "libonnxruntime_providers_cuda.so"
    shared_library(provider, "int g(void) { return 2; }", needed)
    needed.unlink()
    module = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    with pytest.raises(
        SessionError, match=r"cuda is missing: .*libcudnn_of_the_tests\.so"
    ) as caught:
        runtime.require_libraries(module, "cuda")
    assert caught.value.mend == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    provider.unlink()
    # as it is with onnxruntime's: it lacks a symbol that onnxruntime itself gives
    shared_library(provider, "int given_later(void); int g(void) { return given_later(); }")
    runtime.require_libraries(module, "cuda")


def test_both_packages_are_an_error(tmp_path, path):
    for name in runtime.PACKAGES:
        folder = tmp_path / f"{name.replace('-', '_')}-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n")
    done = process(OPEN.format(path=str(path), device="cpu"), path=tmp_path)
    assert done.stdout.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install" in done.stdout


def test_no_runtime(path):
    code = "import sys; sys.modules['onnxruntime'] = None\n" + OPEN
    done = process(code.format(path=str(path), device="cpu"))
    assert done.stdout == "onnxruntime is not installed|pip install 'fastconv[runtime]'\n"


def test_a_runtime_that_is_broken(tmp_path, path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so: not found\\nmore')")
    done = process(OPEN.format(path=str(path), device="cpu"), path=tmp_path)
    assert "is installed and cannot be imported: libfoo.so: not found|" in done.stdout
    assert "--force-reinstall" in done.stdout


# ---- how the runtime is asked, with a runtime that only listens ----


class Listener:
    """onnxruntime as far as `runtime.create` speaks to it."""

    __version__ = "1.99.0"
    __file__ = "/nowhere/__init__.py"

    def __init__(self, gives, error=None):
        self.asked, self.config, self.gives, self.error = {}, {}, gives, error

    def SessionOptions(self):
        return SimpleNamespace(add_session_config_entry=self.config.__setitem__)

    def InferenceSession(self, path, options, **asked):
        self.asked = asked
        if self.error:
            raise self.error
        return SimpleNamespace(get_providers=lambda: self.gives)


def test_the_gpu_alone_and_no_fallback():
    listener = Listener([runtime.CUDA, runtime.CPU])
    runtime.create(listener, "a.onnx", runtime.providers("cuda"), 1)
    ((name, options),) = listener.asked["providers"]
    assert name == "CUDAExecutionProvider"
    assert options["use_tf32"] == "0"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["enable_cuda_graph"] == "0"
    assert listener.config == {"session.disable_cpu_ep_fallback": "1"}
    assert listener.asked["enable_fallback"] == 0


def test_what_the_runtime_chose_is_checked():
    with pytest.raises(SessionError, match="chose CPUExecutionProvider in place of CUDA"):
        runtime.create(Listener([runtime.CPU]), "a.onnx", runtime.providers("cuda"), 1)


def test_an_operator_that_the_gpu_does_not_take():
    error = RuntimeError("... but fallback to CPU EP has been explicitly disabled by the user.")
    with pytest.raises(SessionError, match="does not take every operator") as caught:
        runtime.create(Listener([], error), "a.onnx", runtime.providers("cuda"), 1)
    assert "allow_cpu=True" in caught.value.mend


def test_options_of_the_providers(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    ((_, cuda),) = runtime.providers(
        "cuda", tf32=True, memory_limit=2**30, prefer_nhwc=True, cuda_graphs=True
    )
    assert cuda["use_tf32"] == cuda["prefer_nhwc"] == cuda["enable_cuda_graph"] == "1"
    assert cuda["gpu_mem_limit"] == str(2**30)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    names = [name for name, _ in runtime.providers("tensorrt")]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    assert runtime.providers("cpu", tf32=True) == [("CPUExecutionProvider", {})]


# ---- CUDA graphs: bindings and buffers, tried on the CPU's own memory ----


def test_graphs_give_what_plain_runs_give(session, images):
    name, out = session.inputs[0].name, session.outputs[0].name
    graphs = Graphs(onnxruntime, session._session, (1, 2), "cpu")
    kept = []
    for rows in ([0], [1], [0, 1], [2, 3], [0, 1, 2], [4], [3, 2]):
        x = np.asfortranarray(images[rows])
        (y,) = graphs.run([out], {name: x})
        kept.append((y, session.run({name: images[rows]})[0]))
    for y, wanted in kept:  # a later run does not write into an earlier answer
        np.testing.assert_allclose(y, wanted, atol=1e-6)


class GraphSession:
    """Notes which graph each run was asked for."""

    def __init__(self, session):
        self.session, self.ids = session, []

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, names, feeds, options):
        self.ids.append(int(options.get_run_config_entry("gpu_graph_id")))
        return self.session.run(names, feeds, options)

    def run_with_iobinding(self, binding, options):
        self.ids.append(int(options.get_run_config_entry("gpu_graph_id")))
        self.session.run_with_iobinding(binding, options)


def test_every_batch_size_has_its_own_graph(session, images):
    noted = GraphSession(session._session)
    graphs = Graphs(onnxruntime, noted, (1, 4), "cpu")
    name, out = session.inputs[0].name, session.outputs[0].name
    for n in (1, 1, 4, 2, 4):
        graphs.run([out], {name: images[:n]})
    assert noted.ids == [PLAIN, 1, 1, PLAIN, 2, PLAIN, 2]


def test_a_graph_keeps_to_its_shape(free):
    noted = GraphSession(free._session)
    graphs = Graphs(onnxruntime, noted, (1,), "cpu")
    name, out = free.inputs[0].name, free.outputs[0].name
    for width in (7, 9, 7):
        x = np.ones((1, 1, 6, width), "f")
        np.testing.assert_allclose(graphs.run([out], {name: x})[0], free.predict(x), atol=1e-6)
    assert noted.ids == [PLAIN, 1, PLAIN, 1]


# ---- on a GPU ----


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_cuda(path, images, session, device, tf32, nhwc):
    on_gpu = Session(path, device, tf32=tf32, prefer_nhwc=nhwc)
    assert on_gpu.provider == "CUDAExecutionProvider"
    assert on_gpu.proof.ok
    tolerance = on_gpu.proof.tolerance
    np.testing.assert_allclose(on_gpu.predict(images), session.predict(images), atol=tolerance)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_cuda_graphs(path, images, session, device):
    on_gpu = Session(path, device, cuda_graphs=(1, 2))
    for rows in ([0], [1], [0, 1], [2, 3], [0, 1, 2], [4], [3, 2]):
        x = images[rows]
        np.testing.assert_allclose(on_gpu.predict(x), session.predict(x), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_every_operator_has_a_cuda_kernel(folder, device, dtype):
    refused = {}
    for case in CASES:
        case_model(case).export(folder / "case.onnx", dtype=dtype)
        try:
            Session(folder / "case.onnx", device)
        except SessionError as error:
            refused[case.id] = error.reason
    assert refused == {}


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_an_operator_without_a_cuda_kernel_is_refused(folder, device):
    make = onnx.helper.make_tensor_value_info
    x, y = (make(name, onnx.TensorProto.FLOAT, ["n", 4, 4][: 3 - 2 * (name == "y")])
            for name in "xy")  # fmt: skip
    graph = onnx.helper.make_graph([onnx.helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "det.onnx")
    assert Session(folder / "det.onnx", "cpu").predict(np.eye(4)[None]) == 1
    with pytest.raises(SessionError, match="does not take every operator"):
        Session(folder / "det.onnx", device)
