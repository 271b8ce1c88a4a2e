"""Keywords that nobody takes: an error that says which one was meant.

Python's own message names the keyword and no more. `explained` wraps a function, or `explain` the
constructors of a module's classes, so that the error goes on: the nearest names, what stands in the
place of an argument of Keras', and all that there are. A call that is right runs as without it, and
`inspect`, ``help`` and type checkers see the signature that is written.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastconv import shapes

F = TypeVar("F", bound=Callable[..., Any])

# arguments of Keras', or of its older versions, that nothing here takes → what to do instead
_AHEAD = "fc.Dataset does that: map(function, num_parallel_calls) works in threads, prefetch ahead"
_LATER = "put them in afterwards: load_weights reads a file, set_weights takes arrays"
INSTEAD = {
    "activity_regularizer": "penalties are those of weights: kernel_regularizer, bias_regularizer",
    "batch_shape": "a model takes batches of any size: give shape, one sample's",
    "decay": (
        "weight_decay shrinks the weights; for a falling rate give learning_rate a schedule, "
        "schedules.InverseTimeDecay(rate, 1, decay)"
    ),
    "max_queue_size": _AHEAD,
    "use_multiprocessing": _AHEAD,
    "weights": _LATER,
    "workers": _AHEAD,
}

# names of old, where the one of today is taken
RENAMED = {"lr": "learning_rate", "nb_epoch": "epochs", "period": "save_freq"}


class UnknownArgument(TypeError, ValueError):
    """A keyword that nobody takes: Python's kind of error, and fastconv's for bad values."""


def unknown(who: str, word: str, known: Iterable[str]) -> UnknownArgument:
    """The error for the keyword ``word`` of ``who``, which takes those of ``known``."""
    known = list(dict.fromkeys(known))
    if RENAMED.get(word) in known:
        return UnknownArgument(f"{who} does not take {word!r}: it is called {RENAMED[word]}")
    if word in INSTEAD:
        return UnknownArgument(f"{who} does not take {word!r}: {INSTEAD[word]}")
    return UnknownArgument(shapes.unknown(word, known, f"argument of {who}"))


def explained(function: F) -> F:
    """``function``, whose unknown keywords raise `UnknownArgument`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UnknownArgument:
            raise
        except TypeError:  # nothing is looked at before: what is right costs nothing
            if kwargs:
                who, known = _asked(function, args)
                for word in kwargs:
                    if word not in known:
                        raise unknown(who, word, known) from None
            raise

    return call  # type: ignore[return-value]


def explain(namespace: Mapping[str, Any]) -> None:
    """Let all classes of a module's namespace, and their bases in fastconv, be `explained`."""
    classes = [value for value in namespace.values() if isinstance(value, type)]
    for cls in {base for found in classes for base in found.__mro__}:
        init: Any = vars(cls).get("__init__")
        ours = init is not None and cls.__module__.startswith("fastconv.")
        if ours and not hasattr(init, "__wrapped__"):
            cls.__init__ = explained(init)  # type: ignore[misc]


def keywords(cls: type) -> list[str]:
    """What the constructor of a class takes by name, what it hands on to its bases' among it."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names += _named(parameters)[1:]  # without self
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return [*names, *getattr(cls, "_more_keywords", tuple)()]


def _asked(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, list[str]]:
    """What was called, in words, and the keywords that it takes."""
    if function.__name__ == "__init__":
        return type(args[0]).__name__, keywords(type(args[0]))
    names = _named(inspect.signature(function).parameters.values())
    return function.__name__, [name for name in names if name not in ("self", "cls")]


def _named(parameters: Iterable[inspect.Parameter]) -> list[str]:
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
