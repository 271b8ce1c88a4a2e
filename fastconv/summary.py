"""The table that `Model.summary` prints."""

from fastconv.files import size_text
from fastconv.graph import Graph
from fastconv.layer import Node
from fastconv.shapes import shape_text


def summary(name: str, kind: str, graph: Graph) -> str:
    """Layers with output shapes and parameters; with what each reads, where it is not a chain."""
    nodes = [node for node in graph.nodes if node.inputs or kind != "Sequential"]
    chain = all(
        [t.node for t in node.inputs] == [graph.nodes[i - 1]]
        for i, node in enumerate(graph.nodes)
        if node.inputs
    )
    header = ["Layer (type)", "Output shape", "Parameters", *([] if chain else ["Reads"])]
    seen: set[int] = set()
    rows = [_row(node, seen, chain) for node in nodes]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if i == 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    trainable = sum(p.value.size for p in graph.parameters if p.trainable)
    frozen = sum(p.value.size for p in graph.parameters) - trainable
    size = sum(p.value.nbytes for p in graph.parameters)
    return "\n".join(
        [
            f'Model "{name}"',
            rule,
            line(header),
            rule,
            *map(line, rows),
            rule,
            f"Parameters: {trainable + frozen:,} ({size_text(size)}), trainable {trainable:,}, "
            f"other {frozen:,}",
        ]
    )


def _row(node: Node, seen: set[int], chain: bool) -> list[str]:
    layer = node.layer
    count = f"{layer.count_params():,}" if id(layer) not in seen else "shared"
    seen.add(id(layer))
    row = [f"{layer.name} ({type(layer).__name__})", shape_text(node.output.shape), count]
    return row if chain else [*row, ", ".join(t.node.layer.name for t in node.inputs)]
