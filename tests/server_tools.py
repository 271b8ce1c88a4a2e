"""A server as its users meet it: a process on a free port of this machine."""

import http.client
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.serving.protocol import to_json

SECONDS = 60  # until a server is ready, on a machine that does other things as well


class ServerProcess:
    """`fastconv serve` in a process; ends with the block that it stands in."""

    def __init__(self, path: Path | str, *options: Any, wait: bool = True, **environment: str):
        words = ["--device", "cpu", "--port", "0", "--log-format", "json", *map(str, options)]
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastconv", "serve", str(path), *words],
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
        self._rest = b""
        self.port = int(self.read_until(r"http://\S+:(\d+)").group(1))
        self.address = f"127.0.0.1:{self.port}"
        if wait:
            self.wait_ready()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def read_until(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Read the log until a line has this pattern."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            while True:
                line, found, self._rest = self._rest.partition(b"\n")
                if found:
                    self.log.append(line.decode())
                    if match := re.search(pattern, self.log[-1]):
                        return match
                    continue
                left = end - time.monotonic()
                more = (
                    os.read(self.process.stderr.fileno(), 65536) if selector.select(left) else b""
                )
                assert more, f"the server did not say {pattern!r} but\n" + "\n".join(self.log)
                self._rest = line + more

    def drop_log(self) -> None:
        """Read what the server has said, so that it never waits for us."""
        os.set_blocking(self.process.stderr.fileno(), False)
        try:
            while os.read(self.process.stderr.fileno(), 1 << 20):
                pass
        except BlockingIOError:
            pass
        finally:
            os.set_blocking(self.process.stderr.fileno(), True)

    def wait_ready(self) -> None:
        end = time.monotonic() + SECONDS
        while self.get("/v2/health/ready")[0] != 200:
            assert time.monotonic() < end, "the server is not ready"
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.05)

    def end(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    # -- asking -----------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body, which is read where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            raw = answer.read()
            is_json = told.get("content-type", "").startswith("application/json")
            return answer.status, told, json.loads(raw) if is_json and raw else raw
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        status, _, body = self.request("GET", path, **headers)
        return status, body

    def post(self, path: str, body: Any = b"", **headers: str) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, answer = self.request("POST", path, raw, **headers)
        return status, answer

    def raw(self, data: bytes, end: bool = True) -> bytes:
        """What is answered to these bytes until the server closes; with ``end`` our half of the
        connection is closed after them."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as peer:
            try:
                peer.sendall(data)
                if end:
                    peer.shutdown(socket.SHUT_WR)
            except OSError:  # answered before all was sent
                pass
            answer = b""
            try:
                while piece := peer.recv(65536):
                    answer += piece
            except ConnectionError:
                pass
            return answer


def binary_request(
    arrays: dict[str, np.ndarray], outputs: list[str], binary: bool = True
) -> tuple[bytes, int]:
    """Body of an infer request with binary tensors, and the length of its JSON."""
    kinds = {"float32": "FP32", "float64": "FP64", "uint8": "UINT8", "int32": "INT32"}
    head = to_json(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": kinds[str(array.dtype)],
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in arrays.items()
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": binary}} for name in outputs],
        }
    )
    return head + b"".join(array.tobytes() for array in arrays.values()), len(head)


def http_request(path: str, body: bytes, head: int | None, host: str = "localhost") -> bytes:
    """The bytes of a POST on a connection that stays open."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    if head is not None:
        lines.append(f"Inference-Header-Content-Length: {head}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def read_answer(peer: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer from an open connection.

    Raises
    ------
    ConnectionError
        It ended before the answer did; its message tells whether there was any of it.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"closed after {len(data)} bytes")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        piece = peer.recv(1 << 16)
        if not piece:
            raise ConnectionError("closed amid an answer")
        body += piece
    return int(first.split()[1]), headers, body


def read_tensor(headers: dict[str, str], body: bytes) -> np.ndarray:
    """The only float32 output of a binary answer."""
    head = int(headers["inference-header-content-length"])
    (output,) = json.loads(body[:head])["outputs"]
    return np.frombuffer(body[head:], "<f4").reshape(output["shape"])
