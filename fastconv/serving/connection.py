"""One connection, which waits for nobody longer than it should.

uvicorn reads HTTP by httptools (llhttp), which takes a head of any length at any pace. Here a head
has a limit and a deadline, a client that does not fetch its answer is left, and what cannot be
understood is answered in JSON like every other error.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fastconv.serving.protocol import to_json

MAX_HEAD = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """What a connection may take: seconds for a head or an unread answer, open connections."""

    seconds: float
    connections: int
    refused: Callable[[int, str], None]  # told of what is answered here: status and cause


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits on what comes before a request is handed on."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head = 0  # bytes since a head or a piece of a body was last complete
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "connections", "too many connections; try again later")
        else:
            self._timer = self.loop.call_later(self._limits.seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD:
            self._refuse(431, "head", f"the request's head has more than {MAX_HEAD} bytes")
        elif self._head and self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._limits.seconds, self._too_slow)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client has said all it will; it may still wait for the answer."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return True
            self._refuse(400, "truncated", "the request ended before its body did")
        elif self._head:
            self._refuse(400, "truncated", "the request ended within its head")
        return None

    def on_headers_complete(self) -> None:
        if self._head > MAX_HEAD:  # head and body may have come together
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD:
                raise ValueError("the head is too large")  # the parser says it is no HTTP
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "http", "this is not HTTP/1.1 as it should be")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _too_slow(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(408, "slow", "the request's head did not come in time")

    def _refuse(self, status: int, cause: str, message: str) -> None:
        """Answer without the application, and close."""
        self._stop_timers()
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_started:
            self.transport.close()  # amid an answer there is no place for another
            return
        self._limits.refused(status, cause)
        body = to_json({"error": message})
        head = (
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        self._timer = self._unread = None
