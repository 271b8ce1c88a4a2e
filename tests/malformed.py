"""Requests that are not as they should be, made from the server's OpenAPI document.

python tests/malformed.py --count 10000

Each is a right request for an operation of the document, broken in one way or in several: JSON
that is none, sizes that lie, wrong shapes and types, bodies that end early. Every one must be
answered by 4xx, the server must live on, answer right requests as before, and keep its memory.
"""

import argparse
import json
import math
import random
import re
import socket
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from server_tools import ServerProcess, binary_request, read_answer

ROWS = 2
HUGE = (0, -1, 2**31, 2**63, 2**64, 10**30, 1.5, None, True, "3", [], {}, float("inf"))
WORDS = ("", "\x00", "x" * 5000, "ü\u2028", "../../etc/passwd", "%s%n", None, 7, [], {}, True)


class Maker:
    """Makes broken requests for what the document describes."""

    def __init__(self, document: dict[str, Any], metadata: dict[str, Any], seed: int) -> None:
        self.random = random.Random(seed)
        self.metadata = metadata
        self.posts = [path for path, item in document["paths"].items() if "post" in item]
        self.schemas = document["components"]["schemas"]
        self.kinds: list[Callable[[], bytes]] = [
            self.broken_json, self.wrong_values, self.wrong_values, self.lying_header,
            self.lying_length, self.truncated, self.wrong_binary, self.broken_image, self.bomb,
            self.bad_path, self.bad_http, self.deep, self.packed,
        ]  # fmt: skip

    def make(self) -> tuple[str, bytes]:
        """What is wrong with it, and its bytes."""
        kind = self.random.choice(self.kinds)
        return kind.__name__, kind()

    # -- right ones ------------------------------------------------------------------------------

    def body(self) -> dict[str, Any]:
        inputs = [
            {
                "name": info["name"],
                "datatype": info["datatype"],
                "shape": (shape := [ROWS, *info["shape"][1:]]),
                "data": [0.5] * math.prod(shape),
            }
            for info in self.metadata["inputs"]
        ]
        outputs = [{"name": info["name"]} for info in self.metadata["outputs"]]
        return {"id": "a", "inputs": inputs, "outputs": outputs, "parameters": {}}

    def infer_path(self) -> str:
        paths = [path for path in self.posts if path.endswith("/infer")]
        return self.filled(self.random.choice(paths))

    def filled(self, path: str) -> str:
        return path.replace("{model}", self.metadata["name"]).replace(
            "{version}", self.metadata["versions"][0]
        )

    def post(self, path: str, body: bytes, *headers: str, length: Any = None) -> bytes:
        size = len(body) if length is None else length
        lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {size}", *headers]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body

    # -- wrong ones ------------------------------------------------------------------------------

    def broken_json(self) -> bytes:
        text = bytearray(json.dumps(self.body()).encode())
        for _ in range(self.random.randint(1, 4)):
            place = self.random.randrange(len(text))
            # never a digit for a digit, which would be right
            text[place : place + 1] = self.random.choice(
                [b"", b"\xff", b"\x00", b"}", b"]", b'"', b"NaN", b"\\u12", b"1e", b",,"]
            )
        if self._is_json(bytes(text)):
            text = text[: len(text) // 2]
        return self.post(self.infer_path(), bytes(text))

    @staticmethod
    def _is_json(text: bytes) -> bool:
        try:
            json.loads(text)
        except ValueError:
            return False
        return True

    def wrong_values(self) -> bytes:
        body = self.body()
        tensor = self.random.choice(body["inputs"])
        wrong: list[tuple[Any, str, Any]] = [
            (tensor, "shape", self._shape(tensor["shape"])),
            (tensor, "datatype", self.random.choice(["FP64", "INT8", "BYTES", "FP99", *WORDS])),
            (tensor, "name", "z" + str(self.random.choice(WORDS))),
            (tensor, "data", self.random.choice(
                [[1], [[1], [1, 2]], "1", 1, None, {}, [None], ["a"], [[[[[]]]]], [1e39] * 200])),
            (tensor, "parameters", self.random.choice(
                [7, [], {"binary_data_size": self.random.choice(HUGE[1:-1])},
                 {"shared_memory_region": "x"}])),
            (body, "inputs", self.random.choice([None, {}, [], 7, [7], body["inputs"] * 2])),
            (body, "outputs", self.random.choice([{}, 7, [7], [{"name": "z"}], [{}],
                                                  body["outputs"] * 2])),
            (body, "id", self.random.choice([7, [], {}, True])),
            (body, "parameters", self.random.choice(
                [7, [], {"timeout": -1}, {"timeout": "x"}, {"binary_data_output": 1}])),
        ]  # fmt: skip
        for holder, key, value in self.random.sample(wrong, self.random.randint(1, 3)):
            if value == {"binary_data_size": None}:
                value = 7
            holder[key] = value
        return self.post(self.infer_path(), json.dumps(body).encode())

    def _shape(self, shape: list[int]) -> Any:
        place = self.random.randrange(len(shape))
        size = self.random.choice([s for s in HUGE if s != shape[place]])
        return self.random.choice(
            [[*shape[:place], size, *shape[place + 1 :]], shape[1:], [*shape, 1], [size] * 40, size]
        )

    def lying_header(self) -> bytes:
        body, head = self._binary()
        lie = self.random.choice(
            [head - 1, head + 1, 0, len(body), len(body) + 1, -1, 10**30, "x", "", "1.5", "0x10"]
        )
        return self.post(self.infer_path(), body, f"Inference-Header-Content-Length: {lie}")

    def lying_length(self) -> bytes:
        body = json.dumps(self.body()).encode()
        lie = self.random.choice([1, len(body) // 2, len(body) + 7, 10**14, -5, "x", 2**64, "1e3"])
        return self.post(self.infer_path(), body, length=lie)

    def truncated(self) -> bytes:
        body, head = self._binary()
        whole = self.post(self.infer_path(), body, f"Inference-Header-Content-Length: {head}")
        return whole[: self.random.randrange(1, len(whole))]

    def _binary(self) -> tuple[bytes, int]:
        arrays = {
            info["name"]: np.zeros([ROWS, *info["shape"][1:]], np.float32)
            for info in self.metadata["inputs"]
        }
        return binary_request(arrays, [info["name"] for info in self.metadata["outputs"]])

    def wrong_binary(self) -> bytes:
        body, head = self._binary()
        more = self.random.choice([body[:-1], body + b"\0", body[:head], body + bytes(5000)])
        return self.post(self.infer_path(), more, f"Inference-Header-Content-Length: {head}")

    def broken_image(self) -> bytes:
        magic = self.random.choice([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b""])
        return self.post("/predict", magic + self.random.randbytes(self.random.randrange(3000)))

    def bomb(self) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            check = zlib.crc32(kind + data).to_bytes(4, "big")
            return len(data).to_bytes(4, "big") + kind + data + check

        side = self.random.choice([30_000, 2**31 - 1])
        sizes = side.to_bytes(4, "big") * 2
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sizes + b"\x08\x06\0\0\0")
        png += chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
        return self.post("/predict", png)

    def bad_path(self) -> bytes:
        word = self.random.choice(["", "%00", "%ff", "..", "a" * 3000, "%2e%2e%2f", "ä", "x%20"])
        path = self.random.choice(
            [f"/v2/models/{word}/infer", f"/v2/models/x{word}/versions/{word}/infer",
             f"/predict?model={word}&top=x{word}", f"/v2/repository/models/{word}/load",
             f"/predict?{'a=1&' * 20}", f"/{word}/x"]
        )  # fmt: skip
        return self.post(path, json.dumps(self.body()).encode())

    def bad_http(self) -> bytes:
        return self.random.choice(
            [
                b"GET\r\n\r\n", b"\r\n\r\n\r\nx\r\n\r\n", self.random.randbytes(200) + b"\r\n\r\n",
                b"POST /predict HTTP/9.9\r\n\r\n", b"POST  HTTP/1.1\r\n\r\n",
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
                b"DELETE /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            ]
        )  # fmt: skip

    def deep(self) -> bytes:
        depth = self.random.choice([33, 1000, 100_000])
        start, end = self.random.choice([(b"[", b"]"), (b'{"a":', b"}")])
        body = start * depth + (b"1" + end * depth if self.random.random() < 0.5 else b"")
        if self.random.random() < 0.2:  # a text without end
            body = start * 40 + b'"' + b'\\"' * depth
        return self.post(self.random.choice(["/predict", self.infer_path()]), body)

    def packed(self) -> bytes:
        body = self.random.choice(
            [zlib.compress(bytes(3 << 20), 9), zlib.compress(b"[]")[:-3], b"no", b""]
        )
        name = self.random.choice(["gzip", "deflate", "br", "x" * 100])
        return self.post(self.infer_path(), body, f"Content-Encoding: {name}")


def send(port: int, data: bytes) -> int:
    """The status of the answer, 0 where there is none."""
    with socket.create_connection(("127.0.0.1", port), 30) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        except OSError:  # answered before all was sent
            pass
        try:
            return read_answer(peer)[0]
        except ConnectionError:
            return 0


def attack(server: ServerProcess, model: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Send so many; what came of it, and the memory before and after."""
    maker = Maker(server.get("/openapi.json")[1], server.get(f"/v2/models/{model}")[1], seed)
    body, head = maker._binary()
    right = {"Inference_Header_Content_Length": str(head)}
    path = maker.filled("/v2/models/{model}/infer")
    before = server.post(path, body, **right)
    found: Counter[tuple[str, int]] = Counter()
    wrong = []
    process = psutil.Process(server.process.pid)
    memory = []
    for number in range(count):
        if number % max(1, count // 10) == 0:
            memory.append(process.memory_info().rss)
        kind, data = maker.make()
        status = send(server.port, data)
        found[kind, status] += 1
        if not 400 <= status < 500:
            wrong.append((kind, status, data[:300]))
        server.drop_log()
    memory.append(process.memory_info().rss)
    return {
        "counts": found,
        "wrong": wrong,
        "memory": memory,
        "same": server.post(path, body, **right) == before and before[0] == 200,
        "alive": server.process.poll() is None,
    }


def main() -> None:
    from serving_tools import NAMES, small_network

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.onnx")
        small_network().export(path, class_names=NAMES, input_range=(0, 255))
        with ServerProcess(path, "--read-timeout", 1, "--max-body", 2) as server:
            result = attack(server, "small", args.count, args.seed)
    kinds = sorted({kind for kind, _ in result["counts"]})
    for kind in kinds:
        counts = {s: n for (k, s), n in sorted(result["counts"].items()) if k == kind}
        print(f"{kind:14}", ", ".join(f"{status}: {n}" for status, n in counts.items()))
    print("memory, MiB:", *(f"{rss / 2**20:.1f}" for rss in result["memory"]))
    print("alive:", result["alive"], " right requests answered as before:", result["same"])
    print("not answered by 4xx:", len(result["wrong"]))
    grown = result["memory"][-1] - result["memory"][1]  # the first tenth warms the allocators up
    bad = result["wrong"] or not result["alive"] or not result["same"] or grown > 16 * 2**20
    for kind, status, data in result["wrong"][:20]:
        print(" ", kind, status, re.sub(rb"[^ -~]", b".", data[:160]).decode())
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
