"""The table that `Model.summary` prints, and a notebook shows."""

from math import prod
from typing import Any

from fastconv.files import size_text
from fastconv.graph import Graph
from fastconv.layer import Call, Node
from fastconv.layout import is_transpose
from fastconv.parameter import total
from fastconv.shapes import shape_text
from fastconv.tables import RULE, html_table, table

UNKNOWN = "–"  # sizes are open
Row = list[str]


def summary(
    name: str, kind: str, graph: Graph, expand: bool = False, trained: bool = False
) -> str:  # fmt: skip
    """Layers with output shapes, parameters, the size of their output and the multiplications of
    one sample; with what each reads, where it is not a chain."""
    title, header, rows, notes = _contents(name, kind, graph, expand, trained)
    return "\n".join([title, *table(header, [RULE, *rows, RULE]), *notes])


def summary_html(name: str, kind: str, graph: Graph) -> str:
    """The same for a notebook."""
    return html_table(*_contents(name, kind, graph, expand=False, trained=False))


def _contents(
    name: str, kind: str, graph: Graph, expand: bool, trained: bool
) -> tuple[str, Row, list[Row], list[str]]:
    """Title, header, rows, and the lines below."""
    items = [
        item
        for item in graph.items()
        if (item.inputs or kind != "Sequential") and not is_transpose(item)
    ]
    chain = _is_chain(graph)
    header = ["Layer (type)", "Output shape", "Parameters", "Output", "Multiply-adds"]
    header += [*(["Trained"] if trained else []), *([] if chain else ["Reads"])]
    seen: set[int] = set()
    rows: list[Row] = []
    for item in items:
        rows.append(_row(item, seen, trained, chain))
        if expand and isinstance(item, Call):
            inner = [n for n in _nodes(graph, item) if not is_transpose(n)]
            rows += [_row(n, set(), trained, chain, "  ") for n in inner]
    costs = [_cost(node) for node in graph.nodes]
    outputs = [_elements(n) for n in graph.nodes if n.inputs and not is_transpose(n)]
    parameters = graph.parameters
    trainable = total([p for p in parameters if p.trainable])
    whole = total(parameters)
    size = sum(p.value.nbytes for p in parameters)
    notes = [
        f"Parameters: {whole:,} ({size_text(size)}), trainable {trainable:,}, "
        f"other {whole - trainable:,}",
        f"One sample: {_sum(costs)} multiply-adds, {_size(_total(outputs))} of layers' outputs",
    ]
    return f'Model "{name}"', header, rows, notes


def _is_chain(graph: Graph) -> bool:
    return all(
        [t.node for t in node.inputs] == [graph.nodes[i - 1]]
        for i, node in enumerate(graph.nodes)
        if node.inputs
    )


def _nodes(graph: Graph, call: Call) -> list[Node]:
    return [node for node in graph.nodes if node.calls and node.calls[0] is call]


def _row(
    item: Node | Call, seen: set[int], trained: bool, chain: bool, indent: str = ""
) -> Row:  # fmt: skip
    what: Any = item.model if isinstance(item, Call) else item.layer
    parameters = what.graph.parameters if isinstance(item, Call) else what.parameters
    shown = "shared" if id(what) in seen else f"{total(parameters):,}"
    seen.add(id(what))
    outputs = item.outputs if isinstance(item, Call) else (item.output,)
    if isinstance(item, Call):
        inner = [n for t in outputs for n in _within(t.node, item)]
        cost = _total([_cost(node) for node in dict.fromkeys(inner)])
        size = _total([_elements(t.node) for t in outputs])
    else:
        cost, size = _cost(item), _elements(item)
    row = [
        f"{indent}{what.name} ({type(what).__name__})",
        " ".join(shape_text(t.shape[1:]) for t in outputs),
        shown,
        _size(size),
        UNKNOWN if cost is None else f"{cost:,}" if cost else "",
    ]
    if trained:
        row.append(
            "" if not parameters else "yes" if any(p.trainable for p in parameters) else "no"
        )
    return row if chain else [*row, ", ".join(_reads(t.node) for t in item.inputs)]


def _reads(node: Node) -> str:
    if is_transpose(node):
        return _reads(node.inputs[0].node)
    return node.calls[0].model.name if node.calls else node.layer.name


def _within(node: Node, call: Call) -> list[Node]:
    """The nodes of this use of a model on which a node depends."""
    found: dict[Node, None] = {}
    stack = [node]
    while stack:
        node = stack.pop()
        if node not in found and call in node.calls:
            found[node] = None
            stack += [t.node for t in node.inputs]
    return list(found)


def _cost(node: Node) -> int | None:
    return node.layer.multiply_adds([t.sample_shape for t in node.inputs], node.output.sample_shape)


def _elements(node: Node) -> int | None:
    shape = node.output.sample_shape
    return None if None in shape else prod(size or 1 for size in shape)


def _total(numbers: list[int | None]) -> int | None:
    known = [n for n in numbers if n is not None]
    return sum(known) if len(known) == len(numbers) else None


def _sum(numbers: list[int | None]) -> str:
    found = _total(numbers)
    return "an unknown number of" if found is None else f"{found:,}"


def _size(elements: int | None) -> str:
    return UNKNOWN if elements is None else size_text(4 * elements)
