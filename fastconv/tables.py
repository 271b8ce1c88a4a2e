"""Tables of text, as the commands, a profile and a memory report print them."""

from collections.abc import Sequence

RULE: tuple[str, ...] = ()  # a row that stands for a line across the table


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; numbers and percentages stand at the right."""
    cells = [row for row in rows if row is not RULE]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    given = [[cell for cell in column[1:] if cell] for column in columns]
    right = [bool(column) and all(cell[0].isdigit() for cell in column) for column in given]

    def line(cells: Sequence[str]) -> str:
        if cells is RULE:
            return "─" * (sum(widths) + 2 * (len(widths) - 1))
        padded = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(header), *map(line, rows)]
