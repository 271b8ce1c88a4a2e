"""Words that fit on a picture: how wide they are, where a line ends, what is left out."""

import math
from bisect import bisect_right
from collections.abc import Iterable


def width_of(text: str, size: float) -> float:
    """How wide a line is, in inches; ``size`` in points."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72 if text.strip() else 0


def fitted(text: str, width: float, size: float, lines: int = 1, end: str = "") -> str:
    """The text in lines of ``width`` inches, ``lines`` at most; what is too long loses its middle.

    ``end`` is what the last line ends with in any case. A dollar is no formula.
    """
    text = text.replace("\n", " ").replace("$", r"\$")
    done: list[str] = []
    while len(done) < lines - 1 and width_of(text + end, size) > width:
        words = text.split(" ")
        heads = (" ".join(words[:count]) for count in range(len(words) - 1, 0, -1))
        head = next((head for head in heads if width_of(head, size) <= width), None)
        if head is None:
            break
        done.append(head)
        text = text[len(head) + 1 :]
    return "\n".join([*done, _shortened(text, width, size, end)])


def _shortened(text: str, width: float, size: float, end: str) -> str:
    def cut(kept: int) -> str:
        return f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}{end}"

    if width_of(text + end, size) <= width:
        return text + end
    most = bisect_right(range(1, len(text)), width, key=lambda kept: width_of(cut(kept), size))
    return cut(max(most, 2))


def room_for(labels: Iterable[str], size: float, least: float, most: float) -> float:
    """The width in inches that the longest label asks for, within bounds."""
    longest = max((width_of(label, size) for label in set(labels)), default=0.0)
    return min(max(longest + 0.1, least), most)


def columns_for(count: int, room: float, across: float, most: int = 8) -> int:
    """How many of ``count`` pictures of ``room`` inches stand side by side within ``across``, so
    that all rows are about as long."""
    columns = max(1, min(count, int(across / room), most))
    return math.ceil(count / math.ceil(count / columns)) if count else 1
