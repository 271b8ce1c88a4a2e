"""The process: a socket, models that load behind it, an end that leaves no request unanswered."""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import uvicorn

from fastconv.serving import connection, images
from fastconv.serving.app import App, Limits
from fastconv.serving.batching import buckets
from fastconv.serving.errors import SessionError
from fastconv.serving.metrics import Metrics
from fastconv.serving.repository import Batching, Repository, plan
from fastconv.serving.session import Session

KEEP_ALIVE = 75  # seconds between two requests of a connection
BACKLOG = 1024
LINGER = 0.3  # seconds that idle connections stay open once the server ends

log = logging.getLogger("fastconv.serving")


@dataclass(frozen=True)
class Settings:
    """All that `fastconv serve` can be told.

    Attributes
    ----------
    path : Path
        A file, a folder of files, or a model repository.
    device, allow_cpu, tf32, threads, memory_limit, cuda_graphs
        See `fastconv.serving.Session`; `cuda_graphs` records one per batch size.
    host, port
        Port 0 takes a free one.
    poll : float
        Seconds between two looks at what lies on disk; 0: only what clients ask for is loaded.
    drain : float
        Seconds between being not ready and taking no more connections, for load balancers.
    """

    path: Path
    device: str = "auto"
    allow_cpu: bool = False
    tf32: bool = False
    threads: int | None = None
    memory_limit: int | None = None
    cuda_graphs: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    batching: Batching = field(default_factory=Batching)
    limits: Limits = field(default_factory=Limits)
    connections: int = 512
    versions: int = 1
    poll: float = 2.0
    drain: float = 0.0


def serve(settings: Settings) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises
    ------
    OSError
        The address cannot be had, or the path does not exist.
    SessionError
        Not a single model could be loaded.
    """
    os.stat(settings.path)
    with _listen(settings.host, settings.port) as listener:
        return asyncio.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> int:
    metrics = Metrics()
    repository = Repository(
        settings.path,
        functools.partial(open_session, settings),
        settings.batching,
        metrics,
        settings.versions,
    )
    app = App(repository, metrics, settings.limits, settings.token)
    server = Server(_config(app, settings), app, settings.drain)
    _announce(settings, listener)
    watcher = asyncio.create_task(_watch(repository, settings.poll, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
        await repository.close()
    if not watcher.cancelled() and (error := watcher.exception()) is not None:
        raise error
    return 0


def open_session(settings: Settings, path: Path, max_batch: int) -> Session:
    """A session that is loaded, proved and warmed up at each batch size it will run.

    Raises
    ------
    SessionError
    """
    session = Session(
        path,
        settings.device,
        allow_cpu=settings.allow_cpu,
        tf32=settings.tf32,
        threads=settings.threads,
        spin=False,  # the event loop wants the processor, too
        memory_limit=settings.memory_limit,
        cuda_graphs=buckets(max_batch) if settings.cuda_graphs else (),
        prove=False,
    )
    proof = session.prove()
    if not proof.ok:
        raise FailedProof(f"{path} failed its proof: {proof.reason}")
    largest, sizes, alone = plan(session, max_batch)
    try:
        session.warm_up([1] if alone else (sizes or buckets(largest)))
    except ValueError as error:  # sizes that are free and no sample that tells them
        log.warning("model %s is not warmed up: %s", session.name, error)
    return session


class FailedProof(SessionError):
    """The network runs, and gives other numbers than the trainer."""


async def _watch(repository: Repository, poll: float, server: "Server") -> None:
    """Load what lies on disk, then look again and again."""
    try:
        failures = await repository.refresh()
        if not repository.models:
            raise SessionError(
                f"{repository.path} holds no model",
                "name a .onnx file, a folder of them, or <model>/<version>/model.onnx below it",
            )
        served = any(model.served for model in repository.models.values())
        if failures and not served and not any(isinstance(f, FailedProof) for f in failures):
            raise failures[0]
    except BaseException:
        server.should_exit = True
        raise
    while poll:
        await asyncio.sleep(poll)
        try:
            await repository.refresh()
        except OSError as error:
            log.error("cannot look for models: %s", error)
        except Exception:  # what is served goes on, and so does the looking
            log.exception("an error within the server while it looked for models")


# -- uvicorn --------------------------------------------------------------------------------------


def _config(app: App, settings: Settings) -> uvicorn.Config:
    def refused(status: int, cause: str) -> None:
        app.metrics.requests.labels("none", str(status)).inc()
        app.metrics.errors.labels(cause).inc()

    limits = connection.Limits(settings.limits.read, settings.connections, refused)
    return uvicorn.Config(
        app,
        http=functools.partial(connection.Connection, limits=limits),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.limits.answer + settings.limits.read) + 1,
    )


class Server(uvicorn.Server):
    """uvicorn's server with an end in order: not ready; a while later no new connections; answers
    to all that came; and only then closed connections."""

    def __init__(self, config: uvicorn.Config, app: App, drain: float) -> None:
        super().__init__(config)
        self._app, self._drain = app, drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends it at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._app.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.draining = True
        log.info("ending: %d connections are open", len(self.server_state.connections))
        if self._drain and not self.force_exit:
            await asyncio.sleep(self._drain)
        for listener in sockets or []:
            await self._last_call(listener)
        # every answer now asks its client to close; who is silent for so long is idle
        await asyncio.sleep(LINGER)
        await super().shutdown(sockets)

    async def _last_call(self, listener: socket.socket) -> None:
        """Take the connections that the system has already accepted in our name, then listen no
        more: closing the listener alone would break them off."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        accepted = []
        with contextlib.suppress(OSError):  # none is left
            while True:
                accepted.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for peer in accepted:
            peer.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, peer)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state={}
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise OSError(error.errno, f"unknown host: {error.strerror}", host) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return listener


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(
        f"fastconv: serving {settings.path} at http://{shown}:{port}", file=sys.stderr, flush=True
    )
    if settings.token is None and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        log.warning("everybody who reaches %s may ask this server: it has no token", host)
    if not images.available():
        log.warning("images cannot be read: pillow is missing (pip install 'fastconv[data]')")
