"""The loops of `fit`, `evaluate` and `predict`: batches through a pass, callbacks beside it.

A `Run` is one call of `fit`. Between two steps it can say where it stands, to the last bit (`Run.
state`), and another process can go on from there (`Run.restore`): epoch, step, the order of the
samples, the random state, the means so far, what callbacks remember.
"""

import hashlib
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import backend
from fastconv.callback import CallbackList, Logs
from fastconv.feeding import Batch, Source
from fastconv.history import History
from fastconv.nonfinite import where_nonfinite
from fastconv.progress import Progress

if TYPE_CHECKING:
    from fastconv.model import Model
    from fastconv.plan import RunningPass
    from fastconv.training import BatchRunner

PART_SEED = 0xD1342543DE82EF95  # another mask of dropout for each part of a batch


class Lane:
    """The pass that batches run through; a new one where shapes change or a batch is larger.

    Parameters
    ----------
    model : Model
    purpose : "fit" or "evaluate"
    capacity : int, optional
        The largest batch that is expected.
    """

    def __init__(self, model: "Model", purpose: str, capacity: int | None) -> None:
        self.model = model
        self.purpose = purpose
        self.capacity = capacity or 1
        self.key: tuple[Any, ...] | None = None
        self.seen: Any = None  # the list of arrays that the key was made of
        self.running: RunningPass | None = None
        self.runner: BatchRunner | None = None
        self.pending: dict[str, Any] | None = None  # means for the first pass to go on from

    def use(self, batch: Batch) -> "tuple[BatchRunner, RunningPass]":
        """Runner and pass for this batch."""
        if batch.x is not self.seen or self.running is None or batch.n > self.running.capacity:
            key = (batch.weights is not None, *[a.shape[1:] for a in batch.x])
            if key != self.key or self.running is None or batch.n > self.running.capacity:
                self._change(batch, key)
            self.seen = batch.x
        assert self.runner is not None
        assert self.running is not None
        return self.runner, self.running

    def _change(self, batch: Batch, key: tuple[Any, ...]) -> None:
        state = self.runner.state() if self.runner is not None else self.pending
        self.close()
        weighted = " weighted" if batch.weights is not None else ""
        plan, heads = self.model._plan(self.purpose + weighted, batch.x)
        self.capacity = max(self.capacity, batch.n)
        self.running = plan.borrow(self.capacity)
        self.runner = self.model._runner(plan, heads, self.running)
        if state is not None:
            self.runner.restore(state)
        self.key, self.pending = key, None

    def reset(self) -> None:
        """Begin new means."""
        if self.runner is not None:
            self.runner.reset()

    def logs(self) -> Logs:
        assert self.runner is not None
        return self.runner.logs()

    @property
    def samples(self) -> int:
        return 0 if self.runner is None else self.runner.samples

    def close(self) -> None:
        """The pass is free for others."""
        if self.running is not None:
            self.running.plan.give_back(self.running)
        self.running = self.runner = self.key = self.seen = None


class Run:
    """One call of `fit`.

    Attributes
    ----------
    epoch, step : int
        Where the training stands: ``step`` batches of this epoch are through.
    interrupted : bool
        Ctrl-C was pressed: the training ends after this step.
    """

    def __init__(
        self,
        model: "Model",
        source: Source,
        held: Source | None,
        *,
        epochs: int,
        initial_epoch: int,
        callbacks: Any,
        verbose: int,
        accumulate_steps: int = 1,
        validation_freq: Any = 1,
        class_weight: Any = None,
    ) -> None:
        self.model = model
        self.source = source
        self.held = held
        self.epochs = epochs
        self.epoch = initial_epoch
        self.step = 0
        self.order: int | None = None  # the seed of this epoch's batches
        self.verbose = verbose
        self.accumulate = accumulate_steps
        self.validation_freq = validation_freq
        self.class_weight = class_weight  # which the batches have already
        self.interrupted = False
        self.watched = False  # a callback ends the training where the loss is not finite
        self.recorded = False  # the batches are remembered, for a run that goes on
        self.digest = hashlib.blake2b(digest_size=16)
        self.complaint: str | None = None  # where the loss became NaN
        capacity = source.largest
        self.lane = Lane(model, "fit", capacity and -(-capacity // accumulate_steps))
        self.history = History()
        self.callbacks = CallbackList([*CallbackList(callbacks).callbacks, self.history])
        self.params = {
            "verbose": verbose, "epochs": epochs, "steps": source.steps,
            "batch_size": source.batch_size,
        }  # fmt: skip

    def train(self) -> History:
        """All epochs that are left."""
        model, callbacks = self.model, self.callbacks
        model.stop_training = False
        model.history = self.history
        self.optimizer = model.optimizer
        self.optimizer.build(model._trainable())
        try:
            with _interrupts(self):
                callbacks.begin(model, self.params, self)
                callbacks.call("on_train_begin", {})
                logs: Logs = {}
                while self.epoch < self.epochs and not (self.interrupted or model.stop_training):
                    logs = self._train_epoch()
                if not self.interrupted:
                    self.optimizer.finalize_variable_values()
                callbacks.call("on_train_end", logs)
        finally:
            self.lane.close()
            callbacks.close()
        if self.interrupted:
            raise KeyboardInterrupt
        return self.history

    def _train_epoch(self) -> Logs:
        callbacks, lane, resumed = self.callbacks, self.lane, self.order is not None
        if not resumed:
            callbacks.call("on_epoch_begin", self.epoch, {})
            self.order = backend.next_seed() if self.source.random else 0
            self.digest = hashlib.blake2b(digest_size=16)
            lane.reset()
        title = f"Epoch {self.epoch + 1}/{self.epochs}"
        bar = Progress(title, self.source.steps, self.verbose, self.step)
        logs: Logs | None = None
        try:
            self._train_batches(bar, self.step if resumed else 0)
            if self.interrupted:
                return {}
            found = lane.logs()
            if self.held is not None and self._validates():
                validated = evaluate(self.model, self.held, callbacks)
                found |= {f"val_{name}": value for name, value in validated.items()}
            logs = found
        finally:
            bar.close(lane.samples, logs)
        self.epoch, self.step, self.order = self.epoch + 1, 0, None
        callbacks.call("on_epoch_end", self.epoch - 1, logs)
        return logs

    def _train_batches(self, bar: Progress, done: int) -> None:
        """The steps that are left of this epoch, of which so many are done already."""
        model, callbacks, lane = self.model, self.callbacks, self.lane
        begins = "on_train_batch_begin" in callbacks.hooks
        ends = "on_train_batch_end" in callbacks.hooks
        assert self.order is not None
        for batch in self.source.epoch(self.order, done):
            if begins:
                callbacks.call("on_train_batch_begin", self.step, {})
            if self.recorded:
                self.record(batch)
            self._update(batch)
            self.step += 1
            bar.update(lane.samples, lane.logs)
            if ends:
                callbacks.call("on_train_batch_end", self.step - 1, lane.logs())
            if self.interrupted or model.stop_training:
                return

    def _update(self, batch: Batch) -> None:
        """Forward, backward and update from one batch."""
        if self.accumulate > 1:
            self._update_in_parts(batch)
        elif self._forward(batch, self.model.seed):
            self.lane.running.backward()  # type: ignore[union-attr]
            self.optimizer.apply()

    def _forward(self, batch: Batch, seed: int) -> bool:
        """False where the training ends before this batch is learned."""
        runner, running = self.lane.use(batch)
        loss = runner.forward(
            running, batch.x, batch.y, batch.index, batch.n, seed, self.optimizer.iterations,
            batch.weights,
        )  # fmt: skip
        return isfinite(loss) or not self._stop_at(batch, loss)

    def _update_in_parts(self, batch: Batch) -> None:
        """One update from the gradients of all parts, each as large as its share of the samples."""
        parts, before = batch.parts(self.accumulate), 0
        for number, part in enumerate(parts):
            if not self._forward(part, (self.model.seed + number * PART_SEED) & backend.MASK):
                return
            running = self.lane.running
            assert running is not None
            if number and part.n != before:
                self._scale(before / part.n)  # the parts so far, as if they were of this size
            running.backward(accumulate=number > 0)
            before = part.n
        self._scale(before / batch.n)
        self.optimizer.apply()

    def _scale(self, factor: float) -> None:
        assert self.lane.runner is not None
        for parameter in self.lane.runner.heads.trained:
            parameter.grad[...] *= factor

    def _stop_at(self, batch: Batch, loss: float) -> bool:
        """Say where NaN or infinity came from; whether the training ends before it is learned."""
        if self.complaint is None:
            x, y = batch.rows()
            self.complaint = (
                f"the loss is {loss} in step {self.step} of epoch {self.epoch + 1}: "
                + where_nonfinite(self.model, x, y, self.model.optimizer.iterations)
            )
            if not self.watched:
                warnings.warn(self.complaint, RuntimeWarning, stacklevel=6)
        if self.watched:
            self.model.stop_training = True
        return self.watched

    def _validates(self) -> bool:
        freq = self.validation_freq
        if isinstance(freq, int):
            return (self.epoch + 1) % freq == 0
        return self.epoch + 1 in freq

    # -- a run that goes on -------------------------------------------------------------------

    def record(self, batch: Batch) -> None:
        """Remember what this batch held."""
        for array in (*(rows := batch.rows())[0], *rows[1]):
            self.digest.update(np.ascontiguousarray(array).data)

    def state(self) -> dict[str, Any]:
        """Where the run stands, between two steps: plain data, and arrays."""
        model, optimizer = self.model, self.model.optimizer
        parameters = model.parameters()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "order": self.order,
            "random": backend.random_state(),
            "seed": model.seed,
            "iterations": optimizer.iterations,
            "learning_rate": None if optimizer.schedule else optimizer.learning_rate,
            "means": self.lane.runner.state() if self.step and self.lane.runner else None,
            "digest": self.digest.hexdigest() if self.recorded else None,
            "source": self.source.state(),
            "callbacks": [
                [type(callback).__name__, callback.get_state()]
                for callback in self.callbacks.callbacks
            ],
            "parameters": [p.value for p in parameters],
            "optimizer": list(optimizer.variables(parameters).values()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was asked for; parameters and optimizer must be the same kind.

        The model is changed last, when nothing can be refused any more.
        """
        self._check(state)
        self.epoch, self.step, self.order = state["epoch"], state["step"], state["order"]
        self.lane.pending = state["means"]
        self._replay(state)
        for callback, (_, own) in zip(self.callbacks.callbacks, state["callbacks"], strict=True):
            callback.set_state(own)
        model, optimizer = self.model, self.model.optimizer
        parameters = model.parameters()
        live = [p.value for p in parameters], list(optimizer.variables(parameters).values())
        for arrays, saved in zip(live, (state["parameters"], state["optimizer"]), strict=True):
            for array, value in zip(arrays, saved, strict=True):
                array[...] = value
        optimizer.iterations = state["iterations"]
        if state["learning_rate"] is not None:
            optimizer.learning_rate = state["learning_rate"]
        model.seed = state["seed"]
        backend.set_random_state(state["random"])

    def _check(self, state: Mapping[str, Any]) -> None:
        """Refuse what cannot go on from `state`."""
        epoch, step = state["epoch"], state["step"]
        if epoch + (step > 0) > self.epochs:
            there = f"{step} steps of epoch {epoch + 1}" if step else f"{epoch} epochs"
            raise ValueError(
                f"{there} are done already, and epochs={self.epochs} are asked for: give at least "
                f"{epoch + (step > 0)}"
            )
        kinds = [type(callback).__name__ for callback in self.callbacks.callbacks]
        if kinds != (saved := [kind for kind, _ in state["callbacks"]]):
            raise ValueError(
                "the run that is to go on had other callbacks: "
                f"{', '.join(saved)}; now there are {', '.join(kinds)}"
            )
        model = self.model
        variables = model.optimizer.variables(model.parameters())
        if len(variables) != len(state["optimizer"]):  # of layers that were frozen, or were not
            raise ValueError(
                f"it holds {len(state['optimizer'])} arrays of the optimizer, there are "
                f"{len(variables)} now: the optimizer has been used for other parameters"
            )

    def _replay(self, state: Mapping[str, Any]) -> None:
        """Go to the place in the epoch, past batches that must be those that were there before."""
        for batch in self.source.replay(self.order or 0, self.step, state["source"]):
            if self.recorded:
                self.record(batch)
            self.lane.use(batch)  # a pass for the means so far
        if self.recorded and self.step and self.digest.hexdigest() != state["digest"]:
            raise ValueError(
                f"the data have changed: the first {self.step} batches of epoch {self.epoch + 1} "
                "are not those that the interrupted run was trained with"
            )


def evaluate(
    model: "Model", source: Source, callbacks: CallbackList, title: str = "", verbose: int = 0
) -> Logs:
    """The means of loss and metrics over an epoch of ``source``."""
    lane = Lane(model, "evaluate", source.largest)
    bar = Progress(title, source.steps, verbose)
    logs: Logs | None = None
    begins = "on_test_batch_begin" in callbacks.hooks
    ends = "on_test_batch_end" in callbacks.hooks
    callbacks.call("on_test_begin", {})
    try:
        for number, batch in enumerate(source.epoch(0)):
            if begins:
                callbacks.call("on_test_batch_begin", number, {})
            runner, running = lane.use(batch)
            runner.forward(running, batch.x, batch.y, batch.index, batch.n, 0, 0, batch.weights)
            bar.update(runner.samples, runner.logs)
            if ends:
                callbacks.call("on_test_batch_end", number, runner.logs())
        logs = lane.logs()
        callbacks.call("on_test_end", logs)
    finally:
        bar.close(lane.samples, logs)
        lane.close()
    return logs


@contextmanager
def _interrupts(run: Run) -> Iterator[None]:
    """Ctrl-C ends the run after its step; pressed again, at once.

    So does SIGTERM where it has been given Python's handler of Ctrl-C. Where somebody else's
    handler is, that one decides.
    """
    ours: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        give_back()
        run.interrupted = True

    def give_back() -> None:
        for number in ours:
            signal.signal(number, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is signal.default_int_handler:
                ours.append(number)
                signal.signal(number, stop)
    try:
        yield
    finally:
        give_back()
