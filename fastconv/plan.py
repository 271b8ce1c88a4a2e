"""The plan: a graph turned into a flat list of steps over buffers that are placed once.

A plan is made for one graph, one set of input shapes and one purpose (predict, evaluate, fit, or a
forward and a backward by hand). It names its buffers by *slot*. Every step says which slots it
reads and writes, so a buffer's life is from the first step that touches it to the last, and
buffers whose lives do not meet share memory. Where a buffer lies depends on the capacity (the
largest batch) alone; a pass owns one arena laid out so, and serves every batch up to it.

Gradients follow one rule. Backward steps overwrite what they write. Where one tensor feeds several
nodes, each gives its own gradient and the plan adds them in a fixed order; a parameter that is used
several times is overwritten by its first use and added to by the others.

Memory for time: of a layer that is named in ``recompute``, forward keeps nothing. Before backward
first needs what it made, its forward steps stand in the list once more, with buffers of their own.
"""

from bisect import insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastconv import algorithms
from fastconv._native import elementwise
from fastconv._native.step import ALIGNMENT, Extent, Pass, Program, PythonStep, Step
from fastconv.fusion import Unit, units
from fastconv.graph import Graph
from fastconv.layer import Frame, Layer, Tensor
from fastconv.layers.concatenate import Concatenate
from fastconv.layers.input import InputLayer
from fastconv.parameter import Parameter
from fastconv.shapes import known as known_shape
from fastconv.shapes import shape_text

FOREVER = 1 << 30  # a step that no plan reaches
LABEL = 4  # bytes of a class number


@dataclass(frozen=True)
class Value:
    """A tensor of a pass, as layers see it.

    Attributes
    ----------
    slot : int
        Index into the pass' table of addresses.
    shape : tuple of int
        One sample's shape, channels last.
    stride : int
        Elements from one pixel to the next: the channels, or more in a slice of a wider buffer.
    owned : bool
        Nothing else looks at this buffer: a step may write its result in place.
    pre_activation : bool
        A gradient that already stands before the output's activation (softmax with cross-entropy).
    """

    slot: int
    shape: tuple[int, ...]
    stride: int
    owned: bool = True
    pre_activation: bool = False

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def pixels(self) -> int:
        return prod(self.shape[:-1])

    @property
    def contiguous(self) -> bool:
        return self.stride == self.channels

    def reshape(self, shape: tuple[int, ...]) -> "Value":
        """The same contiguous buffer seen in another shape."""
        assert self.contiguous
        assert prod(shape) == prod(self.shape)
        return replace(self, shape=shape, stride=shape[-1])

    def shared(self) -> "Value":
        """The same buffer for a reader that must not write it."""
        return replace(self, owned=False)


@dataclass(frozen=True)
class Origin:
    """Which layer a step or a buffer belongs to, and in which direction.

    ``direction`` is "forward", "backward", "loss" (and metrics) or "forward again".
    """

    layer: str
    direction: str


@dataclass
class Buffer:
    """One stretch of the arena: ``fixed + capacity * per_sample`` elements, its life in steps."""

    per_sample: int
    fixed: int
    itemsize: int  # 0: the pass' real
    origin: "Origin"  # who asked for it
    first: int = -1
    last: int = -1

    def touch(self, step: int) -> None:
        self.first = step if self.first < 0 else min(self.first, step)
        self.last = max(self.last, step)

    def nbytes(self, capacity: int, real: int) -> int:
        return (self.fixed + capacity * self.per_sample) * (self.itemsize or real)


@dataclass
class Slot:
    """Where a slot lies: at an offset into a buffer, or at an array from outside."""

    buffer: Buffer | None = None
    offset: int = 0  # elements
    array: np.ndarray | None = None  # a parameter's value or gradient
    external: bool = False  # bound by the caller before each run


@dataclass
class Input:
    """An input of the network or a target of a loss: bound from outside, read into the pass."""

    value: Value
    source: int  # slot of the caller's rows
    index: int  # slot of the row numbers
    labels: bool = False  # int32 class numbers
    programs: dict[tuple[str, int, bool], Program] = field(default_factory=dict)

    def program(self, kind: str, rows: int, indexed: bool) -> Program:
        """Steps that read rows of this dtype; kept, so that a step of training makes nothing."""
        key = (kind, rows, indexed)
        if key not in self.programs:
            make = elementwise.GatherLabels if self.labels else elementwise.Gather
            index = self.index if indexed else -1
            step = make(kind, prod(self.value.shape), rows, self.source, index, self.value.slot)
            self.programs[key] = Program([step])
        return self.programs[key]


class Builder:
    """What layers, losses and metrics see while they emit their steps."""

    def __init__(
        self,
        training: bool,
        keep: bool,
        double: bool,
        convolution: str | None = None,
        bf16: bool = False,
    ) -> None:
        self.training = training  # dropout drops, batch norm uses the batch
        self.keep = keep  # a backward will follow
        self.double = double
        self.bf16 = bf16 and not double  # convolutions may round their operands
        # double is the reference, and so is its algorithm unless another one is asked for
        wanted = algorithms.choice(convolution)
        self.convolution = "direct" if double and wanted == "auto" else wanted
        self.steps: list[Step] = []
        self.origins: list[Origin] = []  # one per step
        self.origin = Origin("", "forward")  # of what is being emitted
        self.pins: list[tuple[Buffer, int]] = []  # who is alive at which step, beside its readers
        self.slots: list[Slot] = []
        self.parameters: dict[tuple[int, str], int] = {}
        self.with_gradient: set[int] = set()
        self.placed: dict[Tensor, Value] = {}
        self.tensor: Tensor | None = None  # the output of the node that is being emitted

    # -- buffers ------------------------------------------------------------------------------

    def _slot(self, slot: Slot) -> int:
        self.slots.append(slot)
        return len(self.slots) - 1

    def holds_labels(self, value: Value) -> bool:
        """Whether these are class numbers, int32, instead of reals."""
        buffer = self.slots[value.slot].buffer
        return buffer is not None and buffer.itemsize == LABEL

    def value(self, shape: tuple[int, ...]) -> Value:
        """A new contiguous tensor."""
        return Value(self.buffer(prod(shape)), shape, shape[-1])

    def output(self, shape: tuple[int, ...]) -> Value:
        """Where the node that is being emitted puts its result: a new tensor, or its slice of a
        concatenation."""
        if self.tensor is not None and self.tensor in self.placed:
            return self.placed[self.tensor]
        return self.value(shape)

    def slice(self, value: Value, start: int, channels: int) -> Value:
        """Channels ``start … start + channels`` of a tensor, in place."""
        assert 0 <= start <= value.channels - channels
        slot = self.slots[value.slot]
        part = Slot(slot.buffer, slot.offset + start)
        return replace(value, slot=self._slot(part), shape=(*value.shape[:-1], channels))

    def same_place(self, x: Value, y: Value) -> bool:
        """Whether two tensors are one stretch of memory."""
        a, b = self.slots[x.slot], self.slots[y.slot]
        return a.buffer is b.buffer and a.offset == b.offset and x.stride == y.stride

    def in_place(self, value: Value) -> Value:
        """``value`` itself where it may be overwritten, else a new tensor of its shape."""
        return value if value.owned else self.value(value.shape)

    def contiguous(self, value: Value) -> Value:
        """``value``, copied where it is a slice of a wider buffer."""
        if value.contiguous:
            return value
        copy = self.value(value.shape)
        self.copy(value, copy)
        return copy

    def buffer(self, per_sample: int, fixed: int = 0, itemsize: int = 0) -> int:
        """A slot of ``fixed + n * per_sample`` elements: statistics, panels, scratch, indexes.

        ``itemsize`` in bytes where the elements are not reals.
        """
        return self._slot(Slot(Buffer(per_sample, fixed, itemsize, self.origin)))

    def lasting(self, fixed: int, itemsize: int = 0) -> int:
        """A slot whose contents outlive a run: nothing else is ever placed there."""
        slot = self.buffer(0, fixed, itemsize)
        self.pin(slot, 0)
        self.pin(slot, FOREVER)
        return slot

    def pin(self, slot: int, step: int) -> None:
        """What lies in ``slot`` is alive at this step, whether or not the step touches it."""
        buffer = self.slots[slot].buffer
        assert buffer is not None
        self.pins.append((buffer, step))

    def external(self) -> int:
        """A slot that the caller binds before each run."""
        return self._slot(Slot(external=True))

    def parameter(self, parameter: Parameter | None) -> int:
        """The slot of a parameter's value; −1 for None."""
        return -1 if parameter is None else self._array(parameter, "value")

    def gradient(self, parameter: Parameter) -> tuple[int, bool]:
        """The slot of a parameter's gradient, and whether this use adds to an earlier one's."""
        slot = self._array(parameter, "grad")
        add = slot in self.with_gradient
        self.with_gradient.add(slot)
        return slot, add

    def _array(self, parameter: Parameter, what: str) -> int:
        key = (id(parameter), what)
        if key not in self.parameters:
            self.parameters[key] = self._slot(Slot(array=getattr(parameter, what)))
        return self.parameters[key]

    # -- steps --------------------------------------------------------------------------------

    def emit(self, step: Step) -> None:
        self.steps.append(step)
        self.origins.append(self.origin)
        for extent in (*step.reads, *step.writes):
            slot = self.slots[extent.slot]
            if slot.buffer is not None:
                self._check(step, extent, slot, slot.buffer)
            elif slot.array is not None and extent.fixed > slot.array.size:
                raise AssertionError(f"{step} reads past {slot.array.shape}")

    def python(
        self,
        function: Callable[[list[np.ndarray], bool], Any],
        reads: Sequence[Value | Parameter],
        writes: Sequence[Value] = (),
        gradients: Sequence[Parameter] = (),
    ) -> None:
        """Emit a step in Python, for layers of one's own.

        Parameters
        ----------
        function : callable
            ``function(arrays, training)``; the arrays are those of ``reads``, ``writes`` and the
            gradients of ``gradients``, in this order. It fills the writes, and *adds* to the
            gradients, which are set to zero before where they should be.
        reads : sequence of Value or Parameter
            A Value is seen as (n, *shape).
        writes : sequence of Value
        gradients : sequence of Parameter
        """
        views: list[tuple[int, tuple[int, ...] | None, tuple[int, ...] | None]] = []
        touched: list[list[Extent]] = [[], []]
        slices: list[tuple[Value, Value]] = []
        for side, items in enumerate((reads, writes)):
            for item in items:
                if isinstance(item, Parameter):
                    views.append((self.parameter(item), None, item.shape))
                    touched[side].append(Extent(views[-1][0], 0, item.value.size))
                    continue
                if side == 0:
                    item = self.contiguous(item)
                elif not item.contiguous:  # a slice of a concatenation is filled by a copy
                    item, part = self.value(item.shape), item
                    slices.append((item, part))
                views.append((item.slot, item.shape, None))
                touched[side].append(Extent(item.slot, prod(item.shape), 0))
        fresh: list[bool] = []
        for parameter in gradients:
            slot, add = self.gradient(parameter)
            fresh.append(not add)
            views.append((slot, None, parameter.shape))
            touched[1].append(Extent(slot, 0, parameter.value.size))

        count, who = len(reads), self.origin.layer

        def run(arrays: list[np.ndarray], training: bool, accumulate: bool) -> None:
            for array in arrays[:count]:
                array.flags.writeable = False  # others read it, too
            for array, new in zip(arrays[len(arrays) - len(fresh) :], fresh, strict=True):
                if new and not accumulate:
                    array[...] = 0
            try:
                function(arrays, training)
            except ValueError as error:
                if "read-only" in str(error):
                    error.add_note(f"{who}: what a layer reads must stay as it is; make a copy")
                raise

        self.emit(PythonStep(run, views, *touched))
        for whole, part in slices:
            self.copy(whole, part)

    def copy(self, x: Value, y: Value) -> None:
        """Emit y = x, for tensors of one shape."""
        self.emit(elementwise.Copy(x.pixels, x.channels, x.slot, x.stride, y.slot, y.stride))

    def _check(self, step: Step, extent: Any, slot: Slot, buffer: Buffer) -> None:
        # a strided slice's last pixel ends before its stride does: its fixed part is negative
        if (
            extent.per_sample > buffer.per_sample
            or slot.offset + extent.fixed > buffer.fixed
            or extent.itemsize != buffer.itemsize
        ):
            raise AssertionError(f"{type(step).__name__} needs {extent} of {slot}")

    def drop_unread(self, start: int) -> None:
        """Take out steps of "forward again" from ``start`` on whose results nobody reads."""
        read: set[int] = set()
        kept: list[int] = []
        for number in reversed(range(start, len(self.steps))):
            step = self.steps[number]
            written = [self.slots[extent.slot].buffer for extent in step.writes]
            again = self.origins[number].direction == "forward again"
            if again and all(buffer is not None and id(buffer) not in read for buffer in written):
                continue
            kept.append(number)
            read.update(id(self.slots[extent.slot].buffer) for extent in step.reads)
        numbers = [*range(start), *reversed(kept)]
        self.steps = [self.steps[number] for number in numbers]
        self.origins = [self.origins[number] for number in numbers]

    def settle(self) -> None:
        """Give every buffer its life: from the first step that touches it to the last."""
        for pinned, number in self.pins:
            pinned.touch(number)
        for number, step in enumerate(self.steps):
            for extent in (*step.reads, *step.writes):
                buffer = self.slots[extent.slot].buffer
                if buffer is not None:
                    buffer.touch(number)

    def add(self, values: Sequence[Value]) -> Value:
        """The sum of gradients in the order given, into the first that may be overwritten."""
        if len(values) == 1:
            return values[0]
        total = next((v for v in values if v.owned), None) or self.value(values[0].shape)
        rest = [v for v in values if v is not total]
        a = total if len(rest) < len(values) else rest.pop(0)
        for b in rest:
            self.emit(
                elementwise.Add(
                    total.pixels, total.channels,
                    a.slot, a.stride, b.slot, b.stride, total.slot, total.stride,
                )
            )  # fmt: skip
            a = total
        return total


class Plan:
    """Steps and buffers of one graph for one purpose.

    Parameters
    ----------
    graph : Graph
    shapes : sequence of tuple of int
        The inputs' shapes, all sizes known.
    training : bool
        Dropout drops and batch norm uses the batch's statistics.
    backward : bool
        A backward follows; what it needs is kept.
    input_gradients : bool
        Backward also gives the gradients at the inputs.
    heads : callable, optional
        ``heads(builder, outputs)`` emits losses and metrics and returns one gradient (or None) per
        output: how `fit` and `evaluate` see the ends of the graph.
    double : bool
        Compute in float64, with the reference kernels.
    convolution : {"auto", "direct", "winograd"}, optional
        See `fastconv.algorithms`.
    recompute : collection of str
        Names of layers that forward keeps nothing of: backward computes them again.
    bf16 : bool
        Products of convolutions may round their operands to bfloat16.

    Attributes
    ----------
    inputs : list of Input
    outputs : list of Value
    gradients : list of Value
        Where the caller of backward puts the gradients at the outputs (without heads).
    input_gradients : list of Value or None
    forward, backward : Program
        ``forward`` includes the heads.
    origins : list of Origin
        Whose the steps of forward and then of backward are.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Sequence[tuple[int, ...]],
        *,
        training: bool,
        backward: bool,
        input_gradients: bool = False,
        heads: Callable[[Builder, list[Value]], list[Value | None]] | None = None,
        double: bool = False,
        convolution: str | None = None,
        recompute: Collection[str] = (),
        bf16: bool = False,
    ) -> None:
        self.training = training
        self.double = double
        b = self._builder = Builder(training, backward, double, convolution, bf16)
        values: dict[Tensor, Value] = {}
        moments: dict[Tensor, tuple[int, int] | None] = {}  # slots of a tensor's mean and variance
        frames: dict[Unit, Frame] = {}
        known = {
            t: known_shape(shape, t.node.layer.name) for t, shape in graph.shapes(shapes).items()
        }
        self.inputs: list[Input] = []
        for tensor in graph.inputs:
            b.origin = Origin(tensor.node.layer.name, "forward")
            self.inputs.append(read(b, known[tensor]))
        values.update((t, i.value.shared()) for t, i in zip(graph.inputs, self.inputs, strict=True))
        b.placed = _concatenations(b, graph, known)
        wanted = _wants_gradient(graph, input_gradients)
        dropped: dict[Tensor, Unit] = {}  # what backward computes again, and who makes it

        for unit in units(graph, inference=not training and not backward, training=training):
            if isinstance(unit.layer, InputLayer):
                continue
            frame = frames[unit] = Frame(
                inputs=[values[tensor] for tensor in unit.inputs],
                needs=[backward and tensor in wanted for tensor in unit.inputs],
                activation=unit.activation,
                inference=unit.inference,
                norm=unit.norm,
                moments=unit.moments,
                given=moments.get(unit.inputs[0]) if unit.inputs else None,
                input_activation=unit.input_activation,
                mask=unit.mask if training else None,
                stream=unit.number,
                saved=SimpleNamespace(),
            )
            # a slice of a concatenation is kept with the whole; a residual sum is made again only
            # where all of its unit is named, or the stream of sums would be made from its
            # beginning. So is what was dropped, as what it was made of lies nowhere else
            names = [layer.name in recompute for layer in unit.layers]
            together = len(unit.inputs) > 1 or unit.mask is not None
            named = all(names) if together else names[-1]
            drop = backward and named and unit.output not in b.placed
            before = len(b.steps)
            b.origin = Origin(unit.layer.name, "forward")
            b.tensor, b.keep = unit.output, backward and not drop
            frame.output = unit.layer.forward(b, frame).shared()
            b.tensor, b.keep = None, backward
            _agree(unit.layer, "forward", frame.output, known[unit.output])
            values[unit.output] = frame.output
            moments[unit.output] = getattr(frame.saved, "moments", None)
            # another view of what is dropped, as Flatten gives, must not keep it alive
            view = len(b.steps) == before and len(unit.inputs) == 1
            if drop or (view and unit.inputs[0] in dropped):
                dropped[unit.output] = unit
        self.outputs = [values[tensor] for tensor in graph.outputs]
        b.origin = Origin("loss", "loss")
        gradients: Sequence[Value | None] | None = heads(b, self.outputs) if heads else None
        after_forward = len(b.steps)
        for value in self.outputs:
            b.pin(value.slot, after_forward)  # read by the caller
        self.gradients: list[Value] = []
        self.input_gradients: list[Value | None] = [None] * len(graph.inputs)
        if backward:
            if gradients is None:
                gradients = self.gradients = [b.value(value.shape) for value in self.outputs]
                for value in self.gradients:
                    b.pin(value.slot, after_forward)
            self._backward(graph, frames, wanted, gradients, dropped)
            b.drop_unread(after_forward)
        for dx in self.input_gradients:
            if dx is not None:
                b.pin(dx.slot, len(b.steps))
        b.settle()
        self.forward = Program(b.steps[:after_forward])
        self.backward = Program(b.steps[after_forward:])
        self.origins = b.origins
        del self._builder
        self.slots = b.slots
        self._passes: list[RunningPass] = []

    def _backward(
        self,
        graph: Graph,
        frames: dict[Unit, Frame],
        wanted: set[Tensor],
        gradients: Sequence[Value | None],
        dropped: Mapping[Tensor, Unit],
    ) -> None:
        b = self._builder
        restored: set[Unit] = set()
        parts: dict[Tensor, list[Value]] = {node.output: [] for node in graph.nodes}
        for tensor, value in zip(graph.outputs, gradients, strict=True):
            if value is not None:
                parts[tensor].append(value)
        for unit in reversed(list(frames)):
            given = parts.pop(unit.output)
            if not given or unit.output not in wanted:
                continue
            b.origin = Origin(unit.layer.name, "backward")
            dy = b.add(given)
            _restore(b, unit, frames, dropped, restored)
            frame = frames[unit]
            b.origin = Origin(unit.layer.name, "backward")
            given_back = unit.layer.backward(b, frame, dy)
            if len(given_back) != len(unit.inputs):
                raise ValueError(
                    f"{unit.layer.name}: backward returns {len(given_back)} gradients for "
                    f"{len(unit.inputs)} inputs"
                )
            for tensor, x, need, dx in zip(
                unit.inputs, frame.inputs, frame.needs, given_back, strict=True
            ):
                if need and dx is not None:
                    _agree(unit.layer, "backward", dx, x.shape)
                    parts[tensor].append(dx)
        for i, tensor in enumerate(graph.inputs):
            if tensor in wanted and parts[tensor]:
                self.input_gradients[i] = b.add(parts[tensor])

    # -- memory -------------------------------------------------------------------------------

    def place(self, capacity: int) -> tuple[dict[int, int], int]:
        """Byte offset of every placed slot for batches up to ``capacity``, and the arena's size.

        Buffers one by one, each at the lowest offset that no buffer of an overlapping life has.
        The largest first is rarely beaten; where it wastes a twentieth, other orders are tried.
        """
        real = 8 if self.double else 4
        found = list(self.buffers())
        sizes = {id(b): -(-b.nbytes(capacity, real) // ALIGNMENT) * ALIGNMENT for b in found}
        live = self.live(capacity)
        fullest = {id(b): max(live[b.first : b.last + 1]) for b in found}
        orders: list[Callable[[Buffer], Any]] = [
            lambda b: (-sizes[id(b)], b.first),  # the largest first,
            lambda b: (-fullest[id(b)], b.first - b.last),  # who is there when most is alive,
            lambda b: (b.first - b.last, -sizes[id(b)]),  # who lives longest,
            lambda b: (sizes[id(b)] * (b.first - b.last - 1), b.first),  # or both
        ]
        best: dict[int, int] = {}
        total = -1
        for order in orders:
            offsets, size = _lay_out(sorted(found, key=order), sizes)
            if total < 0 or size < total:
                best, total = offsets, size
            if total <= 1.05 * max(live):
                break
        slots = {
            number: best[id(slot.buffer)] + slot.offset * (slot.buffer.itemsize or real)
            for number, slot in enumerate(self.slots)
            if slot.buffer is not None and id(slot.buffer) in best
        }
        return slots, total

    def buffers(self) -> Iterator[Buffer]:
        """The buffers that are placed, each once."""
        found = {id(s.buffer): s.buffer for s in self.slots if s.buffer and s.buffer.last >= 0}
        yield from found.values()

    def scratch(self, slot: int) -> bool:
        """Whether a single step has this slot to itself."""
        buffer = self.slots[slot].buffer
        return buffer is not None and buffer.first == buffer.last

    def least(self, capacity: int) -> int:
        """Bytes that no arena can do without: the most that are alive at one step."""
        return max(self.live(capacity), default=0)

    def live(self, capacity: int) -> list[int]:
        """Bytes alive at each step of forward and backward, and after the last one."""
        real = 8 if self.double else 4
        end = len(self.forward) + len(self.backward)
        change = [0] * (end + 2)
        for buffer in self.buffers():
            size = -(-buffer.nbytes(capacity, real) // ALIGNMENT) * ALIGNMENT
            change[buffer.first] += size
            change[min(buffer.last, end) + 1] -= size
        return list(accumulate(change[:-1]))

    def borrow(self, n: int) -> "RunningPass":
        """A pass for a batch of ``n``: an idle one that is large enough, or a new one."""
        for i, idle in enumerate(self._passes):
            if idle.capacity >= n:
                return self._passes.pop(i)
        self._passes.clear()  # too small for what comes now: their memory goes first
        return RunningPass(self, n)

    def give_back(self, running: "RunningPass") -> None:
        """The pass is free for the next batch."""
        self._passes.append(running)


class RunningPass:
    """One pass of a plan: the arena of a capacity, and the walk through it.

    Values saved by forward, dropout's seed and batch statistics live here, so several passes of one
    plan may be alive at once.
    """

    def __init__(self, plan: Plan, capacity: int) -> None:
        self.plan = plan
        self.capacity = capacity
        offsets, nbytes = plan.place(capacity)
        self.native = Pass(len(plan.slots), nbytes, plan.double)
        for slot, offset in offsets.items():
            self.native.place(slot, offset)
        for number, entry in enumerate(plan.slots):
            if entry.array is not None:
                self.native.bind(number, entry.array)
        self.runner: Any = None  # of the heads, kept with their views of this pass
        self.n = 0
        self.seed = 0
        self.step = 0

    def read(self, entry: Input, rows: np.ndarray, index: np.ndarray | None, n: int) -> None:
        """Read n rows (those of ``index``, or the first) into the pass, cast to its type."""
        self.native.bind(entry.source, rows)
        if index is not None:
            self.native.bind(entry.index, index)
        program = entry.program(rows.dtype.char, len(rows), index is not None)
        self.native.run(program, n)
        self.native.unbind(entry.source)  # or an idle pass would keep the caller's data alive
        self.native.unbind(entry.index)

    def forward(
        self, n: int, seed: int = 0, step: int = 0, seconds: np.ndarray | None = None
    ) -> None:
        """Run the forward steps; ``seconds``, one double per step, receives what each took."""
        self.n, self.seed, self.step = n, seed, step
        self.native.run(self.plan.forward, n, self.plan.training, False, seed, step, seconds)

    def backward(self, accumulate: bool = False, seconds: np.ndarray | None = None) -> None:
        """Run the backward steps; ``seconds`` as in `forward`."""
        self.native.run(
            self.plan.backward,
            self.n,
            self.plan.training,
            accumulate,
            self.seed,
            self.step,
            seconds,
        )

    def array(self, value: Value) -> np.ndarray:
        """A view (n, *shape) of a tensor of this pass."""
        spread = (self.n, *value.shape[:-1], value.stride)
        if value.contiguous:
            return self.native.view(value.slot, spread)
        # the last pixel of a slice ends before its stride does
        count = prod(spread) - value.stride + value.channels
        flat = self.native.view(value.slot, (count,))
        item = flat.itemsize
        strides = [item * value.stride * prod(spread[i + 1 : -1]) for i in range(len(spread) - 1)]
        shape = (*spread[:-1], value.channels)
        return np.lib.stride_tricks.as_strided(flat, shape, (*strides, item))


def _lay_out(buffers: Sequence[Buffer], sizes: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """Offsets of the buffers, placed in this order at the lowest place that is free, and the end
    of the last; by id."""
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, Buffer]] = []  # start, end, buffer; sorted by start
    total = 0
    for buffer in buffers:
        size, start = sizes[id(buffer)], 0
        for begin, end, other in placed:
            if other.first > buffer.last or other.last < buffer.first:
                continue
            if start + size <= begin:
                break
            start = max(start, end)
        offsets[id(buffer)] = start
        insort(placed, (start, start + size, buffer), key=lambda item: item[0])
        total = max(total, start + size)
    return offsets, total


def _restore(
    b: Builder,
    unit: Unit,
    frames: dict[Unit, Frame],
    dropped: Mapping[Tensor, Unit],
    restored: set[Unit],
) -> None:
    """Give the frame of a unit what backward may read and forward did not keep.

    Dropped values are made anew, each once, from what was kept or was made anew before: by the same
    steps from the same numbers, so they are the same bits. ``first`` of a second frame is what the
    first forward saved.
    """
    if unit in restored:
        return
    restored.add(unit)
    frame = frames[unit]
    inputs = list(frame.inputs)
    for i, tensor in enumerate(unit.inputs):
        if tensor in dropped:
            _restore(b, dropped[tensor], frames, dropped, restored)
            inputs[i] = frames[dropped[tensor]].output
    if unit.output not in dropped:
        frame.inputs = inputs
        return
    anew = {
        "inputs": inputs, "saved": SimpleNamespace(), "first": frame.saved, "moments": False,
    }  # fmt: skip
    second = frames[unit] = Frame(**{**vars(frame), **anew})
    b.origin = Origin(unit.layer.name, "forward again")
    second.output = unit.layer.forward(b, second).shared()


def read(b: Builder, shape: tuple[int, ...], labels: bool = False) -> Input:
    """An input (or target) of this shape: its tensor and the slots that the caller binds."""
    slot = b.buffer(prod(shape), itemsize=LABEL if labels else 0)
    value = Value(slot, shape, shape[-1])
    b.pin(slot, 0)  # read into the pass before the first step
    return Input(value, b.external(), b.external(), labels)


def _agree(layer: Layer, method: str, value: Value, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(
            f"{layer.name}: {method} returns a tensor of shape {shape_text(value.shape)} where "
            f"{shape_text(shape)} is due"
        )


def _wants_gradient(graph: Graph, inputs: bool) -> set[Tensor]:
    """Tensors on whose way back something waits: a trainable parameter or a wanted input."""
    wanted: set[Tensor] = set()
    for node in graph.nodes:
        layer = node.layer
        if isinstance(layer, InputLayer):
            if inputs:
                wanted.add(node.output)
        elif any(t in wanted for t in node.inputs) or any(p.trainable for p in layer.parameters):
            wanted.add(node.output)
    return wanted


def _concatenations(
    b: Builder, graph: Graph, shapes: dict[Tensor, tuple[int, ...]]
) -> dict[Tensor, Value]:
    """Slices of the concatenations' buffers for the tensors that can be written there directly."""
    placed: dict[Tensor, Value] = {}
    for node in reversed(graph.nodes):  # the outer of two nested ones first
        if not isinstance(node.layer, Concatenate) or not node.layer.along_channels(
            [shapes[t] for t in node.inputs]
        ):
            continue
        b.origin = Origin(node.layer.name, "forward")
        whole = placed.get(node.output) or b.value(shapes[node.output])
        placed[node.output] = whole
        start = 0
        for tensor in node.inputs:
            channels = shapes[tensor][-1]
            if tensor not in placed and not isinstance(tensor.node.layer, InputLayer):
                placed[tensor] = b.slice(whole, start, channels)
            start += channels
    return placed
