"""Tables of text, as the commands, a profile and a memory report print them, and for notebooks."""

from collections.abc import Sequence
from html import escape

RULE: tuple[str, ...] = ()  # a row that stands for a line across the table


class Printed:
    """A report: what `str` gives is what a shell shows of it, and a notebook."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; numbers and percentages stand at the right."""
    cells = [row for row in rows if row is not RULE]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = _numeric(columns)

    def line(cells: Sequence[str]) -> str:
        if cells is RULE:
            return "─" * (sum(widths) + 2 * (len(widths) - 1))
        padded = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(header), *map(line, rows)]


def html_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """The same table for a notebook, with a title above it and lines below; every cell is text."""
    cells = [row for row in rows if row is not RULE]
    right = _numeric(list(zip(header, *cells, strict=True)))
    styles = [f"text-align: {'right' if flush else 'left'}" for flush in right]

    def line(tag: str, row: Sequence[str]) -> str:
        parts = zip(styles, row, strict=True)
        inner = (f'<{tag} style="{style}">{_lines(cell)}</{tag}>' for style, cell in parts)
        return f"<tr>{''.join(inner)}</tr>"

    body = "\n".join(line("td", row) for row in cells)
    below = "".join(f"<div>{_lines(note)}</div>" for note in notes)
    return (
        f"<div><strong>{_lines(title)}</strong>\n<table>\n<thead>{line('th', header)}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>{below}</div>"
    )


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _numeric(columns: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns, header first, hold numbers: these stand at the right."""
    given = [[cell for cell in column[1:] if cell] for column in columns]
    return [bool(column) and all(cell[0].isdigit() for cell in column) for column in given]
