"""The server as clients meet it: a process, asked by tritonclient, curl and plain sockets."""

import asyncio
import io
import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from types import SimpleNamespace

import malformed
import numpy as np
import pytest
from PIL import Image
from server_tools import (
    ServerProcess,
    binary_request,
    http_request,
    read_answer,
    read_tensor,
)
from serving_tools import NAMES, edited, scale_weights, small_network, two_inputs

from fastconv.serving import Session, SessionError
from fastconv.serving.contract import contract

pytest.importorskip("starlette", reason="the server needs starlette: pip install 'fastconv[serve]'")
client = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
from fastconv.serving import app  # noqa: E402
from fastconv.serving import server as server_process  # noqa: E402
from fastconv.serving.metrics import Metrics  # noqa: E402
from fastconv.serving.repository import Batching, Repository  # noqa: E402

TOKEN = "s3cret"
SIZE = (12, 10)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A repository: `digits` in two versions, `pair` with two inputs and outputs."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "digits" / "1").mkdir(parents=True)
    network = small_network(SIZE)
    network.export(folder / "digits" / "1" / "model.onnx", class_names=NAMES, input_range=(0, 255))
    (folder / "pair" / "3").mkdir(parents=True)
    two_inputs().export(folder / "pair" / "3" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def server(models):
    with ServerProcess(models, "--poll", 0, "--read-timeout", 2, "--max-body", 1) as running:
        yield running


@pytest.fixture(scope="module")
def session(models):
    return Session(models / "digits" / "1" / "model.onnx", "cpu")


@pytest.fixture(scope="module")
def triton(server):
    with client.InferenceServerClient(server.address, network_timeout=60) as found:
        yield found


def pictures(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (n, 1, *SIZE)).astype(np.float32)


def tensor(name, array, binary=True):
    given = client.InferInput(name, list(array.shape), "FP32")
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def png(size=SIZE, mode="L", value=None):
    image = Image.fromarray(pictures(1)[0, 0].astype(np.uint8))
    image = Image.new(mode, size[::-1], value) if value is not None else image
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# -- what tritonclient calls, one row each --------------------------------------------------------


def names(session):
    return session.inputs[0].name, session.outputs[0].name


def infer(triton, session, x, in_binary=True, out_binary=True, **more):
    given, taken = names(session)
    outputs = [client.InferRequestedOutput(taken, binary_data=out_binary)]
    found = triton.infer("digits", [tensor(given, x, in_binary)], outputs=outputs, **more)
    return found.as_numpy(taken), found.get_response()


CALLS = {
    "live": lambda t, s: t.is_server_live(),
    "ready": lambda t, s: t.is_server_ready(),
    "model ready": lambda t, s: t.is_model_ready("digits"),
    "version ready": lambda t, s: t.is_model_ready("digits", "1"),
    "version not there": lambda t, s: not t.is_model_ready("digits", "7"),
    "server metadata": lambda t, s: "binary_tensor_data" in t.get_server_metadata()["extensions"],
    "model metadata": lambda t, s: (
        t.get_model_metadata("digits")["inputs"]
        == [{"name": names(s)[0], "datatype": "FP32", "shape": [-1, 1, *SIZE]}]
    ),
    "metadata of a version": lambda t, s: t.get_model_metadata("digits", "1")["versions"] == ["1"],
    "config": lambda t, s: t.get_model_config("digits")["max_batch_size"] == 32,
    "config's dims": lambda t, s: t.get_model_config("digits")["output"][0]["dims"] == [3],
    "statistics": lambda t, s: (
        t.get_inference_statistics("digits")["model_stats"][0]["version"] == "1"
    ),
    "all statistics": lambda t, s: len(t.get_inference_statistics()["model_stats"]) == 2,
    "index": lambda t, s: (
        {(m["name"], m["state"]) for m in t.get_model_repository_index()}
        == {("digits", "READY"), ("pair", "READY")}
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_tritonclient_asks(call, triton, session):
    assert CALLS[call](triton, session)


@pytest.mark.parametrize("in_binary", [True, False], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("out_binary", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("rows", [1, 3, 70], ids=["one", "three", "more than a batch"])
def test_tritonclient_infers(triton, session, in_binary, out_binary, rows):
    x = pictures(rows)
    found, told = infer(triton, session, x, in_binary, out_binary, request_id="q1")
    assert (told["id"], told["model_name"], told["model_version"]) == ("q1", "digits", "1")
    np.testing.assert_allclose(found, session.predict(x), rtol=0, atol=1e-6)


def test_tritonclient_packs_requests(triton, session):
    x = pictures(2)
    for algorithm in ("gzip", "deflate"):
        found, _ = infer(triton, session, x, request_compression_algorithm=algorithm)
        np.testing.assert_allclose(found, session.predict(x), rtol=0, atol=1e-6)


def test_several_inputs_and_outputs(triton, models):
    alone = Session(models / "pair" / "3" / "model.onnx", "cpu")
    a, b = (np.random.default_rng(i).random((2, n), np.float32) for i, n in enumerate((4, 6)))
    found = triton.infer("pair", [tensor("b", b), tensor("a", a, False)], model_version="3")
    u, v = alone.run({"a": a, "b": b})
    first, second = (info.name for info in alone.outputs)
    np.testing.assert_allclose(found.as_numpy(first), u, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.as_numpy(second), v, rtol=0, atol=1e-6)
    one = triton.infer("pair", [tensor("a", a), tensor("b", b)],
                       outputs=[client.InferRequestedOutput(second)])  # fmt: skip
    assert [output["name"] for output in one.get_response()["outputs"]] == [second]


@pytest.mark.parametrize("binary", [True, False])
def test_classification(triton, session, binary):
    x = pictures(2)
    given, taken = names(session)
    outputs = [client.InferRequestedOutput(taken, binary_data=binary, class_count=2)]
    found = triton.infer("digits", [tensor(given, x)], outputs=outputs).as_numpy(taken)
    scores = session.predict(x)
    assert found.shape == (2, 2)
    for row, texts in zip(scores, found, strict=True):
        words = [t.decode() if isinstance(t, bytes) else t for t in texts]
        best = np.argsort(-row)[:2]
        assert [w.split(":")[1:] for w in words] == [[str(i), NAMES[i]] for i in best]
        assert float(words[0].split(":")[0]) == pytest.approx(row[best[0]], abs=1e-5)


ERRORS = {
    "no such model": (lambda t, s: t.infer("cats", [tensor("x", pictures(1))]), "404", "no such"),
    "no such version": (lambda t, s: t.get_model_metadata("digits", "9"), "404", "no such version"),
    "wrong name": (lambda t, s: t.infer("digits", [tensor("x", pictures(1))]), "400", "no input"),
    "wrong shape": (
        lambda t, s: t.infer("digits", [tensor(names(s)[0], pictures(1)[:, :, 1:])]),
        "400",
        "is expected",
    ),
    "unknown output": (
        lambda t, s: t.infer("digits", [tensor(names(s)[0], pictures(1))],
                             outputs=[client.InferRequestedOutput("z")]),
        "400", "no output 'z'",
    ),
    "shared memory": (lambda t, s: t.get_system_shared_memory_status(), "404", "Not Found"),
    "config sent along": (lambda t, s: t.load_model("digits", config="{}"), "400", "on disk"),
    "load of nothing": (lambda t, s: t.load_model("cats"), "404", "no such model"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_tritonclient_is_told_what_is_wrong(case, triton, session):
    call, status, words = ERRORS[case]
    with pytest.raises(client.InferenceServerException) as raised:
        call(triton, session)
    assert raised.value.status() == status
    assert words in raised.value.message()


def test_unloaded_and_loaded_again(triton, session):
    triton.unload_model("pair")
    assert not triton.is_model_ready("pair")
    assert triton.is_server_ready()  # nobody wants it
    states = {m["name"]: (m["state"], m["reason"]) for m in triton.get_model_repository_index()}
    assert states["pair"] == ("UNAVAILABLE", "unloaded")
    triton.load_model("pair")
    assert triton.is_model_ready("pair")


# -- /predict -------------------------------------------------------------------------------------


def test_predict_asks_for_a_model_where_there_are_several(server):
    status, answer = server.post("/predict", png())
    assert (status, "digits, pair" in answer["error"]) == (400, True)


@pytest.mark.parametrize("form", ["png", "jpeg", "nested", "no channel", "one sample", "object"])
def test_predict_takes(form, server, session):
    x = np.rint(pictures(1))
    image = Image.fromarray(x[0, 0].astype(np.uint8))
    file = io.BytesIO()
    if form in ("png", "jpeg"):
        image.save(file, form, **({"quality": 100} if form == "jpeg" else {}))
        x = np.asarray(Image.open(file), np.float32)[None, None]
    body = {
        "png": file.getvalue(), "jpeg": file.getvalue(), "nested": x.tolist(),
        "no channel": x[:, 0].tolist(), "one sample": x[0].tolist(),
        "object": {names(session)[0]: x.tolist()},
    }[form]  # fmt: skip
    status, answer = server.post("/predict?model=digits&top=3", body)
    assert status == 200, answer
    (result,) = answer["results"]
    scores = session.predict(x)[0]
    assert [p["class"] for p in result["predictions"]] == [NAMES[i] for i in np.argsort(-scores)]
    found = [p["probability"] for p in result["predictions"]]
    np.testing.assert_allclose(found, np.sort(scores)[::-1], atol=1e-5)


REFUSED = {
    "a bomb": (lambda: png((6000, 6000), "1", 0), 400, "pixels"),
    "half an image": (lambda: png()[:60], 400, "damaged"),
    "a gif": (lambda: b"GIF89a" + bytes(40), 415, "PNG or JPEG"),
    "a shape": (lambda: [[1, 2], [3, 4]], 400, "is expected"),
    "ragged": (lambda: [[1, 2], [3]], 400, "all rows alike"),
    "words": (lambda: ["cat"], 400, "something else than FP32"),
    "depth": (lambda: b"[" * 100_000, 400, "nested"),
    "nothing": (lambda: b"", 415, "PNG or JPEG"),
    "quotes": (lambda: b"[" * 33 + b'"' + b'\\"' * 400_000, 400, "nested"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predict_refuses(case, server):
    make, status, words = REFUSED[case]
    found, answer = server.post("/predict?model=digits", make())
    assert (found, words in answer["error"]) == (status, True), answer


def test_a_query_of_too_many_fields(server):
    status, answer = server.post("/predict?" + "a=1&" * 20, png())
    assert (status, answer["error"]) == (400, "the query has too many fields")


@pytest.mark.parametrize("host", [b"[", b"a/b?c", b"a:b", b"\xff"])
def test_a_host_that_is_none(host, server):
    head = b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
    assert b" 200 " in server.raw(b"GET /" + head + b"\r\n", end=False)[:20]
    body = json.dumps(pictures(1).tolist()).encode()
    message = b"POST /predict?model=digits" + head + b"Content-Length: %d\r\n\r\n" % len(body)
    assert b" 200 " in server.raw(message + body, end=False)[:20]


def test_curl(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "a.png").write_bytes(png())
    done = subprocess.run(
        ["curl", "-sS", "--data-binary", f"@{tmp_path}/a.png",
         f"http://{server.address}/predict?model=digits"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["results"][0]["predictions"][0]["class"] in NAMES


# -- limits ---------------------------------------------------------------------------------------


def test_a_body_too_large_is_refused(server):
    assert server.post("/v2/models/digits/infer", bytes(2 << 20))[0] == 413
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n"
    assert b" 413 " in server.raw(head + b"Content-Length: 99999999999999\r\n\r\n", end=False)
    chunks = b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16))
    assert b" 413 " in server.raw(
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 20 + b"0\r\n\r\n", end=False
    )


def test_a_packed_bomb_is_refused(server):
    bomb = zlib.compress(bytes(64 << 20), 9)
    status, answer = server.post("/v2/models/digits/infer", bomb, Content_Encoding="deflate")
    assert (status, "once unpacked" in answer["error"]) == (413, True)


@pytest.mark.parametrize("sent", [
    b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Le",
    b"POST /predict?model=digits HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n[[1",
])  # fmt: skip
def test_slow_clients_are_left(sent, server):
    with socket.create_connection(("127.0.0.1", server.port), 30) as peer:
        peer.sendall(sent)
        status, headers, body = read_answer(peer)
        assert status == 408
        assert headers["connection"] == "close"
        assert "in time" in body.decode() or "within" in body.decode()


def test_a_head_without_end_is_refused(server):
    assert b" 431 " in server.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)


def test_a_request_cut_short_is_told_so(server):
    head = b"POST /predict?model=digits HTTP/1.1\r\nHost: a\r\nContent-Length: "
    for cut in (head, head + b"9\r\n\r\n[[1"):
        answer = server.raw(cut)
        assert b" 400 " in answer
        assert b"ended" in answer
    assert b" 200 " in server.raw(b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n")  # whole, then closed


def test_what_is_no_http_is_answered_in_json(server):
    head, _, body = server.raw(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert "HTTP" in json.loads(body)["error"]


def test_other_sites_may_not_ask(server):
    path = "/v2/repository/models/pair/unload"
    assert server.post(path, b"", Sec_Fetch_Site="cross-site")[0] == 403
    assert server.get("/v2/models/pair/ready")[0] == 200


# -- operation ------------------------------------------------------------------------------------


def test_metrics(server, triton, session):
    infer(triton, session, pictures(3))
    status, text = server.get("/metrics")
    assert status == 200
    lines = text.decode().splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    label = '{model="digits",version="1"}'
    assert float(counts[f"fastconv_inference_seconds_count{label}"]) > 0
    assert float(counts[f"fastconv_batch_size_sum{label}"]) >= 3
    assert counts["fastconv_ready"] == "1.0"
    assert 'provider="CPUExecutionProvider"' in text.decode()
    assert any(key.startswith("fastconv_requests_total{") for key in counts)


def test_a_request_has_a_number(server):
    _, headers, _ = server.request("GET", "/v2", X_Request_Id="mine-7")
    assert headers["x-request-id"] == "mine-7"
    line = json.loads(server.read_until("mine-7").string)
    assert (line["status"], line["path"], line["level"]) == (200, "/v2", "info")
    _, headers, _ = server.request("GET", "/v2", X_Request_Id="no good\t" + "x" * 200)
    assert "good" not in headers["x-request-id"]


def test_openapi_names_what_is_answered(server):
    status, document = server.get("/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    for path, item in document["paths"].items():
        place = path.replace("{model}", "digits").replace("{version}", "1")
        for method in {"get", "post"} & set(item):
            assert server.request(method.upper(), place, b"{}")[0] not in (404, 405), path


def test_the_page_lets_nothing_in(server):
    _, headers, body = server.request("GET", "/")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"<script src=" in body
    assert b"://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert server.request("GET", "/", If_None_Match=headers["etag"])[0] == 304


def test_token(models, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    path = models / "digits" / "1" / "model.onnx"
    with ServerProcess(path, "--token-file", tmp_path / "token") as running:
        assert running.get("/v2/health/live")[0] == 200  # probes carry none
        assert running.get("/")[0] == 200  # the page asks for it
        for path in ("/v2", "/models", "/metrics", "/openapi.json", "/v2/models/model"):
            assert running.get(path)[0] == 401, path
            assert running.get(path, Authorization="Bearer wrong")[0] == 401
            assert running.get(path, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert running.post("/predict", png())[0] == 401
        assert running.post("/predict", png(), Authorization=f"Bearer {TOKEN}")[0] == 200


def test_without_cuda_it_says_so_and_ends(models):
    pytest.importorskip("onnxruntime")
    from serving_tools import why_no_gpu

    if why_no_gpu() is None:
        pytest.skip("there is a GPU here")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "serve", models, "--device", "cuda", "--port", "0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert time.monotonic() - start < 10
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fastconv: ")
    assert "install" in last


def test_allow_cpu_is_shown(models):
    if __import__("serving_tools").why_no_gpu() is None:
        pytest.skip("there is a GPU here")
    path = models / "digits" / "1" / "model.onnx"
    with ServerProcess(path, "--device", "cuda", "--allow-cpu") as running:
        told = running.get("/v2/models/model")[1]["parameters"]
        assert told["provider"] == "CPUExecutionProvider"
        assert "NVIDIA" in told["fallback"] or "CUDA" in told["fallback"]


@pytest.mark.parametrize(("words", "says"), [
    (["nothing.onnx"], "No such file"),
    ([".", "--max-batch", "0"], "whole number"),
    ([".", "--timeout", "0"], "too few"),
])  # fmt: skip
def test_wrong_arguments(words, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "serve", *words], cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_an_address_that_is_taken(models):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "fastconv", "serve", str(models), "--port", str(port)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.returncode, f"127.0.0.1:{port}: Address already in use" in done.stderr) == (
        2,
        True,
    )


# -- under load -----------------------------------------------------------------------------------


class Client(threading.Thread):
    """Asks one picture after the other on a connection, and keeps question and answer."""

    def __init__(self, server, session, seed, count=10**6, path="/v2/models/digits/infer"):
        super().__init__(daemon=True)
        self.given, self.taken = names(session)
        self.server, self.seed, self.count, self.path = server, seed, count, path
        self.answers = []
        self.unanswered = None
        self.versions = set()
        self.stop = threading.Event()

    def run(self):
        rng = np.random.default_rng(self.seed)
        peer = socket.create_connection(("127.0.0.1", self.server.port), 60)
        try:
            for _ in range(self.count):
                if self.stop.is_set():
                    break
                x = rng.uniform(0, 255, (int(rng.integers(1, 4)), 1, *SIZE)).astype(np.float32)
                body, head = binary_request({self.given: x}, [self.taken])
                peer.sendall(http_request(self.path, body, head))
                self.unanswered = x
                status, headers, body = read_answer(peer)
                assert status == 200, body
                length = int(headers["inference-header-content-length"])
                self.versions.add(json.loads(body[:length])["model_version"])
                self.answers.append((x, read_tensor(headers, body)))
                self.unanswered = None
                if headers.get("connection") == "close":
                    break
        finally:
            peer.close()


def check(clients, session):
    """Each answer is that of its own question: others' lie a thousand times as far away."""
    total = 0
    for asking in clients:
        for x, y in asking.answers:
            np.testing.assert_allclose(y, session.predict(x), rtol=0, atol=1e-6)
            total += 1
    return total


@pytest.mark.parametrize("delay", [0, 2])
def test_answers_do_not_cross(models, session, delay):
    spread = session.predict(pictures(64)).std(axis=0).max()
    assert spread > 1e-3
    options = ("--max-batch", 8, "--max-delay-ms", delay, "--log-level", "warning")
    with ServerProcess(models, *options) as running:
        clients = [Client(running, session, seed, 25) for seed in range(16)]
        for asking in clients:
            asking.start()
        for asking in clients:
            asking.join(60)
        assert check(clients, session) == 16 * 25
        (stats,) = running.get("/v2/models/digits/stats")[1]["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == 400
        assert stats["execution_count"] < 400  # some went together


def test_the_end_leaves_no_request_unanswered(models, session):
    with ServerProcess(models, "--log-level", "warning") as running:
        clients = [Client(running, session, seed) for seed in range(16)]
        for asking in clients:
            asking.start()
        time.sleep(1)
        assert running.end() == 0
        for asking in clients:
            asking.join(30)
        assert [c.seed for c in clients if c.unanswered is not None] == []
        assert check(clients, session) > 16


def test_a_full_queue_says_when_to_come_again(models, session):
    given, taken = names(session)
    options = ("--queue", 4, "--max-batch", 64, "--max-delay-ms", 500)
    with ServerProcess(models, *options) as running:
        body, head = binary_request({given: pictures(3)}, [taken])
        message = http_request("/v2/models/digits/infer", body, head)
        peers = [socket.create_connection(("127.0.0.1", running.port), 30) for _ in range(3)]
        for peer in peers:
            peer.sendall(message)
        answers = [read_answer(peer) for peer in peers]
        for peer in peers:
            peer.close()
        assert sorted(answer[0] for answer in answers) == [200, 429, 429]
        refused = next(headers for status, headers, _ in answers if status == 429)
        assert int(refused["retry-after"]) >= 1


def test_time_runs_out(models, session):
    given, taken = names(session)
    with ServerProcess(models, "--timeout", 0.2, "--max-delay-ms", 2000) as running:
        body, head = binary_request({given: pictures(1)}, [taken])
        status, answer = running.post(
            "/v2/models/digits/infer", body, Inference_Header_Content_Length=str(head)
        )
        assert (status, "in time" in answer["error"]) == (504, True)


# -- versions -------------------------------------------------------------------------------------


def test_a_new_version_takes_over_without_a_gap(models, session, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    options = ("--poll", 0.1, "--log-level", "warning")
    with ServerProcess(folder, *options) as running:
        clients = [Client(running, session, seed) for seed in range(4)]
        for asking in clients:
            asking.start()
        source = folder / "digits" / "1" / "model.onnx"
        # a version that fails its proof is not let in
        (folder / "digits" / "2").mkdir()
        edited(source, folder / "digits" / "2" / "model.onnx", lambda m: scale_weights(m, 1.01))
        wait_for(running, "2", "UNAVAILABLE", "failed its proof")
        assert running.get("/v2/health/ready")[0] == 200
        assert running.get("/v2/models/digits/versions/2/ready")[0] == 503
        part = folder / "digits" / "part"
        part.mkdir()
        shutil.copy(source, part / "model.onnx")
        part.rename(folder / "digits" / "3")
        wait_for(running, "3", "READY", "")
        time.sleep(0.3)
        for asking in clients:
            asking.stop.set()
        for asking in clients:
            asking.join(30)
        assert set().union(*(c.versions for c in clients)) == {"1", "3"}
        assert all(c.unanswered is None for c in clients)
        check(clients, session)
        assert running.get("/v2/models/digits/versions/1/ready")[0] == 503
        text = running.get("/metrics")[1].decode()
        assert 'version="3"' in text
        assert 'fastconv_model_info{device="cpu",fallback="",model="digits",provider=' \
            '"CPUExecutionProvider",version="1"}' not in text  # fmt: skip


def test_files_that_come_back_keep_their_metrics(models, tmp_path):
    """A version that is still in use while its files go and come back."""
    path, aside = tmp_path / "digits.onnx", tmp_path / "aside"
    shutil.copy(models / "digits" / "1" / "model.onnx", path)

    async def go_and_come_back():
        metrics = Metrics()
        repository = Repository(path, lambda p, _: Session(p, "cpu"), Batching(), metrics)
        await repository.refresh()
        with repository.get("digits").lease():
            path.rename(aside)
            await repository.refresh()
            assert repository.why_not_ready() == "no model is loaded yet"
            aside.rename(path)
            await repository.refresh()
        while repository._retiring:
            await asyncio.sleep(0.001)
        found = metrics.text().decode()
        await repository.close()
        assert 'fastconv_queue_samples{model="digits",version="1"} 0.0' in found
        assert "fastconv_queue_samples{" not in metrics.text().decode()

    asyncio.run(go_and_come_back())


def test_looking_for_models_goes_on(caplog):
    seen = []

    async def refresh():
        seen.append(1)
        if len(seen) == 2:
            raise RuntimeError("unforeseen")
        return []

    async def look():
        repository = SimpleNamespace(
            refresh=refresh, models={"m": SimpleNamespace(served={"1": None})}
        )
        watcher = asyncio.create_task(server_process._watch(repository, 0.001, SimpleNamespace()))
        while len(seen) < 4:
            assert not watcher.done()
            await asyncio.sleep(0.001)
        watcher.cancel()

    logging.getLogger("fastconv").propagate = True
    asyncio.run(look())
    assert "unforeseen" in caplog.text


def test_a_file_that_names_too_few_classes(models, tmp_path):
    def rename(model):
        (entry,) = (e for e in model.metadata_props if NAMES[0] in e.value and "cat" in e.value)
        entry.value = entry.value.replace('"cat", ', "").replace('"cat",', "")

    source = models / "digits" / "1" / "model.onnx"
    with Session(edited(source, tmp_path / "few.onnx", rename), "cpu") as few:
        served = SimpleNamespace(session=few, contract=contract(few), alone=False)
        with pytest.raises(SessionError, match="names 2 classes, its output has 3 scores"):
            app._described(served, {"y": few.predict(pictures(1))}, 3)


def wait_for(running, version, state, reason, seconds=30):
    end = time.monotonic() + seconds
    while True:
        _, rows = running.post("/v2/repository/index")
        found = {row["version"]: row for row in rows if row["name"] == "digits"}
        row = found.get(version, {"state": "", "reason": ""})
        if row["state"] == state and reason in row["reason"]:
            return
        assert time.monotonic() < end, rows
        time.sleep(0.05)


def test_a_failed_proof_is_not_ready_with_the_reason(models, tmp_path):
    source = models / "digits" / "1" / "model.onnx"
    bad = edited(source, tmp_path / "bad.onnx", lambda m: scale_weights(m, 1.01))
    with ServerProcess(bad, wait=False) as running:
        running.read_until("failed its proof")
        time.sleep(0.1)
        assert running.get("/v2/health/live")[0] == 200
        status, answer = running.get("/v2/health/ready")
        assert (status, "failed its proof" in answer["error"]) == (503, True)
        assert running.post("/predict", png())[0] == 503
        assert running.end() == 0


# -- malformed requests ---------------------------------------------------------------------------


def test_malformed_requests_are_answered_by_4xx(models):
    """A thousand of those that `python tests/malformed.py` sends ten thousand of."""
    path = models / "digits" / "1" / "model.onnx"
    with ServerProcess(path, "--read-timeout", 1, "--max-body", 2) as running:
        malformed.attack(running, "model", 500, seed=1)  # allocators keep what they once had
        result = malformed.attack(running, "model", 500)
    assert result["wrong"] == []
    assert result["alive"]
    assert result["same"]
    assert result["memory"][-1] - result["memory"][0] < 32 * 2**20
