"""The models that are served: found on disk, loaded, proved, swapped.

A path is a file (one model), a folder of files (a model each), or a folder in Triton's layout,
``<model>/<version>/model.onnx``. A new version is loaded, proved and warmed up beside the old one;
then new requests go to it, and the old one is closed once its last request is answered. A version
that fails leaves the old one in its place.

Everything but the loading itself happens on the event loop's thread.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastconv.serving import batching
from fastconv.serving.contract import Contract, contract
from fastconv.serving.errors import SessionError
from fastconv.serving.metrics import Metrics, Statistics

if TYPE_CHECKING:
    from fastconv.serving.session import Session

LOADING, READY, UNAVAILABLE = "LOADING", "READY", "UNAVAILABLE"  # the protocol's words
MODEL_FILE = "model.onnx"

log = logging.getLogger("fastconv.serving")


class Unknown(LookupError):
    """There is no such model or version."""


class NotReady(RuntimeError):
    """The model is there and cannot be asked now; the message says why."""


class Source(NamedTuple):
    """A version's file, and what tells whether it has been written anew."""

    path: Path
    stamp: tuple[int, int, int]


@dataclass(frozen=True)
class Batching:
    """How requests become batches; see `batching.Batcher`."""

    max_batch: int = 32
    max_delay: float = 0.0
    queue: int = 256


class Served:
    """A version that is loaded, proved and warmed up, with its queue."""

    def __init__(
        self, model: str, version: str, session: "Session", how: Batching, metrics: Metrics
    ) -> None:
        self.model, self.version, self.session = model, version, session
        self.statistics = Statistics(metrics, model, version)
        self.contract = _contract(session)
        self.max_batch, self.sizes, self.alone = plan(session, how.max_batch)
        self.batcher = batching.Batcher(
            session.run,
            self.max_batch,
            how.max_delay,
            how.queue,
            self.sizes,
            self._observe,
            self.alone,
        )
        self._how, self._metrics = how, metrics
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._labels = (
            model, version, session.device, session.provider, session.fallback or ""
        )  # fmt: skip
        metrics.device.labels(*self._labels).set(1)
        metrics.waiting.labels(model, version).set_function(lambda: self.batcher.waiting)

    @contextmanager
    def lease(self) -> Iterator["Served"]:
        """While it lasts, the version is not closed."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    def _observe(self, batch: batching.Batch) -> None:
        self.statistics.ran(batch.rows, batch.compute, batch.failed)

    async def retire(self, successor: "Callable[[], bool]") -> None:
        """Answer what has come, then give everything back.

        Where the same version of the model has a successor by then, the metrics go on as its own.
        """
        await self._unused.wait()
        await self.batcher.close()
        self.session.close()
        if successor():
            return
        self._metrics.device.remove(*self._labels)
        self._metrics.waiting.remove(self.model, self.version)
        self.statistics.forget()


def _contract(session: "Session") -> Contract | None:
    """What the network takes and gives, where that is one input and one output."""
    try:
        return contract(session)
    except ValueError:
        return None


def plan(session: "Session", max_batch: int) -> tuple[int, tuple[int, ...], bool]:
    """The largest batch, the sizes to fill batches up to, and whether the model has no batch axis.

    On a GPU a size that was never run is slow the first time, and graphs are recorded by size: a
    batch is filled up to 1, 2, 4 …. A CPU would only compute the filling; there any size runs. A
    file with a fixed batch gets just that.
    """
    tensors = (*session.inputs, *session.outputs)
    if any(not info.shape for info in tensors):
        return 1, (), True
    fixed = {info.shape[0] for info in tensors} - {None}
    if not fixed:
        return max_batch, (() if session.device == "cpu" else batching.buckets(max_batch)), False
    if len(fixed) == 1 and all(info.shape[0] in fixed for info in tensors):
        size = fixed.pop()
        assert size is not None
        return size, (size,), False
    return 1, (), True


@dataclass
class Model:
    """A name, and the versions behind it."""

    name: str
    served: dict[str, Served] = field(default_factory=dict)
    stamps: dict[str, Source] = field(default_factory=dict)  # of what was tried last
    states: dict[str, tuple[str, str]] = field(default_factory=dict)  # version → state, reason
    unloaded: bool = False  # by a client; stays so until a client loads it

    def newest(self) -> Served | None:
        return self.served[max(self.served, key=version_key)] if self.served else None


def version_key(version: str) -> tuple[int, str]:
    """Versions are numbers and compare as such."""
    return (int(version) if version.isdecimal() else -1, version)


class Repository:
    """All models of a server.

    Parameters
    ----------
    path : Path
    open_session : callable
        ``open_session(path, batch_sizes) -> Session``, loaded and proved; runs in a thread.
    how : Batching
    versions : int
        The newest so many versions of a model are served.
    metrics : Metrics
    """

    def __init__(
        self,
        path: Path,
        open_session: "Callable[[Path, int], Session]",
        how: Batching,
        metrics: Metrics,
        versions: int = 1,
    ) -> None:
        self.path, self.how, self.versions, self.metrics = path, how, versions, metrics
        self.models: dict[str, Model] = {}
        self._open_session = open_session
        self._loader = ThreadPoolExecutor(1, "fastconv-loader")
        self._turn = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    # -- asking -----------------------------------------------------------------------------------

    def get(self, name: str, version: str | None = None) -> Served:
        """The version that answers now; the newest where none is named.

        Raises
        ------
        Unknown, NotReady
        """
        model = self.models.get(name)
        if model is None:
            raise Unknown("there is no such model")
        served = model.newest() if version is None else model.served.get(version)
        if served is not None:
            return served
        if version is not None and version not in model.states:
            raise Unknown(f"model {name!r} has no such version")
        raise NotReady(f"model {name!r} is not ready: {self._reason(model, version)}")

    def _reason(self, model: Model, version: str | None) -> str:
        if model.unloaded:
            return "it was unloaded"
        wanted = version or max(model.states, key=version_key, default=None)
        state, reason = model.states.get(wanted or "", (LOADING, ""))
        return reason or state.lower()

    def why_not_ready(self) -> str | None:
        """None when every model that should be served is."""
        if not self.models:
            return "no model is loaded yet"
        for model in self.models.values():
            if not model.served and not model.unloaded:
                return f"model {model.name!r} is not ready: {self._reason(model, None)}"
        return None

    def index(self, ready_only: bool = False) -> list[dict[str, str]]:
        """Every version that is known, with its state and the reason for it."""
        rows = []
        for model in self.models.values():
            for version in sorted(model.states, key=version_key):
                state, reason = model.states[version]
                if state == READY or not ready_only:
                    rows.append(
                        {"name": model.name, "version": version, "state": state, "reason": reason}
                    )
        return rows

    # -- changing ---------------------------------------------------------------------------------

    async def refresh(self) -> list[SessionError]:
        """Look what lies on disk and serve what is new; what could not be loaded."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._loader, find, self.path)
            failures: list[SessionError] = []
            for name in found:
                self.models.setdefault(name, Model(name))
            for name, model in list(self.models.items()):
                if name not in found:
                    self._drop(model, "its files are gone")
                    del self.models[name]
                elif not model.unloaded:
                    failures += await self._update(model, found[name])
            return failures

    async def load(self, name: str) -> None:
        """Load a model, or load it anew.

        Raises
        ------
        Unknown
        SessionError
        """
        async with self._turn:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._loader, find, self.path)
            if name not in found:
                raise Unknown("there is no such model")
            model = self.models.setdefault(name, Model(name))
            model.unloaded = False
            model.stamps.clear()
            if failures := await self._update(model, found[name]):
                raise failures[0]

    async def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded again.

        Raises
        ------
        Unknown
        """
        async with self._turn:
            model = self.models.get(name)
            if model is None:
                raise Unknown("there is no such model")
            model.unloaded = True
            self._drop(model, "unloaded")

    async def close(self) -> None:
        """Answer what has come, then give everything back."""
        async with self._turn:
            for model in self.models.values():
                self._drop(model, "the server ends")
        if self._retiring:
            await asyncio.wait(self._retiring)
        self._loader.shutdown()

    async def _update(self, model: Model, sources: dict[str, Source]) -> list[SessionError]:
        """Bring a model to what lies on disk: the newest versions that can be served."""
        failures: list[SessionError] = []
        for version in [v for v in model.states if v not in sources]:
            del model.states[version]
            model.stamps.pop(version, None)
            self._retire(model, version)
        wanted = sorted(sources, key=version_key, reverse=True)[: self.versions]
        for version in wanted:
            source = sources[version]
            if model.stamps.get(version) == source:
                continue
            model.stamps[version] = source
            if version not in model.served:
                model.states[version] = (LOADING, "")
            try:
                served = await self._load(model.name, version, source.path)
            except SessionError as error:
                failures.append(error)
                log.error("model %s version %s: %s", model.name, version, error)
                if version in model.served:
                    words = f"still the file before: {error}"
                    model.states[version] = (READY, words)
                else:
                    model.states[version] = (UNAVAILABLE, str(error))
                continue
            self._retire(model, version)
            model.served[version] = served
            model.states[version] = (READY, "")
            _log_ready(served)
        # an older version goes only when so many newer ones are served
        for version in sorted(model.served, key=version_key, reverse=True)[self.versions :]:
            self._retire(model, version)
            model.states[version] = (UNAVAILABLE, "a newer version is served")
        return failures

    async def _load(self, name: str, version: str, path: Path) -> Served:
        loop = asyncio.get_running_loop()
        try:
            session = await loop.run_in_executor(
                self._loader, self._open_session, path, self.how.max_batch
            )
        except OSError as error:
            raise SessionError(f"{path}: {error.strerror or error}") from error
        return Served(name, version, session, self.how, self.metrics)

    def _drop(self, model: Model, reason: str) -> None:
        for version in list(model.served):
            self._retire(model, version)
            model.states[version] = (UNAVAILABLE, reason)
        model.stamps.clear()

    def _retire(self, model: Model, version: str) -> None:
        served = model.served.pop(version, None)
        if served is not None:

            def successor() -> bool:  # of that name now: files may have gone and come back
                now = self.models.get(model.name)
                return now is not None and version in now.served

            task = asyncio.get_running_loop().create_task(served.retire(successor))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)


def _log_ready(served: Served) -> None:
    session = served.session
    log.info(
        "model %s version %s is ready on %s: %s",
        served.model, served.version, session.provider, session.proof,
        extra={"model": served.model, "version": served.version, "provider": session.provider},
    )  # fmt: skip


# -- what lies on disk ----------------------------------------------------------------------------


def find(path: Path) -> dict[str, dict[str, Source]]:
    """Models and their versions below a path, whichever of the layouts it has."""
    if not path.is_dir():
        return {path.stem: {"1": source}} if (source := _source(path)) else {}
    if versions := _versions(path):
        return {path.resolve().name: versions}
    found: dict[str, dict[str, Source]] = {}
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.suffix == ".onnx" and (source := _source(entry)):
            found[entry.stem] = {"1": source}
        elif entry.is_dir() and (versions := _versions(entry)):
            found[entry.name] = versions
    return found


def _versions(folder: Path) -> dict[str, Source]:
    """Version folders, whose names are numbers from 1 on, with a model in each."""
    found = {}
    for entry in folder.iterdir():
        if entry.name.isdecimal() and entry.name[0] != "0":
            path = entry / MODEL_FILE
            if not path.is_file():
                path = next(iter(sorted(entry.glob("*.onnx"))), path)
            if source := _source(path):
                found[entry.name] = source
    return found


def _source(path: Path) -> Source | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Source(path, (status.st_mtime_ns, status.st_size, status.st_ino))


def describe(served: Served) -> dict[str, Any]:
    """Where a version runs, and how that was proved."""
    session, proof = served.session, served.session.proof
    return {
        "device": session.device,
        "provider": session.provider,
        "fallback": session.fallback,
        "proof": None
        if proof is None
        else {
            "ok": proof.ok,
            "samples": proof.samples,
            "tolerance": proof.tolerance,
            "difference": proof.difference if proof.difference < float("inf") else None,
            "reason": proof.reason,
        },
    }
