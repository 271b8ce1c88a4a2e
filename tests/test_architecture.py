"""The floors of the house: a file imports from lower floors, or from a neighbour on its own floor,
and no import starts a circle. docs/architecture.md has the plan; this table is what holds it."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fastconv"

# The first pattern that fits decides. A new file fails until it has a floor here.
FLOORS = {
    "version.py": 1,
    "cpus.py": 1,
    "_native/*": 1,
    "algorithms.py": 2,
    "config.py": 2,
    "backend.py": 2,
    "precision.py": 2,
    "layer.py": 2,
    "layout.py": 2,
    "shapes.py": 2,
    "arguments.py": 2,
    "parameter.py": 2,
    "initializers.py": 2,
    "regularizers.py": 2,
    "constraints.py": 2,
    "activations.py": 2,
    "node.py": 2,
    "files.py": 2,
    "filetypes.py": 2,
    "tables.py": 2,
    "layers/*": 3,
    "losses/*": 3,
    "optimizers/*": 3,
    "metrics/*": 3,
    "schedules.py": 3,
    "own.py": 3,
    "functional.py": 4,
    "data.py": 4,
    "dataset.py": 4,
    "feeding.py": 4,
    "weights.py": 4,
    "fusion.py": 4,
    "graph.py": 4,
    "plan.py": 4,
    "onnx/importer.py": 7,
    "onnx/*": 5,
    "history.py": 6,
    "callback.py": 6,
    "fitting.py": 6,
    "sources.py": 6,
    "nonfinite.py": 6,
    "backup.py": 6,
    "identity.py": 6,
    "tensorboard.py": 6,
    "progress.py": 6,
    "summary.py": 6,
    "training.py": 6,
    "memory.py": 6,
    "profile.py": 6,
    "lettering.py": 6,
    "plots.py": 6,
    "model.py": 6,
    "saving.py": 6,
    "callbacks.py": 6,
    "checking.py": 7,
    "learning_rate.py": 7,
    "models.py": 7,
    "utils/*": 7,
    "visualize/*": 7,
    "sklearn.py": 7,
    "applications/*": 7,
    "datasets/*": 7,
    "serving/*": 7,
    "cli.py": 8,
    "commands/*": 8,
    "__init__.py": 8,
    "__main__.py": 8,
}
APART = ("datasets", "serving")  # they import nothing of fastconv but themselves and TOOLS
TOOLS = (
    "version.py",
    "files.py",
    "filetypes.py",
    "tables.py",
    "cpus.py",
    "onnx/metadata.py",
)  # tools that know of no network
ONNX = ("onnx/*",)  # the only files that import onnx
HEAVY = {
    "onnx",
    "onnxruntime",
    "tqdm",
    "matplotlib",
    "sklearn",
    "scipy",
    "PIL",
    "starlette",
    "uvicorn",
}


def floor_of(name: str) -> int | None:
    return next((floor for glob, floor in FLOORS.items() if fnmatchcase(name, glob)), None)


def source_files(package: Path) -> list[str]:
    """Names of all sources, relative to the package."""
    paths = (path for path in package.rglob("*") if path.suffix in {".py", ".pyx"})
    return sorted(path.relative_to(package).as_posix() for path in paths)


def imported_names(package: Path, name: str, at_import: bool = False) -> Iterator[str]:
    """Dotted names that a source imports, within functions too unless only those at its own import
    are wanted; imports for types alone aside."""
    text = (package / name).read_text()
    if name.endswith(".pyx"):  # no parser at hand: one statement per line is the rule there
        for first, second, names in re.findall(
            r"^[ \t]*(?:c?import[ \t]+([\w.]+)|from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(.*))",
            text,
            re.M,
        ):
            yield first or second
            yield from (f"{second}.{word}" for word in re.findall(r"\w+", names))
        return
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if for_types or (at_import and isinstance(node, ast.FunctionDef)):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = ["fastconv", *Path(name).parent.parts]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_within(package: Path, name: str, at_import: bool = False) -> set[str]:
    """The package's own files that a source imports; ``from fastconv.a import b`` is file a/b.py
    where there is one, else what a/__init__.py or a.py defines."""
    names = source_files(package)
    modules = {n.rsplit(".", 1)[0].removesuffix("/__init__").replace("/", "."): n for n in names}
    modules = {f"fastconv.{dotted}": n for dotted, n in modules.items()}
    modules["fastconv"] = modules.pop("fastconv.__init__", "__init__.py")
    wanted = set(imported_names(package, name, at_import))
    # a package counts as imported only where nothing below it is what is meant
    parents = {w.rpartition(".")[0] for w in wanted if w in modules}
    return {modules[w] for w in wanted if w in modules and w not in parents} - {name}


def faults(package: Path) -> list[str]:
    """What breaks the rules, in words."""
    found = []
    graph = {}
    for name in source_files(package):
        floor = floor_of(name)
        if floor is None:
            found.append(f"{name} has no floor: give it one in tests/test_architecture.py")
            continue
        graph[name] = imports_within(package, name, at_import=True)
        top = name.split("/")[0]
        for other in sorted(imports_within(package, name)):
            if (floor_of(other) or 0) > floor:
                found.append(f"{name} (floor {floor}) imports {other} (floor {floor_of(other)})")
            if top in APART and other.split("/")[0] != top and other not in TOOLS:
                found.append(f"{name} stands apart and imports {other}")
        onnx = any(word.split(".")[0] == "onnx" for word in imported_names(package, name))
        if onnx and not any(fnmatchcase(name, glob) for glob in ONNX):
            found.append(f"{name} imports onnx")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append("a circle: " + " imports ".join(reversed(error.args[1])))
    return found


def test_floors() -> None:
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("layers/dense.py", "from fastconv.model import Model", "imports model.py (floor 6)"),
        ("layers/dense.py", "def f():\n    from ..plan import Plan", "imports plan.py (floor 4)"),
        ("layer.py", "import fastconv.graph", "imports graph.py (floor 4)"),
        ("graph.py", "from fastconv import plan", "a circle"),
        ("graph.py", "from fastconv import Model", "imports __init__.py (floor 8)"),
        ("_native/step.pyx", "from fastconv.graph cimport x", "imports graph.py (floor 4)"),
        ("_native/step.pyx", "import fastconv.graph", "imports graph.py (floor 4)"),
        ("datasets/idx.py", "from fastconv import shapes", "stands apart and imports shapes.py"),
        ("model.py", "import onnx.helper", "model.py imports onnx"),
        ("novel.py", "", "novel.py has no floor"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, name: str, text: str, fault: str) -> None:
    files = {
        "__init__.py": "",
        "layer.py": "",
        "shapes.py": "",
        "layers/__init__.py": "from fastconv.layers.dense import Dense",
        "layers/dense.py": "from typing import TYPE_CHECKING\nfrom fastconv.layer import Layer\n"
        "if TYPE_CHECKING:\n    from fastconv.model import Model\n",
        "graph.py": "from fastconv.layers import Dense",
        "plan.py": "from fastconv.graph import Graph",
        "onnx/exporter.py": "import onnx",
        "model.py": "from fastconv.onnx.exporter import export\nfrom fastconv import plan",
        "datasets/__init__.py": "from fastconv.datasets import idx",
        "datasets/idx.py": "import numpy",
        "_native/__init__.py": "",
        "_native/step.pyx": "from fastconv._native cimport dispatch",
    }
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    assert faults(tmp_path) == []
    (tmp_path / name).write_text(text)
    assert fault in "; ".join(faults(tmp_path))


# ---- what an import costs ------------------------------------------------------------------------


def fresh(code: str) -> str:
    """What the code prints in a process of its own, which may keep its bytecode as users' do."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


def loaded_by(code: str) -> set[str]:
    return set(fresh(f"import sys; {code}; print(*sys.modules)").split())


def test_import_is_lazy() -> None:
    assert loaded_by("import fastconv") & (HEAVY | {"fastconv.model", "fastconv.layers"}) == set()


# The package with all that a training script names; names that __init__ lacks cost nothing.
TRAINING = "import fastconv; [getattr(fastconv, n, 0) for n in ('layers', 'Sequential', 'Model')]"


def test_training_imports_numpy_alone() -> None:
    assert loaded_by(TRAINING) & (HEAVY - {"tqdm"}) == set()


def test_import_time() -> None:
    # the processor's time and the least of several: other processes add to both, never take away
    code = f"import time; t = time.process_time(); {TRAINING}; print(time.process_time() - t)"
    fresh(code)  # writes the bytecode
    assert min(float(fresh(code)) for _ in range(7)) <= 0.25


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: memory is not told")
def test_memory_after_import() -> None:
    words = fresh(f"{TRAINING}; print(open('/proc/self/status').read())").split()
    kilobytes = int(words[words.index("VmRSS:") + 1])
    assert kilobytes <= 45 * 1024


# ---- what the objects and the extensions export --------------------------------------------------


def kernel_objects() -> list[Path]:
    return sorted((PACKAGE.parent / "build").glob("temp.*/csrc/isa/*.o"))


@pytest.mark.skipif(not kernel_objects(), reason="no kernel objects in build/: not built here")
def test_a_kernel_object_exports_its_table_alone() -> None:
    for path in kernel_objects():
        try:
            done = subprocess.run(
                ["nm", "-g", "--defined-only", path], capture_output=True, text=True, check=True
            )
        except FileNotFoundError:
            pytest.skip("no nm on this machine")
        symbols = [line.split()[-1] for line in done.stdout.splitlines()]
        assert symbols == [f"fc_table_{path.stem}"]


@pytest.mark.parametrize("source", sorted(PACKAGE.glob("_native/*.pyx")), ids=lambda p: p.stem)
def test_stub_says_what_the_extension_has(source: Path) -> None:
    module = import_module(f"fastconv._native.{source.stem}")
    stub: dict[str, list[str]] = {}
    for node in ast.parse(source.with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            stub[node.name] = []
        elif isinstance(node, ast.ClassDef):
            stub[node.name] = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
        elif isinstance(node, ast.AnnAssign):
            stub[ast.unparse(node.target)] = []
    for name, members in stub.items():
        assert hasattr(module, name), f"{source.stem}.pyi invents {name}"
        for member in members:
            assert hasattr(getattr(module, name), member), f"{source.stem}.pyi invents {member}"
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert public <= set(stub), f"{source.stem}.pyi lacks {public - set(stub)}"
