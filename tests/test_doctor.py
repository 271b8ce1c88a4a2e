"""`fastconv doctor`: what it says is found out by trying, and what helps is one line."""

import json
import re
import subprocess
import sys

import onnx
import onnxruntime
import pytest
from serving_tools import fake_driver, process, small_network, why_no_gpu

from fastconv.cli import main
from fastconv.commands import _common
from fastconv.serving import doctor, runtime, tiny

NO_GPU = why_no_gpu()
without_gpu = pytest.mark.skipif(NO_GPU is None, reason="there is a GPU here")


@pytest.fixture
def asked(capsys):
    """Run the command; gives its exit code and what it printed."""

    def run(*arguments):
        code = main(["doctor", *map(str, arguments)])
        return code, capsys.readouterr().out

    return run


@pytest.mark.parametrize("model", [tiny.network(), tiny.relu(17, 8), tiny.product()])
def test_models_written_by_hand_are_valid(model):
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)


def test_all_is_well_on_the_cpu(asked):
    code, text = asked("--device", "cpu")
    assert code == 0
    assert text.endswith("All is well: networks run on cpu.\n")
    assert re.search(rf"onnxruntime(-gpu)? {re.escape(onnxruntime.__version__)}", text)
    assert re.search(r"Conv ran on +CPUExecutionProvider\n", text)
    assert re.search(r"TF32 +off\n", text)


def test_versions_are_measured(asked):
    found = json.loads(asked("--device", "cpu", "--json")[1])
    opset, ir_version = found["opset"], found["ir_version"]
    assert opset >= 21
    assert ir_version >= 10
    onnxruntime.InferenceSession(tiny.relu(opset, ir_version), providers=[runtime.CPU])
    for model in (tiny.relu(opset + 1, 8), tiny.relu(17, ir_version + 1)):
        with pytest.raises(Exception, match=r"opset|IR version"):
            onnxruntime.InferenceSession(model, providers=[runtime.CPU])


def test_operators_of_a_file(asked, tmp_path):
    small_network().export(tmp_path / "small.onnx")
    found = json.loads(asked(tmp_path / "small.onnx", "--device", "cpu", "--json")[1])
    assert found["ok"]
    assert {"Conv", "Gemm"} <= {op for _, op, _ in found["nodes"]}
    assert {provider for _, _, provider in found["nodes"]} == {"CPUExecutionProvider"}
    code, text = asked(__file__, "--device", "cpu")
    assert code == 1
    assert "not a usable ONNX file" in text
    assert main(["doctor", "nowhere.onnx"]) == 2


@without_gpu
def test_a_gpu_that_is_missing(asked):
    code, text = asked("--device", "cuda")
    assert code == 1
    assert "What helps: " in text
    found = json.loads(asked("--device", "cuda", "--json")[1])
    assert not found["ok"]
    assert found["nodes"] == []
    assert found["problems"][0]["reason"] == NO_GPU.split(";")[0]


def doctor_process(*arguments, **environment):
    code = f"import sys; from fastconv.cli import main; sys.exit(main({['doctor', *arguments]}))"
    return process(code, **environment)


@without_gpu
def test_the_driver_is_asked(tmp_path):
    folder = fake_driver(tmp_path, count=2)
    done = doctor_process("--json", LD_LIBRARY_PATH=str(folder))
    found = json.loads(done.stdout)
    assert found["device"] == "cuda"  # where there is a driver, it is what people mean
    assert done.returncode == 1
    assert found["driver"]["gpus"] == ["G", "G"]
    assert found["driver"]["cuda"] == "13.1"
    assert found["driver"]["library"] == str(folder / "libcuda.so.1")
    (problem,) = found["problems"]
    assert "pip install" in problem["mend"]
    text = doctor_process("--device", "cuda", LD_LIBRARY_PATH=str(folder)).stdout
    assert f"from {folder / 'libcuda.so.1'}" in text


def test_both_packages(tmp_path):
    for name in runtime.PACKAGES:
        (tmp_path / f"{name.replace('-', '_')}-9.dist-info").mkdir()
        (tmp_path / f"{name.replace('-', '_')}-9.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n"
        )
    code = (
        "import sys; from fastconv.cli import main; sys.exit(main(['doctor', '--device', 'cpu']))"
    )
    done = process(code, path=tmp_path)
    assert done.returncode == 1
    assert "onnxruntime 9 and onnxruntime-gpu 9" in done.stdout
    assert "What helps: pip uninstall -y onnxruntime onnxruntime-gpu && pip install" in done.stdout


def test_no_runtime_at_all():
    code = "import sys; sys.modules['onnxruntime'] = None; from fastconv.cli import main; "
    done = process(code + "sys.exit(main(['doctor', '--device', 'cpu']))")
    assert done.returncode == 1
    assert "What helps: pip install 'fastconv[runtime]'" in done.stdout


def test_a_wrong_argument():
    command = [sys.executable, "-m", "fastconv", "doctor", "--device", "tpu"]
    assert subprocess.run(command, capture_output=True).returncode == 2


def test_rows_of_a_gpu():
    """In words, of a machine that has what this one may lack."""
    found = doctor.Diagnosis(
        "cuda",
        driver={
            "found": True, "version": "580.1", "cuda": "13.0", "gpus": ["A"], "library": "/l/so",
            "nvidia_smi": None,
        },
        packages={"onnxruntime-gpu": "1.31"},
        providers=[runtime.CUDA],
        cuda="13.0",
        libraries={"libcudnn": "/s/libcudnn.so.9", "libcufft": None},
        opset=26,
        ir_version=13,
        nodes=[("a", "Conv", runtime.CUDA), ("b", "Conv", runtime.CPU)],
        tf32=False,
    )  # fmt: skip
    text = "\n".join(_common.fields(doctor.rows(found)))
    for words in (
        r"driver +580.1, for CUDA up to 13.0, from /l/so",
        r"GPUs +A",
        r"libcudnn +/s/libcudnn.so.9",
        r"libcufft +not found",
        r"newest opset +26 \(IR version 13\)",
        r"Conv ran on +CUDAExecutionProvider, CPUExecutionProvider",
        r"TF32 +off",
    ):
        assert re.search(words, text)
