"""Ask a server of `fastconv serve` what it sees: by an image, by JSON, by binary tensors.

    fastconv serve mnist.onnx &
    python examples/serving_client.py digit.png
    python examples/serving_client.py --url http://127.0.0.1:8000 --count 1000

Nothing but numpy is needed; `tritonclient[http]` speaks the same protocol. By curl:

    curl --data-binary @digit.png http://127.0.0.1:8000/predict
    curl -d '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}' \\
        http://127.0.0.1:8000/v2/models/NAME/infer
    curl http://127.0.0.1:8000/v2/models/NAME
"""

import argparse
import http.client
import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import numpy as np


class Client:
    """One connection that stays open."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[Any, bytes]:
        """Headers and body of an answer; an error is the server's own sentence."""
        self._connection.request(method, path, body, self._headers | headers)
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status != 200:
            sys.exit(f"{answer.status}: {json.loads(raw)['error']}")
        return answer.headers, raw

    def json(self, method: str, path: str, body: bytes = b"") -> Any:
        return json.loads(self.ask(method, path, body)[1])

    def infer(self, model: dict[str, Any], x: np.ndarray) -> np.ndarray:
        """The first output for a batch (n, …), sent and fetched as binary tensors."""
        tensor = {
            "name": model["inputs"][0]["name"],
            "datatype": "FP32",
            "shape": list(x.shape),
            "parameters": {"binary_data_size": x.nbytes},
        }
        wanted = {"name": model["outputs"][0]["name"], "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        sizes = {"Inference-Header-Content-Length": str(len(head))}
        path = f"/v2/models/{model['name']}/infer"
        headers, raw = self.ask("POST", path, head + x.tobytes(), **sizes)
        size = int(headers["Inference-Header-Content-Length"])
        shape = json.loads(raw[:size])["outputs"][0]["shape"]
        return np.frombuffer(raw[size:], np.float32).reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="PNG or JPEG files")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--count", type=int, default=100, help="binary requests to time")
    args = parser.parse_args()
    client = Client(args.url, os.environ.get("FASTCONV_TOKEN"))
    for path in args.images:
        with open(path, "rb") as file:
            (result,) = client.json("POST", "/predict", file.read())["results"]
        best = result["predictions"][0]
        print(f"{path}: {best['class']} ({best.get('probability', best.get('score')):.3f})")
    name = client.json("GET", "/models")[0]["name"]
    model = client.json("GET", f"/v2/models/{name}")
    shape = [1, *(8 if size < 0 else size for size in model["inputs"][0]["shape"][1:])]
    x = np.random.default_rng(0).random(shape, np.float32)
    start = time.perf_counter()
    for _ in range(args.count):
        y = client.infer(model, x)
    milliseconds = 1000 * (time.perf_counter() - start) / args.count
    print(f"{name}: {shape} gives {list(y.shape)}, {milliseconds:.2f} ms a request")


if __name__ == "__main__":
    main()
