"""The README that `fastconv train` lays beside its files: what it is, how good, how to use it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastconv.commands._scores import HEADER, Scores
from fastconv.version import __version__

MOST = 20  # classes of the table
PICTURE = "picture.jpg"  # that is asked about in the example


def card(
    title: str,
    facts: Sequence[tuple[str, str]],
    scores: Scores,
    options: Mapping[str, Any],
    files: Mapping[str, str],
    command: str,
    remark: str = "",
) -> str:
    """Markdown.

    Parameters
    ----------
    title : str
    facts : sequence of (str, str)
        Rows of the first table.
    scores : Scores
        On the images that were held back.
    options : mapping
        How it was trained.
    files : mapping of str to str
        The files in the folder and what they are.
    command : str
        That makes it again.
    remark : str
        A paragraph in front, of a training that was interrupted, say.
    """
    names = scores.names
    rows = scores.rows()[:MOST]
    more = f"\nand {len(names) - MOST} more classes\n" if len(names) > MOST else ""
    height, width = options["size"]
    kind = "grey" if options["channels"] == 1 else "colour"
    parts = [
        f"# {title}",
        *([f"> {remark}"] if remark else []),
        _table(["", ""], facts),
        "## How good it is",
        _table(HEADER, [*rows, scores.mean_row()], right=range(1, 5)) + more,
        *([_pair(files)] if "curves.png" in files else ["![Confusion matrix](confusion.png)"]),
        "## How to ask it",
        _block("sh", "fastconv predict model.onnx IMAGE …\nfastconv evaluate model.onnx FOLDER"),
        f"`model.onnx` needs nothing of fastconv: it takes `float32` {kind} images, channels "
        f"first: (n, {options['channels']}, {height}, {width}), with values from 0 to 255, and "
        "gives the classes' probabilities. Their names are in its metadata. Transparent parts of a "
        "picture lay over white in training.",
        _block("python", _python(names, options)),
        "`model.fc` goes on training:",
        _block("python", "import fastconv as fc\n\nmodel = fc.load_model(\"model.fc\")\n"
               "print(model.class_names)\nmodel.summary()"),
        "## How it was made",
        _block("sh", command),
        "With the same images, fastconv, instruction set and numpy it gives the same weights, to "
        "the bit. `training.json` has every option.",
        "## Files",
        _table(["file", ""], [(f"`{name}`", what) for name, what in files.items()]),
        f"Written by fastconv {__version__}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _pair(files: Mapping[str, str]) -> str:
    return "![Loss and accuracy of every epoch](curves.png)\n\n![Confusion matrix](confusion.png)"


def _python(names: Sequence[str], options: Mapping[str, Any]) -> str:
    """A program that asks the exported network about one picture, read as in training."""
    listed = list(names[:3])
    shown = ", ".join(map(repr, listed)) + (", …" if len(names) > 3 else "")
    height, width = options["size"]
    mode, axes = ("L", "[None, None]") if options["channels"] == 1 else (
        "RGB", ".transpose(2, 0, 1)[None]"
    )  # fmt: skip
    how = {
        "stretch": f"picture.resize(({width}, {height}), Image.Resampling.BILINEAR)",
        "crop": f"ImageOps.fit(picture, ({width}, {height}), Image.Resampling.BILINEAR)",
        "pad": f"ImageOps.pad(picture, ({width}, {height}), Image.Resampling.BILINEAR)",
    }[options["fit"]]
    return (
        "import json\n\nimport numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        f'picture = ImageOps.exif_transpose(Image.open("{PICTURE}")).convert("{mode}")\n'
        f"pixels = np.asarray({how}, np.float32)\n"
        f"images = pixels{axes}  # (1, {options['channels']}, {height}, {width})\n\n"
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        "metadata = session.get_modelmeta().custom_metadata_map\n"
        f'names = json.loads(metadata["fastconv.class_names"])  # {shown}\n'
        "(scores,) = session.run(None, {session.get_inputs()[0].name: images})\n"
        "print([names[i] for i in scores.argmax(axis=1)])"
    )


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(header: Sequence[str], rows: Any, right: Sequence[int] = ()) -> str:
    """A table of Markdown; cells may hold anything."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [header, rule, *[[_cell(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
