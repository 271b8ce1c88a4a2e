"""A model as a picture, drawn by Graphviz where that is installed."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastconv.arguments import explained
from fastconv.files import replacing
from fastconv.layer import Call, Node
from fastconv.layout import is_transpose
from fastconv.shapes import shape_text

if TYPE_CHECKING:
    from fastconv.model import Model

FORMATS = (".svg", ".png", ".pdf")


def model_to_dot(
    model: "Model",
    show_shapes: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> str:
    """The graph in Graphviz' language: a box per layer, or per model that is used as one."""
    graph = model.graph
    items: list[Node | Call] = list(graph.nodes) if expand_nested else graph.items()
    places: dict[Any, int] = {}
    lines = [
        f"digraph {_quoted(model.name)} {{",
        f"  rankdir={rankdir}; dpi={dpi}; node [shape=box, fontname=Helvetica];",
    ]
    for number, item in enumerate(items):
        what: Any = item.model if isinstance(item, Call) else item.layer
        outputs = item.outputs if isinstance(item, Call) else (item.output,)
        if is_transpose(item):  # nobody asked for it: its reader reads what it reads
            places[outputs[0]] = places[item.inputs[0]]
            continue
        places.update((tensor, number) for tensor in outputs)
        words = [type(what).__name__]
        if show_layer_names:
            words[0] = f"{what.name} ({words[0]})"
        if show_layer_activations and getattr(what, "activation", None) is not None:
            words.append(f"activation: {what.activation.name}")
        if show_shapes:
            words.append(f"output: {' '.join(shape_text(t.shape[1:]) for t in outputs)}")
        if show_trainable and what.count_params():
            words.append("trained" if what.trainable else "not trained")
        lines.append(f"  n{number} [label={_quoted(chr(10).join(words))}];")
        lines += [f"  n{places[tensor]} -> n{number};" for tensor in item.inputs]
    return "\n".join([*lines, "}"]) + "\n"


@explained
def plot_model(
    model: "Model",
    to_file: str | os.PathLike[str] = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
) -> Path:
    """Draw a model into a file.

    Parameters
    ----------
    model : Model
    to_file : str or path-like
        ``.svg``, ``.png`` or ``.pdf``, drawn by the program ``dot`` of Graphviz; ``.dot`` is its
        language, for which nothing is needed.
    show_shapes, show_layer_names, show_layer_activations, show_trainable : bool
        What stands in the boxes beside the class.
    show_dtype : bool
        Keras': everything is of one type here, and stands in no box.
    rankdir : "TB" or "LR"
        From top to bottom, or from left to right.
    expand_nested : bool
        The layers of models within, instead of one box.
    dpi : int

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        Graphviz is not installed.
    """
    path = Path(to_file)
    if rankdir not in ("TB", "LR"):
        raise ValueError(f'rankdir is "TB" or "LR", not {rankdir!r}')
    text = model_to_dot(
        model,
        show_shapes,
        show_layer_names,
        rankdir,
        expand_nested,
        dpi,
        show_layer_activations,
        show_trainable,
    )
    suffix = path.suffix.lower()
    if suffix == ".dot":
        content = text.encode()
    elif suffix in FORMATS:
        content = _drawn(text, suffix[1:])
    else:
        raise ValueError(f"{path}: a picture is {', '.join(FORMATS)} or .dot")
    with replacing(path) as file:
        file.write(content)
    return path


def _drawn(text: str, kind: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise ImportError(
            "a picture is drawn by Graphviz, which is not installed (Debian: apt install graphviz; "
            "conda install graphviz); a .dot file needs nothing"
        )
    done = subprocess.run([program, f"-T{kind}"], input=text.encode(), capture_output=True)
    if done.returncode:
        raise OSError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
