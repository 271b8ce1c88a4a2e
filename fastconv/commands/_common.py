"""What the commands share: argument types, and how they print fields."""

import argparse
import math
from collections.abc import Callable, Iterable


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def natural(text: str) -> int:
    """An argument that is a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def part(text: str) -> float:
    """An argument between 0 and 1: neither nothing nor all."""
    number = share(text)
    if number in (0, 1):
        raise argparse.ArgumentTypeError(
            f"{text!r} leaves an empty part, to check the network or to train it; give a number "
            "between 0 and 1"
        )
    return number


def share(text: str) -> float:
    """An argument from 0 to 1."""
    return _number(text, 0, 1)


def amount(text: str) -> float:
    """An argument from 0 on."""
    return _number(text, 0, math.inf)


def _number(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high or math.isinf(number):
        bounds = f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g} on"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
    return number


def size(text: str) -> tuple[int, int]:
    """An argument that is the size of an image: 64, or 48x64, the height first."""
    words = text.lower().replace("×", "x").split("x")
    if len(words) > 2 or not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size such as 64 or 48x64 (height first)"
        )
    return int(words[0]), int(words[-1])


def one_of(options: Iterable[str], what: str) -> Callable[[str], str]:
    """An argument that is one of these words, with - or _; the nearest are told where it is not."""
    known = list(options)

    def check(text: str) -> str:
        from fastconv.shapes import choice

        word = text.lower()
        try:
            return str(choice(word if word in known else word.replace("_", "-"), known, what))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def fields(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and values in two columns."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {value}".rstrip() for name, value in rows]
