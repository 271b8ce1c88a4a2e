"""`fastconv deploy`: what it writes is read by Triton's own definitions and by a YAML parser."""

import importlib.util
from pathlib import Path

import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from serving_tools import NAMES, edited, scale_weights, small_network, two_inputs

from fastconv import layers
from fastconv.cli import main
from fastconv.model import Sequential
from fastconv.serving import Session, deploy

yaml = pytest.importorskip("yaml", reason="no YAML parser: pip install 'fastconv[test]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("deploy")


@pytest.fixture(scope="module")
def path(folder):
    small_network().export(folder / "small.onnx", class_names=NAMES)
    return folder / "small.onnx"


@pytest.fixture(scope="module")
def messages():
    """Triton's messages as its client has them; the client itself would need grpc."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None:
        pytest.skip("tritonclient has the definition of config.pbtxt: pip install 'fastconv[test]'")
    (place,) = spec.submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "model_config_pb2", Path(place) / "grpc" / "model_config_pb2.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def parse(messages):
    return lambda text: text_format.Parse(text, messages.ModelConfig())


def deployed(*arguments):
    return main(["deploy", *map(str, arguments)])


def complaint(capsys, *arguments):
    """The one line of a command that refuses."""
    assert deployed(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


# ---- Triton ----


def test_a_repository(path, tmp_path, parse, messages, capsys):
    options = ["--instances", 2, "--max-batch", 24, "--max-delay-us", 100]
    assert deployed(path, "--triton", tmp_path / "models", *options) == 0
    assert "proved: 4 samples on CPUExecutionProvider" in capsys.readouterr().out
    home = tmp_path / "models" / "small"
    found = sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())
    assert found == ["1/model.onnx", "config.pbtxt", "labels.txt"]
    assert (home / "1" / "model.onnx").read_bytes() == path.read_bytes()
    assert (home / "labels.txt").read_text().splitlines() == NAMES
    config = parse((home / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("small", "onnxruntime", 24)
    (x,), (y,) = config.input, config.output
    session = onnxruntime.InferenceSession(home / "1" / "model.onnx")
    assert (x.name, y.name) == (session.get_inputs()[0].name, session.get_outputs()[0].name)
    assert (list(x.dims), list(y.dims)) == ([1, 12, 10], [3])
    assert x.data_type == y.data_type == messages.TYPE_FP32
    assert y.label_filename == "labels.txt"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, messages.ModelInstanceGroup.KIND_GPU)
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert [warm.batch_size for warm in config.model_warmup] == [1, 2, 4, 8, 16, 24]
    assert list(config.model_warmup[0].inputs[x.name].dims) == [1, 12, 10]
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert cuda.parameters == {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"


def test_on_the_cpu(path, tmp_path, parse, messages):
    assert deployed(path, "--triton", tmp_path, "--device", "cpu", "--name", "other") == 0
    config = parse((tmp_path / "other" / "config.pbtxt").read_text())
    assert config.name == "other"
    assert config.instance_group[0].kind == messages.ModelInstanceGroup.KIND_CPU
    assert not config.HasField("optimization")


def test_several_tensors_free_and_fixed_sizes(folder, path, parse):
    two_inputs().export(folder / "two.onnx")
    config = parse(deploy.triton_config(Session(folder / "two.onnx"), deploy.Batching(), "two"))
    assert {x.name: list(x.dims) for x in config.input} == {"a": [4], "b": [6]}
    assert len(config.output) == 2
    Sequential([layers.Input((None, None, 3)), layers.Conv2D(2, 3)]).export(folder / "free.onnx")
    config = parse(deploy.triton_config(Session(folder / "free.onnx"), deploy.Batching(), "free"))
    assert list(config.input[0].dims) == [3, -1, -1]
    assert len(config.model_warmup) == 0

    def fix(model):
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 2
        del model.metadata_props[:]

    fixed = Session(edited(path, folder / "fixed.onnx", fix))
    config = parse(deploy.triton_config(fixed, deploy.Batching(), "fixed"))
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [2, 1, 12, 10])
    assert not config.HasField("dynamic_batching")


def test_what_is_there_stays(path, tmp_path, capsys):
    assert deployed(path, "--triton", tmp_path) == 0
    capsys.readouterr()
    assert "small/1: is there already; --force" in complaint(capsys, path, "--triton", tmp_path)
    assert deployed(path, "--triton", tmp_path, "--version", 2) == 0
    other = ["--triton", tmp_path, "--version", 3, "--max-batch", 8]
    assert "config.pbtxt: is there already" in complaint(capsys, path, *other)
    assert not (tmp_path / "small" / "3").exists()
    assert deployed(path, *other, "--force") == 0
    assert deployed(path, "--triton", tmp_path, "--version", 1, "--force") == 0
    names = {p.name for p in (tmp_path / "small").iterdir()}
    assert names == {"1", "2", "3", "config.pbtxt", "labels.txt"}


def test_a_network_that_fails_its_proof_is_not_deployed(folder, path, tmp_path, capsys):
    broken = edited(path, folder / "broken.onnx", lambda model: scale_weights(model, 1.1))
    assert "failed its proof" in complaint(capsys, broken, "--triton", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_nothing_is_left_where_the_disk_refuses(path, tmp_path, monkeypatch, capsys):
    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    assert "No space left" in complaint(capsys, path, "--triton", tmp_path)
    assert list((tmp_path / "small").iterdir()) == []


def test_weights_in_a_file_beside_are_not_left_behind(path, tmp_path, capsys):
    model = onnx.load(path)
    where = {"all_tensors_to_one_file": True, "location": "weights", "size_threshold": 0}
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, **where)
    Session(tmp_path / "apart.onnx", "cpu").close()
    words = complaint(capsys, tmp_path / "apart.onnx", "--triton", tmp_path / "m")
    assert "does not run without the files beside it" in words
    assert list((tmp_path / "m" / "apart").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs --triton DIR, --kserve FILE.yaml or both"),
        (["--triton", "m", "--name", "a/b"], "'a/b' is no name for a model"),
        (["--triton", "m", "--max-batch", "0"], "not a whole number from 1 on"),
        (["--triton", "m", "--max-delay-us", "-1"], "not a whole number from 0 on"),
        (["--kserve", "a.yaml"], "--kserve and --storage go together"),
        (["--kserve", "a.yaml", "--storage", "models"], "no place that a cluster can reach"),
        (
            ["--kserve", "a.yaml", "--storage", "s3://b", "--name", "Net"],
            "no name for a Kubernetes",
        ),
        (["--kserve", "a.yaml", "--storage", "s3://b", "--replicas", "3", "2"], "from 3 to 2"),
    ],
)
def test_what_is_refused(path, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in complaint(capsys, path, *arguments)
    assert list(tmp_path.iterdir()) == []


# ---- KServe ----


def test_an_inference_service(path, tmp_path):
    file = tmp_path / "s.yaml"
    options = ["--storage", "pvc://claim/mo: dels", "--replicas", 0, 7, "--concurrency", 20]
    assert deployed(path, "--kserve", file, *options) == 0
    service = yaml.safe_load(file.read_text())
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    assert service["metadata"] == {"name": "small"}
    predictor = service["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (0, 7)
    assert (predictor["scaleMetric"], predictor["scaleTarget"]) == ("concurrency", 20)
    model = predictor["model"]
    assert model["modelFormat"] == {"name": "triton"}
    assert model["protocolVersion"] == "v2"
    assert model["storageUri"] == "pvc://claim/mo: dels"
    assert model["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert {"name": "NVIDIA_TF32_OVERRIDE", "value": "0"} in model["env"]


def test_a_service_on_the_cpu_and_not_twice(path, tmp_path, capsys):
    file = tmp_path / "s.yaml"
    arguments = [path, "--kserve", file, "--storage", "s3://b/m", "--device", "cpu"]
    assert deployed(*arguments) == 0
    assert "resources" not in yaml.safe_load(file.read_text())["spec"]["predictor"]["model"]
    capsys.readouterr()
    assert "is there already" in complaint(capsys, *arguments)
    assert deployed(*arguments, "--force") == 0
