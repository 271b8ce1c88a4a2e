"""The OpenAPI document of the server, for clients and for those who write them."""

from typing import Any

from fastconv.serving.protocol import DATATYPES
from fastconv.version import __version__

JSON = "application/json"


def document(token: bool) -> dict[str, Any]:
    """The document; with a token, all but the page and the health checks ask for it."""
    paths = _health() | _models() | _repository() | _others()
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "fastconv",
            "version": __version__,
            "description": "The Open Inference Protocol v2 over REST with binary tensors, "
            "classification, statistics and a model repository, and `POST /predict` for images.",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, "responses": RESPONSES},
    }
    if token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
        for path in ("/v2/health/live", "/v2/health/ready"):
            paths[path]["get"]["security"] = []
    return described


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(schema: dict[str, Any] | None, words: str = "OK") -> dict[str, Any]:
    answer: dict[str, Any] = {"description": words}
    return answer if schema is None else {**answer, "content": {JSON: {"schema": schema}}}


def _operation(
    name: str,
    summary: str,
    schema: dict[str, Any] | None,
    errors: tuple[int, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    responses = {"200": _answer(schema)}
    responses |= {str(code): {"$ref": "#/components/responses/Error"} for code in errors}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


def _path(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]


def _health() -> dict[str, Any]:
    return {
        "/v2/health/live": {"get": _operation("live", "The process answers", None)},
        "/v2/health/ready": {
            "get": _operation("ready", "Every model is loaded, proved and warmed up", None, (503,))
        },
        "/v2": {"get": _operation("server", "Name, version, extensions", {"type": "object"})},
    }


def _models() -> dict[str, Any]:
    body = {
        "required": True,
        "content": {
            JSON: {"schema": _ref("InferRequest")},
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
            },
        },
    }
    header = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON before the binary tensors.",
        "schema": {"type": "integer", "minimum": 0},
    }
    faults = (400, 401, 404, 408, 413, 429, 503, 504)
    found = {}
    for base, names in (
        ("/v2/models/{model}", ("model",)),
        ("/v2/models/{model}/versions/{version}", ("model", "version")),
    ):
        end = "_version" if len(names) == 2 else ""
        where = {"parameters": _path(*names)}
        gets = {
            "": ("metadata", "Inputs and outputs", _ref("Model")),
            "/ready": ("model_ready", "Whether it can be asked", None),
            "/config": ("config", "How it is served", {"type": "object"}),
            "/stats": ("stats", "How often, and how long", _ref("Statistics")),
        }
        for tail, (name, words, schema) in gets.items():
            get = _operation(name + end, words, schema, (401, 404, 503))
            found[base + tail] = {"get": get, **where}
        infer = _operation("infer" + end, "Ask the network", _ref("InferResponse"), faults)
        infer |= {"requestBody": body, "parameters": [header]}
        found[f"{base}/infer"] = {"post": infer, **where}
    get = _operation("all_stats", "Of all models", _ref("Statistics"), (401,))
    return {**found, "/v2/models/stats": {"get": get}}


def _repository() -> dict[str, Any]:
    rows = {"type": "array", "items": _ref("IndexEntry")}
    index = _operation("index", "Versions and their states", rows, (400, 401))
    index["requestBody"] = {
        "content": {
            JSON: {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}
        }
    }
    found: dict[str, Any] = {"/v2/repository/index": {"post": index}}
    for verb, words in (("load", "Load, prove and serve"), ("unload", "Serve no more")):
        found[f"/v2/repository/models/{{model}}/{verb}"] = {
            "post": _operation(verb, words, None, (400, 401, 404)),
            "parameters": _path("model"),
        }
    return found


def _others() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    predict = _operation(
        "predict",
        "An image or numbers, answered by classes",
        _ref("Predictions"),
        (400, 401, 404, 408, 413, 415, 429, 503, 504),
        requestBody={
            "required": True,
            "content": {"image/png": binary, "image/jpeg": binary, JSON: {"schema": {}}},
        },
        parameters=[
            {"name": "model", "in": "query", "schema": {"type": "string"},
             "description": "May be left out where there is one."},
            {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1}},
            {"name": "invert", "in": "query", "schema": {"enum": ["0", "1"]},
             "description": "Exchange black and white of an image."},
        ],
    )  # fmt: skip
    text = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return {
        "/predict": {"post": predict},
        "/models": {"get": _operation("cards", "What the page shows", {"type": "array"}, (401,))},
        "/metrics": {
            "get": {"operationId": "metrics", "summary": "For Prometheus", "responses": text}
        },
        "/openapi.json": {"get": _operation("openapi", "This document", {"type": "object"})},
    }


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_TEXT = {"type": "string"}
_SIZES = {"type": "array", "items": {"type": "integer"}}
_LIST = {"type": "array"}
_PARAMETERS = {"type": "object"}
_DATATYPE = {"enum": [*DATATYPES, "BYTES"]}

RESPONSES = {
    "Error": {
        "description": "What is wrong, in a sentence",
        "content": {JSON: {"schema": _ref("Error")}},
    }
}
SCHEMAS = {
    "Error": _object(("error",), error=_TEXT),
    "TensorInfo": _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE,
                          shape=_SIZES),
    "Model": _object(
        ("name", "versions", "inputs", "outputs"), name=_TEXT,
        versions={"type": "array", "items": _TEXT}, platform=_TEXT,
        inputs={"type": "array", "items": _ref("TensorInfo")},
        outputs={"type": "array", "items": _ref("TensorInfo")}, parameters=_PARAMETERS,
    ),
    "Input": _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE,
                     shape={"type": "array", "items": {"type": "integer", "minimum": 1}},
                     data=_LIST, parameters=_PARAMETERS),
    "Wanted": _object(("name",), name=_TEXT, parameters=_PARAMETERS),
    "Output": _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SIZES,
                      data=_LIST, parameters=_PARAMETERS),
    "InferRequest": _object(
        ("inputs",), id=_TEXT, inputs={"type": "array", "items": _ref("Input")},
        outputs={"type": "array", "items": _ref("Wanted")}, parameters=_PARAMETERS,
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"), id=_TEXT, model_name=_TEXT,
        model_version=_TEXT, outputs={"type": "array", "items": _ref("Output")},
    ),
    "IndexEntry": _object(("name", "version", "state", "reason"), name=_TEXT, version=_TEXT,
                          state={"enum": ["READY", "LOADING", "UNAVAILABLE"]}, reason=_TEXT),
    "Statistics": _object(("model_stats",), model_stats={"type": "array",
                                                         "items": {"type": "object"}}),
    "Prediction": _object(("class", "index"), **{"class": _TEXT}, index={"type": "integer"},
                          probability={"type": "number"}, score={"type": "number"}),
    "Predictions": _object(
        ("model", "version"), model=_TEXT, version=_TEXT,
        results={"type": "array", "items": _object(
            predictions={"type": "array", "items": _ref("Prediction")})},
        outputs={"type": "object"},
    ),
}  # fmt: skip
