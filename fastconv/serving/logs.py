"""Logs of the server: a line per event, for people or as JSON for machines."""

import json
import logging
import sys
import time
from typing import Any

FIELDS = (
    "request_id", "client", "method", "path", "status", "milliseconds", "cause",
    "model", "version", "provider", "batch",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """An object per line: time, level, message, and the fields that the event has."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        extras = record.__dict__
        entry |= {name: extras[name] for name in FIELDS if extras.get(name) is not None}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """A line as people read it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")


def configure(form: str, level: str) -> None:
    """Send the server's and uvicorn's log lines to stderr.

    Parameters
    ----------
    form : {"text", "json", "auto"}
        "auto" is text on a terminal and JSON elsewhere.
    level : {"debug", "info", "warning", "error"}
        Requests are told at "info".
    """
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    for name, least in (("fastconv", level), ("uvicorn", "warning")):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(least.upper())
