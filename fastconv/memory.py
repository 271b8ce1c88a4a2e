"""What a batch takes in memory, known before it runs: `Model.memory`."""

from dataclasses import dataclass

from fastconv.files import size_text
from fastconv.optimizers import Optimizer
from fastconv.parameter import Parameter
from fastconv.plan import FOREVER, Plan
from fastconv.tables import RULE, Printed, table

SHOWN = 10  # layers in the table; all of them are in `Memory.layers`


@dataclass(frozen=True)
class LayerMemory:
    """What belongs to one layer at the fullest moment of a pass.

    Attributes
    ----------
    layer : str
    kept : int
        Bytes of what forward made: outputs, and what is kept for backward.
    other : int
        Bytes of what backward made: gradients at inputs, and scratch.
    largest : int
        Bytes of the layer's largest buffer, at any moment.
    """

    layer: str
    kept: int
    other: int
    largest: int


@dataclass(frozen=True, repr=False)
class Memory(Printed):
    """Bytes that a model needs beside its data; printed as a table.

    Attributes
    ----------
    name : str
    batch_size : int
    training : bool
    parameters, gradients, optimizer : int
        Values; their gradients; what the optimizer keeps per number. Nothing of the last two
        without training.
    arena : int
        Activations, their gradients and scratch: one block, placed once for this batch size.
    least : int
        What no placement could do without, the most that is alive at once.
    fullest : str
        Layer and direction of the step at which that is.
    layers : list of LayerMemory
        Who has the arena at that step, the largest first.
    """

    name: str
    batch_size: int
    training: bool
    parameters: int
    gradients: int
    optimizer: int
    arena: int
    least: int
    fullest: str
    layers: list[LayerMemory]

    @property
    def total(self) -> int:
        """Bytes of all of these."""
        return self.parameters + self.gradients + self.optimizer + self.arena

    def __str__(self) -> str:
        purpose = "training" if self.training else "inference"
        parts = [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations and scratch", self.arena),
        ]
        rows = [(name, size_text(size)) for name, size in parts if size or name == "parameters"]
        lines = table(("", ""), [*rows, RULE, ("total", size_text(self.total))])[1:]
        shown = self.layers[:SHOWN]
        header = ("layer", "of forward", "of backward", "largest buffer")
        body = [(m.layer, *map(_size, (m.kept, m.other, m.largest))) for m in shown]
        title = f"Memory of {self.name}, {purpose} with batches of {self.batch_size}"
        rest = len(self.layers) - len(shown)
        return "\n".join(
            [
                title,
                "",
                *lines,
                "",
                f"Activations and scratch when most is alive, at {self.fullest}:",
                *table(header, body),
                *([f"and {rest} more layers"] if rest else []),
            ]
        )


def _size(size: int) -> str:
    return size_text(size) if size else ""


def measure(
    name: str,
    plan: Plan,
    batch_size: int,
    parameters: list[Parameter],
    optimizer: Optimizer | None,
) -> Memory:
    """The needs of a plan; with an optimizer, those of training."""
    trained = sum(p.value.nbytes for p in parameters if p.trainable) if optimizer else 0
    live = plan.live(batch_size)
    step = max(range(len(live)), key=live.__getitem__, default=0)
    origin = plan.origins[min(step, len(plan.origins) - 1)] if plan.origins else None
    return Memory(
        name=name,
        batch_size=batch_size,
        training=optimizer is not None,
        parameters=sum(p.value.nbytes for p in parameters),
        gradients=trained,
        optimizer=trained * len(optimizer.states) if optimizer else 0,
        arena=plan.place(batch_size)[1],
        least=plan.least(batch_size),
        fullest=f"{origin.layer}, {origin.direction}" if origin else "no step",
        layers=_by_layer(plan, batch_size, step),
    )


def _by_layer(plan: Plan, capacity: int, step: int) -> list[LayerMemory]:
    real = 8 if plan.double else 4
    kept: dict[str, int] = {}
    other: dict[str, int] = {}
    largest: dict[str, int] = {}
    for buffer in plan.buffers():
        layer, size = buffer.origin.layer, buffer.nbytes(capacity, real)
        largest[layer] = max(largest.get(layer, 0), size)
        if buffer.first <= step <= buffer.last and buffer.last < FOREVER:
            side = other if buffer.origin.direction == "backward" else kept
            side[layer] = side.get(layer, 0) + size
    found = [
        LayerMemory(name, kept.get(name, 0), other.get(name, 0), largest[name])
        for name in {*kept, *other}
    ]
    return sorted(found, key=lambda m: (-m.kept - m.other, m.layer))
