"""What a part of the benchmarks found, as a terminal table, as Markdown and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import log
from pathlib import Path
from typing import Any

LIMITS_OF_ANY = """\
What these numbers do not say: they are of one machine and of these versions. On processors of
Intel, PyTorch's MKL is stronger than here; other core counts, caches and memory shift the bounds.
Peers compute in float32, on data that lies ready in memory."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column is to the left, the others to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        rows = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.header))]
        lines = [self.title, ""]
        for row in [self.header, ["-" * width for width in widths], *self.rows]:
            first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
        return "\n".join(lines)

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join([f"### {self.title}", "", *map(line, (self.header, rule, *self.rows))])


@dataclass(frozen=True)
class Bars:
    """Speed ratios for the picture: label and value, 1 is as fast as the peer."""

    title: str
    ratios: Sequence[tuple[str, float]]


@dataclass
class Report:
    """One part: its tables, its picture, sentences about them, and all that was measured."""

    part: str
    title: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        return "\n\n".join([*(table.text() for table in self.tables), *self.notes])

    def markdown(self) -> str:
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(
            filter(None, [f"## {self.title}", *map(Table.markdown, self.tables), notes])
        )


def page(reports: Sequence[Report], machine: dict[str, Any], command: str) -> str:
    """A Markdown page: the machine, the command, the parts, and what they do not say."""
    threads = f"{machine['threads_asked']} of {machine['cpus']} CPUs"
    versions = ", ".join(
        f"{name} {machine[name]}"
        for name in ("fastconv", "torch", "onnxruntime", "numpy", "python")
        if machine.get(name)
    )
    head = [
        "# fastconv: measured",
        f"{machine['cpu']}, {threads}, {machine['isa']}; {machine['platform']}, {machine['libc']}. "
        f"{versions}; {machine['compiler']}. {machine['time']}.",
        f"```\n{command}\n```",
    ]
    return "\n\n".join([*head, *map(Report.markdown, reports), LIMITS_OF_ANY]) + "\n"


# -- the picture --------------------------------------------------------------------------------

ROW, LETTER, PLOT, VALUE = 22, 7.5, 420, 70  # pixels
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)
# grays and blues that can be read on white and on black; where the viewer says which, text is crisp
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #7d8590 }
.title { font-weight: 600 }
.value { font-variant-numeric: tabular-nums }
.grid { stroke: #8c959f; stroke-opacity: .35 }
.one { stroke: #8c959f; stroke-width: 1.5 }
.faster { fill: #3b82c4 }
.slower { fill: #d08730 }
@media (prefers-color-scheme: light) { text { fill: #1f2328 } }
@media (prefers-color-scheme: dark) { text { fill: #d1d7e0 } }"""


def svg(groups: Sequence[Bars]) -> str:
    """Bars from 1 on a logarithmic axis: to the right fastconv is faster, to the left slower."""
    ratios = [value for group in groups for _, value in group.ratios]
    low, high = min([0.5, *ratios]) / 1.1, max([4.0, *ratios]) * 1.1
    label = 24 + round(LETTER * max(len(name) for group in groups for name, _ in group.ratios))
    width = label + PLOT + VALUE
    y, body = 0, []

    def place(value: float) -> float:
        return label + PLOT * log(value / low) / log(high / low)

    for group in groups:
        y += 2 * ROW
        body.append(_text(12, y - 6, group.title, "title"))
        bottom = y + ROW * len(group.ratios)
        for tick in TICKS:
            if low <= tick <= high:
                x, kind = place(tick), "one" if tick == 1 else "grid"
                body.append(f'<path class="{kind}" d="M{x:.1f} {y}V{bottom + 4}"/>')
                body.append(_text(x, bottom + 18, f"{tick:g}×", anchor="middle"))
        for name, value in group.ratios:
            start, end = sorted((place(1), place(value)))
            kind = "faster" if value >= 1 else "slower"
            body.append(_text(label - 10, y + 15, name, anchor="end"))
            body.append(
                f'<rect class="{kind}" x="{start:.1f}" y="{y + 4}" rx="2" '
                f'width="{max(1.0, end - start):.1f}" height="{ROW - 8}"/>'
            )
            body.append(_text(max(end, place(1)) + 6, y + 15, f"{value:.2f}×", "value"))
            y += ROW
        y = bottom + ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 8}" '
            f'width="{width}" height="{y + 8}" role="img">',
            f"<style>\n{STYLE}\n</style>", *body, "</svg>\n",
        ]
    )  # fmt: skip


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"written: {path}")
