"""What the server answers: routes, limits, errors in JSON.

Starlette finds the route; `App` is the plain ASGI layer around it that every request passes once:
who may ask, the request's number, what is said when something goes wrong, metrics and log.
"""

import asyncio
import hashlib
import hmac
import io
import itertools
import logging
import re
import secrets
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from fastconv.serving import batching, images, openapi, protocol
from fastconv.serving.contract import Contract
from fastconv.serving.errors import SessionError
from fastconv.serving.metrics import CONTENT_TYPE, Metrics
from fastconv.serving.protocol import BadRequest, to_json
from fastconv.serving.repository import NotReady, Repository, Served, Unknown, describe
from fastconv.version import __version__

EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics",
)  # fmt: skip
PLATFORM = "onnxruntime_onnx"
LARGE = 256 * 1024  # bytes from which a body is read in a thread of its own
TOP = 3
FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 16 * 2**20
RETRY = 1  # seconds, where nothing better is known
REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}")
PAGE = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}

log = logging.getLogger("fastconv.serving")

Message = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Attributes
    ----------
    body, pixels : int
        Bytes of a body, unpacked too; pixels of an image.
    read, answer : float
        Seconds until a body has come, and until it is answered.
    """

    body: int = 64 * 2**20
    pixels: int = MAX_PIXELS
    read: float = 30.0
    answer: float = 30.0


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, cause: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.cause = status, cause
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def refusal(error: Exception) -> Refusal:
    """What an exception is for the client."""
    match error:
        case Refusal():
            return error
        case BadRequest() | images.ImageError():
            return Refusal(400, "bad_request", str(error))
        case Unknown():
            return Refusal(404, "unknown", str(error))
        case NotReady():
            return Refusal(503, "not_ready", str(error), retry_after=str(RETRY))
        case batching.Full():
            wait = str(max(1, round(error.retry_after)))
            return Refusal(429, "queue_full", str(error), retry_after=wait)
        case batching.Expired():
            return Refusal(504, "timeout", "the answer was not there in time")
        case batching.Closed():
            return Refusal(503, "not_ready", "the model is being closed", retry_after=str(RETRY))
        case HTTPException():
            return Refusal(error.status_code, "http", error.detail, **dict(error.headers or {}))
        case SessionError():
            return Refusal(500, "runtime", str(error))
    return Refusal(500, "internal", "an error within the server; its log has more")


class App:
    """The ASGI application.

    Parameters
    ----------
    repository : Repository
    metrics : Metrics
    limits : Limits
    token : str or None
        What a client must show as ``Authorization: Bearer …``.
    """

    def __init__(
        self, repository: Repository, metrics: Metrics, limits: Limits, token: str | None = None
    ) -> None:
        self.repository, self.metrics, self.limits = repository, metrics, limits
        self.draining = False
        self._token = None if token is None else token.encode()
        self._ids = itertools.count(1)
        self._prefix = secrets.token_hex(4)
        self._counters: dict[tuple[str, int], Any] = {}
        self._page = _page()
        self._document = to_json(openapi.document(token is not None))
        metrics.ready.set_function(lambda: float(self.why_not_ready() is None))
        self._router = Router(
            [*self._model_routes(), *self._other_routes()], redirect_slashes=False
        )

    def _model_routes(self) -> list[Route]:
        # what is asked most comes first
        routes = [Route("/predict", self.predict, methods=["POST"])]
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes.append(Route(f"{base}/infer", self.infer, methods=["POST"]))
        routes.append(Route("/v2/models/stats", self.all_stats))
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(base, self.metadata),
                Route(f"{base}/ready", self.model_ready),
                Route(f"{base}/config", self.config),
                Route(f"{base}/stats", self.stats),
            ]
        return routes

    def _other_routes(self) -> list[Route]:
        return [
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2", self.server),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self.unload, methods=["POST"]),
            Route("/models", self.cards),
            Route("/metrics", self.metrics_text),
            Route("/openapi.json", self.document),
            *(Route(path, self.page) for path in PAGE),
        ]

    # -- what every request passes ----------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"")
        if REQUEST_ID.fullmatch(given):
            number = given
        else:
            number = f"{self._prefix}-{next(self._ids):x}".encode()
        status = 0
        cause = None

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", number))
                if self.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        scope["app"] = self  # Starlette then raises what is wrong with a path or method
        self.metrics.in_flight.inc()
        try:
            await self._router(scope, receive, answer)
        except ClientDisconnect:
            cause = "disconnected"
        except Exception as error:
            refused = refusal(error)
            cause = refused.cause
            if refused.status == 500:
                log.error("%s", error, exc_info=cause == "internal",
                          extra={"request_id": number.decode(), "path": scope["path"]})  # fmt: skip
            if not status:
                await _error(refused)(scope, receive, answer)
        finally:
            self.metrics.in_flight.dec()
            self._count(scope, status, cause, number, time.perf_counter() - start)

    def _count(
        self, scope: Any, status: int, cause: str | None, number: bytes, seconds: float
    ) -> None:
        route = getattr(scope.get("endpoint"), "__name__", "none")
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self.metrics.requests.labels(route, str(status or 499))
            self._counters[route, status] = counter
        counter.inc()
        if cause is not None:
            self.metrics.errors.labels(cause).inc()
        if log.isEnabledFor(logging.INFO):
            milliseconds = round(seconds * 1000, 3)
            path, method = scope["path"][:200], scope["method"]
            extra = {
                "request_id": number.decode(), "client": (scope["client"] or ("",))[0],
                "method": method, "path": path, "status": status or 499, "cause": cause,
                "milliseconds": milliseconds, **scope.get("fastconv", {}),
            }  # fmt: skip
            log.info("%s %r %d %.3f ms", method, path, status or 499, milliseconds, extra=extra)

    def admit(self, request: Request) -> None:
        """Whether this request may be answered at all."""
        headers = request.headers
        if self._token is not None:
            given = headers.get("authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise Refusal(
                    401, "token", "this server asks for a token: Authorization: Bearer …",
                    www_authenticate="Bearer",
                )  # fmt: skip
        # a browser says where a request comes from; by this no page of another site has a model
        # of a server on the reader's machine loaded or unloaded
        if headers.get("sec-fetch-site") == "cross-site":
            raise Refusal(403, "origin", "pages of other sites may not ask this server")

    async def body(self, request: Request) -> bytes:
        """The request's body, unpacked; within the limits."""
        limit = self.limits.body
        length = request.headers.get("content-length", "")
        declared = int(length) if length.isdecimal() else 0
        pieces = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.read):
                if declared > limit:
                    await self._refuse_body(request, limit)
                async for piece in request.stream():
                    size += len(piece)
                    if size > limit:
                        await self._refuse_body(request, limit)
                    pieces.append(piece)
        except TimeoutError:
            raise Refusal(
                408, "slow", f"the body did not come within {self.limits.read:g} s",
                connection="close",
            ) from None  # fmt: skip
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return body
        return await asyncio.to_thread(_unpacked, body, encoding, limit)

    async def _refuse_body(self, request: Request, limit: int) -> None:
        """Too large. What is under way is let in and dropped for a moment: a client that is still
        writing would not see an answer on a connection that is closed before its eyes."""
        refused = Refusal(
            413, "too_large", f"the body has more than {limit} bytes", connection="close"
        )
        if request.headers.get("expect", "").lower() == "100-continue":
            raise refused
        try:
            async with asyncio.timeout(min(1.0, self.limits.read)):
                async for _ in request.stream():
                    pass
        except TimeoutError:
            pass
        raise refused

    # -- inference --------------------------------------------------------------------------------

    def _served(self, request: Request) -> Served:
        path = request.path_params
        return self.repository.get(path["model"], path.get("version"))

    async def infer(self, request: Request) -> Response:
        """The protocol's infer: JSON, or JSON and binary tensors, in and out."""
        self.admit(request)
        with self._served(request).lease() as served:
            body = await self.body(request)
            start = time.perf_counter()
            session = served.session
            asked = await _near(
                body, protocol.parse_infer, body,
                request.headers.get("inference-header-content-length"),
                session.inputs, session.outputs, not served.alone,
            )  # fmt: skip
            read = time.perf_counter() - start
            names = [wanted.name for wanted in asked.outputs]
            result = await self._ask(served, asked.feeds, names, asked.timeout)
            writing = time.perf_counter()
            payload, head = protocol.write_infer(
                asked, result.outputs, served.model, served.version, session.labels
            )
            self._answered(request, served, result, start, read, writing)
        if head is None:
            return Response(payload, media_type="application/json")
        return Response(
            payload,
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(head)},
        )

    async def _ask(
        self,
        served: Served,
        feeds: Mapping[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float | None = None,
    ) -> batching.Result:
        timeout = min(timeout or self.limits.answer, self.limits.answer)
        try:
            return await served.batcher.submit(feeds, outputs, timeout)
        except ValueError as error:  # sizes that the file leaves free and that do not suit it
            served.statistics.fail.add(0)
            raise BadRequest(str(error)) from error
        except Exception:
            served.statistics.fail.add(0)
            raise

    def _answered(
        self,
        request: Request,
        served: Served,
        result: batching.Result,
        start: float,
        read: float,
        writing: float,
    ) -> None:
        now = time.perf_counter()
        served.statistics.answered(read, result.queue, result.compute, now - writing, now - start)
        request.scope["fastconv"] = {
            "model": served.model, "version": served.version, "batch": result.batch,
        }  # fmt: skip

    async def predict(self, request: Request) -> Response:
        """An image or numbers in, classes with probabilities out."""
        self.admit(request)
        query = _query(request)
        top = query.get("top", str(TOP))
        if not (top.isascii() and top.isdecimal() and 0 < len(top) < 10):
            raise BadRequest("'top' is a number of classes")
        with self.repository.get(self._model_name(query.get("model"))).lease() as served:
            body = await self.body(request)
            start = time.perf_counter()
            feeds = await self._samples(served, body, query.get("invert") == "1")
            read = time.perf_counter() - start
            names = [info.name for info in served.session.outputs]
            result = await self._ask(served, feeds, names)
            writing = time.perf_counter()
            found = _described(served, dict(zip(names, result.outputs, strict=True)), int(top))
            answer = {"model": served.model, "version": served.version, **found}
            payload = _written(answer)
            self._answered(request, served, result, start, read, writing)
        return Response(payload, media_type="application/json")

    def _model_name(self, name: str | None) -> str:
        known = list(self.repository.models)
        if name is not None or len(known) == 1:
            return name or known[0]
        if not known:
            raise NotReady("no model is loaded yet")
        raise BadRequest(f"name a model: ?model=… (there are: {', '.join(sorted(known))})")

    async def _samples(self, served: Served, body: bytes, invert: bool) -> Mapping[str, np.ndarray]:
        """What a network is fed, from an image or from JSON; the bytes tell which it is."""
        if not images.is_image(body):
            if body[:1].isspace() or body[:1] in (b"[", b"{"):
                return await _near(body, _from_json, body, served)
            raise Refusal(
                415, "media", "a PNG or JPEG image or JSON is expected; send a file by "
                "curl --data-binary @FILE",
            )  # fmt: skip
        contract = served.contract
        if contract is None or contract.channels is None:
            raise BadRequest(f"model {served.model!r} does not take images; send JSON")
        try:
            array = await asyncio.to_thread(
                images.image_sample, io.BytesIO(body), contract, None, invert, FORMATS,
                self.limits.pixels,
            )  # fmt: skip
        except ImportError as error:
            raise Refusal(415, "media", str(error)) from error
        return {contract.input: array}

    # -- what the protocol tells -------------------------------------------------------------------

    def why_not_ready(self) -> str | None:
        """None while requests are welcome."""
        return "the server is ending" if self.draining else self.repository.why_not_ready()

    async def live(self, request: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        if (reason := self.why_not_ready()) is not None:
            raise NotReady(reason)
        return Response()

    async def server(self, request: Request) -> Response:
        self.admit(request)
        return _json({"name": "fastconv", "version": __version__, "extensions": EXTENSIONS})

    async def metadata(self, request: Request) -> Response:
        self.admit(request)
        served = self._served(request)
        return _json(
            {
                "name": served.model,
                "versions": sorted(self.repository.models[served.model].served),
                "platform": PLATFORM,
                "inputs": [_tensor(info) for info in served.session.inputs],
                "outputs": [_tensor(info) for info in served.session.outputs],
                "parameters": describe(served),
            }
        )

    async def model_ready(self, request: Request) -> Response:
        self.admit(request)
        self._served(request)
        if self.draining:
            raise NotReady("the server is ending")
        return Response()

    async def config(self, request: Request) -> Response:
        self.admit(request)
        return _json(_config(self._served(request), self.repository))

    async def stats(self, request: Request) -> Response:
        self.admit(request)
        return _json({"model_stats": [self._served(request).statistics.to_json()]})

    async def all_stats(self, request: Request) -> Response:
        self.admit(request)
        return _json({"model_stats": [s.statistics.to_json() for s in self._all_served()]})

    def _all_served(self) -> list[Served]:
        return [s for model in self.repository.models.values() for s in model.served.values()]

    async def index(self, request: Request) -> Response:
        self.admit(request)
        wanted = await self._object(request)
        return _json(self.repository.index(ready_only=wanted.get("ready") is True))

    async def load(self, request: Request) -> Response:
        self.admit(request)
        wanted = await self._object(request)
        if wanted.get("parameters"):
            raise BadRequest(
                "a model is loaded as it lies on disk: 'config' and files cannot be sent"
            )
        try:
            await self.repository.load(request.path_params["model"])
        except SessionError as error:
            raise BadRequest(str(error)) from error
        return _json({})

    async def unload(self, request: Request) -> Response:
        self.admit(request)
        await self._object(request)
        await self.repository.unload(request.path_params["model"])
        return _json({})

    async def _object(self, request: Request) -> dict[str, Any]:
        body = await self.body(request)
        value = protocol.parse_json(body) if body else {}
        if not isinstance(value, dict):
            raise BadRequest("the body is a JSON object")
        return value

    # -- for people and their tools ---------------------------------------------------------------

    async def cards(self, request: Request) -> Response:
        """What the page shows of each model."""
        self.admit(request)
        return _json([_card(served, self.limits) for served in self._all_served()])

    async def metrics_text(self, request: Request) -> Response:
        self.admit(request)
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def document(self, request: Request) -> Response:
        self.admit(request)
        return Response(self._document, media_type="application/json")

    async def page(self, request: Request) -> Response:
        body, headers = self._page[request.scope["path"]]
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)


# -- answers --------------------------------------------------------------------------------------


async def _near(body: bytes, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it here when the body is small, in a thread when it would hold the others up."""
    if len(body) < LARGE:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _error(refused: Refusal) -> Response:
    return Response(
        to_json({"error": str(refused)}), refused.status, refused.headers, "application/json"
    )


def _query(request: Request) -> dict[str, str]:
    """What stands behind the question mark; of a name that comes twice, the last."""
    try:
        # not request.url, which is made from the Host header: a stranger's words, too
        found = parse_qs(request.scope["query_string"].decode("latin-1"), max_num_fields=16)
    except ValueError as error:
        raise BadRequest("the query has too many fields") from error
    return {name: values[-1] for name, values in found.items()}


def _written(answer: dict[str, Any]) -> bytes:
    try:
        return to_json(answer)
    except ValueError as error:
        raise BadRequest("the network gives NaN or infinity for this input") from error


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """A packed body; never more of it than the limit."""
    windows = {"gzip": 31, "deflate": 15}
    if encoding not in windows:
        raise Refusal(415, "media", "a body may be packed by gzip or deflate")
    unpacker = zlib.decompressobj(windows[encoding])
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is no {encoding}: {error}") from error
    if len(plain) > limit:
        raise Refusal(413, "too_large", f"the body has more than {limit} bytes once unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"the body is no whole {encoding}")
    return plain


def _page() -> dict[str, tuple[bytes, dict[str, str]]]:
    """The page's files by path, and their headers."""
    files = {}
    for path, name in PAGE.items():
        body = (resources.files("fastconv.serving") / "page" / name).read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        kind = f"{TYPES[name.rsplit('.', 1)[1]]}; charset=utf-8"
        files[path] = (body, {**PAGE_HEADERS, "content-type": kind, "etag": etag})
    return files


def _tensor(info: Any) -> dict[str, Any]:
    return {
        "name": info.name,
        "datatype": protocol.NAMES.get(np.dtype(info.dtype), "BYTES"),
        "shape": [-1 if size is None else size for size in info.shape],
    }


def _config(served: Served, repository: Repository) -> dict[str, Any]:
    """As Triton describes a model."""
    session = served.session

    def tensor(info: Any) -> dict[str, Any]:
        told = _tensor(info)
        kind = {"BYTES": "STRING"}.get(told["datatype"], told["datatype"])
        shape = told["shape"] if served.alone else told["shape"][1:]
        return {"name": info.name, "data_type": f"TYPE_{kind}", "dims": shape}

    kind = "KIND_CPU" if session.device == "cpu" else "KIND_GPU"
    config = {
        "name": served.model,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": repository.versions}},
        "max_batch_size": 0 if served.alone else served.max_batch,
        "input": [tensor(info) for info in session.inputs],
        "output": [tensor(info) for info in session.outputs],
        "instance_group": [
            {"name": f"{served.model}_0", "kind": kind, "count": 1,
             "gpus": [] if kind == "KIND_CPU" else [0]}
        ],
        "default_model_filename": "model.onnx",
    }  # fmt: skip
    if not served.alone:
        config["dynamic_batching"] = {
            "preferred_batch_size": list(served.sizes),
            "max_queue_delay_microseconds": round(repository.how.max_delay * 1e6),
        }
    return config


def _card(served: Served, limits: Limits) -> dict[str, Any]:
    session, contract = served.session, served.contract
    told = {k: v for k, v in session.metadata.items() if k not in ("samples", "class_names")}
    return {
        "name": served.model,
        "version": served.version,
        **describe(served),
        "inputs": [_tensor(info) for info in session.inputs],
        "outputs": [_tensor(info) for info in session.outputs],
        "labels": session.labels,
        "classifier": _is_classifier(served),
        "probabilities": session.metadata.get("output") == "probabilities",
        "image": _image(contract),
        "metadata": told,
        "max_batch": served.max_batch,
        "latency": served.statistics.histogram(),
        "statistics": served.statistics.to_json(),
        "limits": {"body": limits.body, "pixels": limits.pixels},
    }


def _image(contract: Contract | None) -> dict[str, Any] | None:
    if contract is None or contract.channels is None:
        return None
    return {
        "channels": contract.channels,
        "height": contract.size[0],
        "width": contract.size[1],
        "layout": contract.layout,
        "range": contract.input_range or images.DEFAULT_RANGE,
        "files": images.available(),
    }


def _is_classifier(served: Served) -> bool:
    outputs = served.session.outputs
    if len(outputs) != 1 or served.alone:
        return False
    return len(outputs[0].shape) == 2 and outputs[0].dtype in protocol.NAMES


# -- /predict -------------------------------------------------------------------------------------


def _from_json(body: bytes, served: Served) -> dict[str, np.ndarray]:
    """Samples as JSON: a list for a single input, an object of lists for several; one sample or
    many, a single channel may be left out."""
    value = protocol.parse_json(body)
    known = {info.name: info for info in served.session.inputs}
    if isinstance(value, list):
        if len(known) > 1:
            raise BadRequest(f"the model has several inputs; send an object of {', '.join(known)}")
        value = {next(iter(known)): value}
    if not isinstance(value, dict) or set(value) != set(known):
        raise BadRequest(f"a list of numbers, or an object of {', '.join(known)}, is expected")
    feeds = {
        name: _fitted(protocol.numbers(value[name], name, np.dtype(info.dtype)), info, served)
        for name, info in known.items()
    }
    if not served.alone:
        protocol.check_rows(feeds)
    return feeds


def _fitted(array: np.ndarray, info: Any, served: Served) -> np.ndarray:
    """The array with the axes that may be left out: the samples', and that of a single channel."""
    candidates = [array]
    if not served.alone:
        candidates.append(array[None])
        contract = served.contract
        if contract is not None and contract.channels == 1:
            axis = 1 if contract.layout == "NCHW" else 3
            candidates += [np.expand_dims(a, axis) for a in (array, array[None]) if a.ndim == 3]
    for candidate in candidates:
        if _same(candidate.shape, info.shape):
            return candidate
    protocol.check_shape(info.name, array.shape, info.shape)
    return array


def _same(given: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(given) == len(wanted) and all(
        w in (None, g) and g for g, w in zip(given, wanted, strict=True)
    )


def _described(served: Served, outputs: Mapping[str, np.ndarray], top: int) -> dict[str, Any]:
    """The best classes of each sample; outputs of another kind as they are."""
    if served.contract is None or not _is_classifier(served):
        return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
    (scores,) = outputs.values()
    try:
        return {"results": [{"predictions": served.contract.best(row, top)} for row in scores]}
    except ValueError as error:  # the file's fault, not the client's
        raise SessionError(str(error), "export it again") from error
