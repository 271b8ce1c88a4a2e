"""Clients of a server, as light as they get: connections of one process, each asking without pause.

A question is bytes that were made before; its answer is compared with what the session gave.
"""

import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Question:
    """Bytes to send, and the scores that must come."""

    request: bytes
    scores: np.ndarray


@dataclass
class Tally:
    """What came of it: seconds of each answer, and how many were wrong or not answered."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.latencies, share))

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def questions(path: str, body: str, x: np.ndarray, scores: np.ndarray, name: str, output: str
              ) -> list[Question]:  # fmt: skip
    """One per sample, with its binary tensor in the protocol's form ("v2") or bare."""
    found = []
    for sample, row in zip(x, scores, strict=True):
        head = b""
        if body == "v2":
            tensor = {"name": name, "datatype": "FP32", "shape": [1, *sample.shape],
                      "parameters": {"binary_data_size": sample.nbytes}}  # fmt: skip
            wanted = {"name": output, "parameters": {"binary_data": True}}
            head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: localhost"]
        lines += [f"Content-Length: {len(head) + sample.nbytes}"]
        lines += [f"Inference-Header-Content-Length: {len(head)}"] if head else []
        text = "\r\n".join(lines) + "\r\n\r\n"
        found.append(Question(text.encode() + head + sample.tobytes(), row))
    return found


class Asking:
    """One connection and the question that is under way on it."""

    def __init__(self, port: int, asked: Sequence[Question], start: int) -> None:
        self.peer = socket.create_connection(("127.0.0.1", port), 60)
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked, self._next = asked, start
        self._data = b""

    def ask(self) -> None:
        self._question = self._asked[self._next % len(self._asked)]
        self._next += 1
        self._since = time.perf_counter()
        self.peer.sendall(self._question.request)

    def read(self, tally: Tally) -> bool:
        """Take what has come; whether the answer is whole."""
        piece = self.peer.recv(1 << 16)
        if not piece:
            raise ConnectionError("the server has closed a connection")
        self._data += piece
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return False
        place = head.lower().index(b"content-length: ") + 16
        if len(body) < int(head[place:].split(b"\r\n", 1)[0]):
            return False
        self._data = b""
        tally.latencies.append(time.perf_counter() - self._since)
        if b" 200 " not in head[:16]:
            tally.refused += 1
        else:
            want = self._question.scores
            got = np.frombuffer(body[-want.nbytes :], np.float32)
            # far below the distance between the scores of two questions
            tally.wrong += not np.allclose(got, want, rtol=0, atol=1e-5)
        return True


def load(port: int, asked: Sequence[Question], clients: int, seconds: float) -> Tally:
    """All clients ask at once for so long; every question is answered before it ends."""
    tally = Tally()
    selector = selectors.DefaultSelector()
    step = max(1, len(asked) // clients)
    for number in range(clients):
        asking = Asking(port, asked, number * step)
        selector.register(asking.peer, selectors.EVENT_READ, asking)
        asking.ask()
    start = time.perf_counter()
    under_way = clients
    while under_way:
        for key, _ in selector.select(60):
            if key.data.read(tally):
                if time.perf_counter() - start < seconds:
                    key.data.ask()
                else:
                    under_way -= 1
                    selector.unregister(key.data.peer)
                    key.data.peer.close()
    tally.seconds = time.perf_counter() - start
    return tally


@contextmanager
def server(words: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, once it answers."""
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL) as process:
        try:
            _wait(process, port)
            yield process
        finally:
            process.terminate()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + 60
    request = b"GET /v2/health/ready HTTP/1.0\r\n\r\n"
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as peer:
                peer.sendall(request)
                if b" 503 " not in peer.recv(64):  # the plain one knows no such path
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the server did not come up")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
