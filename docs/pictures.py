"""Run the blocks of a page, as its reader would, and keep the pictures that they make.

    python docs/pictures.py docs/visualize.md FOLDER

A block's pictures are the figures that its expressions are, which a notebook would show, and with
--commands the PNG files that its ``fastconv`` commands write. They come to FOLDER, with a list of
them in ``pictures.json``: behind which block of the page each belongs, what it shows and how wide
it is. No picture is kept in the repository: docs/hooks.py has them made while the site is built.
"""

import argparse
import ast
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DPI, SHOWN = 160, 76  # pixels an inch of a figure: as it is drawn, as the page shows it


class Pictures:
    """What the blocks of one page have drawn so far."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.found: list[dict[str, Any]] = []

    def keep_figure(self, block: int, figure: Any, source: str) -> None:
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        alt = f"{source}: {next(filter(None, titles), '')}".removesuffix(": ")
        figure.savefig(self._add(block, alt, round(SHOWN * figure.get_figwidth())), dpi=DPI)

    def keep_files(self, block: int, paths: set[Path], source: str) -> None:
        for path in sorted(paths):
            shutil.copyfile(path, self._add(block, f"{path.as_posix()}, written by {source}"))

    def _add(self, block: int, alt: str, width: int | None = None) -> Path:
        name = f"{self.page.stem}-{len(self.found) + 1}.png"
        self.found.append({"block": block, "name": name, "alt": alt, "width": width})
        return self.folder / name


def run(page: Path, folder: Path, commands: bool = False) -> list[dict[str, Any]]:
    """Run a page's Python, and its ``fastconv`` commands too, in the working directory."""
    from matplotlib.figure import Figure

    from fastconv.cli import main

    pictures = Pictures(page, folder)
    names: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for number, line, language, code in blocks(page.read_text(encoding="utf-8")):
        if language == "python":
            for statement in ast.parse("\n" * line + code, str(page)).body:
                value = _execute(statement, str(page), names)
                if isinstance(value, Figure):
                    pictures.keep_figure(number, value, ast.unparse(statement))
        elif language == "sh" and commands:
            for command in code.replace("\\\n", " ").splitlines():
                before = set(Path().rglob("*.png"))
                if main(shlex.split(command)[1:]) != 0:
                    raise RuntimeError(f"{page.name}: {command}")
                pictures.keep_files(number, set(Path().rglob("*.png")) - before, command)
    return pictures.found


def blocks(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Number, first line, language and text of every block."""
    for number, match in enumerate(FENCE.finditer(text)):
        yield number, text.count("\n", 0, match.start(2)), match[1], match[2]


def _execute(statement: ast.stmt, name: str, names: dict[str, Any]) -> Any:
    """Run a statement; of an expression its value."""
    if isinstance(statement, ast.Expr):
        return eval(compile(ast.Expression(statement.value), name, "eval"), names)
    exec(compile(ast.Module([statement], []), name, "exec"), names)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commands", action="store_true")
    arguments = parser.parse_args()
    page, folder = arguments.page.resolve(), arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        found = run(page, folder, arguments.commands)
        os.chdir(folder)
    (folder / "pictures.json").write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
