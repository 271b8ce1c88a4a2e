"""What the server is compared with: a handler as people write it, starlette and onnxruntime.

It takes the bytes of one sample and gives those of the scores; no protocol, no limits, no batches.
`inline` runs the network on the event loop's thread, else a pool of threads does.
"""

import sys

import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def main(path: str, port: int, threads: int, inline: bool) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    shape = session.get_inputs()[0].shape[1:]

    async def predict(request: Request) -> Response:
        x = np.frombuffer(await request.body(), np.float32).reshape(1, *shape)
        if inline:
            (y,) = session.run(None, {name: x})
        else:
            (y,) = await run_in_threadpool(session.run, None, {name: x})
        return Response(y.tobytes(), media_type="application/octet-stream")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    uvicorn.run(app, port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "inline")
