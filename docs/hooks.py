"""What mkdocs is told beyond mkdocs.yml: pages from outside docs/, the pictures that the blocks of
pages make, and the API reference.

The pages in docs/ are read in the repository, too, and link to README.md or csrc/README.md beside
them. Those become pages of the site; a link to any other file of the repository becomes its name.
"""

import functools
import html
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# pages of the repository → pages of the site
OUTER = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "csrc/README.md": "kernels.md",
    "benchmarks/README.md": "benchmarks.md",
}
# pages whose blocks are run for the pictures that they make
PICTURED = {"visualize.md": [], "training.md": [], "command_line.md": ["--commands"]}
# modules of the reference, in the order in which they are needed
MODULES = (
    "fastconv", "layers", "models", "applications", "losses", "metrics", "optimizers",
    "schedules", "initializers", "regularizers", "constraints", "callbacks", "utils", "datasets",
    "visualize", "sklearn", "own", "functional", "backend", "config", "saving", "onnx", "serving",
)  # fmt: skip
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the outer pages, the pictures that they show, and the reference."""
    for source, target in OUTER.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=text))
        for _, _, path, _ in LINK.findall(text):
            picture = (ROOT / source).parent / path
            if path.endswith((".svg", ".png")) and (ROOT / "docs") not in picture.parents:
                name = picture.resolve().relative_to(ROOT).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(picture)))
    for picture in chain.from_iterable(_pictures().values()):
        name = f"pictures/{picture['name']}"
        files.append(File.generated(config, name, content=picture["content"]))
    files.append(File.generated(config, "reference.md", content=_overview()))
    for name in MODULES:
        files.append(File.generated(config, _page(name), content=_reference(name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them, and behind each block its pictures."""
    sources = {target: source for source, target in OUTER.items()}
    name = page.file.src_uri
    own = ROOT / sources.get(name, f"docs/{name}")

    def link(match: re.Match[str]) -> str:
        mark, text, path, anchor = match.groups()
        if not path or "://" in path or name.startswith("reference"):
            return match[0]
        target = (own.parent / path).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return match[0]  # the strict build finds it
        inner = target.relative_to(ROOT).as_posix()
        found = OUTER.get(inner, inner.removeprefix("docs/") if target.suffix != ".py" else None)
        if found is None or files.get_file_from_path(found) is None:
            return f"`{text}`" if "`" not in text else text
        return f"{mark}[{text}]({found}{anchor or ''})"

    pictures = _pictures().get(name, [])
    parts, last = [], 0
    for number, fence in enumerate(FENCE.finditer(markdown)):  # code stays as it is
        parts += [LINK.sub(link, markdown[last : fence.start()]), fence[0]]
        parts += [_shown(picture) for picture in pictures if picture["block"] == number]
        last = fence.end()
    return "".join([*parts, LINK.sub(link, markdown[last:])])


# -- pictures ---------------------------------------------------------------------------------


def _pictures() -> dict[str, list[dict[str, Any]]]:
    """The pictures of each page: the block that makes it, what it shows, its bytes."""
    return _made(tuple((ROOT / "docs" / page).read_text(encoding="utf-8") for page in PICTURED))


@functools.cache  # a server that builds the site again draws only what has changed
def _made(texts: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for page, options in PICTURED.items():
            folder = Path(place, page)
            command = [sys.executable, "docs/pictures.py", f"docs/{page}", str(folder), *options]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PluginError(f"docs/{page}: a block does not run\n{done.stderr}")
            pictures = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
            for picture in pictures:
                picture["content"] = (folder / picture["name"]).read_bytes()
            found[page] = pictures
    return found


def _shown(picture: dict[str, Any]) -> str:
    alt = html.escape(picture["alt"]).replace("[", "&#91;").replace("]", "&#93;")
    width = f' width="{picture["width"]}"' if picture["width"] else ""
    return f'\n\n![{alt}](pictures/{picture["name"]}){{{width} loading="lazy" }}\n'


# -- the reference ----------------------------------------------------------------------------


def _page(name: str) -> str:
    return f"reference_{name}.md"


def _module(name: str) -> ModuleType:
    return importlib.import_module(name if name == "fastconv" else f"fastconv.{name}")


def _first_line(name: str) -> str:
    return (_module(name).__doc__ or "").partition("\n")[0]


def _overview() -> str:
    rows = [f"| [{_title(name)}]({_page(name)}) | {_first_line(name)} |" for name in MODULES]
    return "\n".join(
        ["# API", "", "From the docstrings, which are in numpy's form.", "", "| | |", "|---|---|",
         *rows, ""]
    )  # fmt: skip


def _title(name: str) -> str:
    return "fastconv" if name == "fastconv" else f"fastconv.{name}"


def _reference(name: str) -> str:
    """A page of mkdocstrings: every public name of a module, from where it is defined."""
    module = _module(name)
    lines = [f"# {_title(name)}", "", module.__doc__ or "", ""]
    for path in _documented(module):
        if (home := _home(path)) != name:
            lines += [f"- `{path.rpartition('.')[2]}`: see [{_title(home)}]({_page(home)})"]
            continue
        lines += ["",f"::: {path}", "    options:", "      show_root_heading: true",
                  "      show_root_toc_entry: true", ""]  # fmt: skip
    return "\n".join(lines)


def _home(path: str) -> str:
    """The module of whose page a name is; the package itself has what no other has."""
    found = (name for name in MODULES[1:] if path in _documented(_module(name)))
    return next(found, MODULES[0])


def _documented(module: ModuleType) -> list[str]:
    """The dotted names of a module's public classes and functions; those of modules within too."""
    found = []
    for public in _public(module):
        value = getattr(module, public)
        if isinstance(value, ModuleType):
            found += _documented(value) if module.__name__ != "fastconv" else []
        elif callable(value) and value.__doc__ and value.__module__.startswith("fastconv."):
            found.append(f"{value.__module__}.{value.__qualname__}")
    return list(dict.fromkeys(found))


def _public(module: ModuleType) -> list[str]:
    named = getattr(module, "__all__", None)
    if named is not None:
        return list(named)
    return [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
