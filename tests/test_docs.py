"""The documents are kept true: their Python runs, their paths exist, their lists are whole, and
their how-tos are followed step by step."""

import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import cases
import numpy as np
import pytest
import test_architecture
import test_gradients

import fastconv as fc
from fastconv import layer, layers
from fastconv.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path for folder in ("", "docs", "csrc", "benchmarks") for path in (ROOT / folder).glob("*.md")
)
HOW_TO = ROOT / "CONTRIBUTING.md"  # its Python is followed by the tests at the end
FOLLOWED = ("first_hour.md", "command_line.md")  # their commands run, too
DRAWN = ROOT / "docs" / "visualize.md"  # its Python is run for its pictures
GUIDE = ROOT / "docs" / "gradients.md"  # its Python is run by test_reference.py
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"\.(py|pyx|pyi|pxd|c|h|inl|md|svg|toml|txt|yaml)$")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Line number, language and text of every block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(2)), *m.groups()) for m in FENCE.finditer(text)]


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and text of every Python block."""
    return [(line, code) for line, language, code in blocks(page) if language == "python"]


@pytest.fixture
def registry() -> Iterator[None]:
    """Layers that a page defines are forgotten afterwards."""
    before = dict(layer.REGISTRY)
    yield
    layer.REGISTRY.clear()
    layer.REGISTRY.update(before)


# -- what the pages say of the repository ---------------------------------------------------------


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/gradients.md"} <= set(map(name_of, PAGES))


def named_paths(page: Path) -> set[str]:
    """What the prose names as a path: links, and code that looks like one."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose)
    spans = re.findall(r"`([^`\s]+)`", prose)
    folders = tuple(f"{p.name}/" for p in ROOT.iterdir() if p.is_dir())
    paths = (s for s in spans if s.startswith(folders) or SOURCE.search(s))
    return {p for p in (*links, *paths) if "://" not in p and not p.startswith("/")}


def exists(page: Path, path: str) -> bool:
    """Below the repository, the page's folder, the package or csrc; ``<layer>`` and * stand for
    any name."""
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    folders = (ROOT, page.parent, ROOT / "fastconv", ROOT / "csrc", ROOT / "fastconv" / "layers")
    return any(any(folder.glob(pattern)) for folder in folders if ".." not in pattern) or (
        ".." in pattern and (page.parent / pattern).resolve().exists()
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    assert [path for path in sorted(named_paths(page)) if not exists(page, path)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_anchors_exist(page: Path) -> None:
    """Links into a page lead to one of its headings, in GitHub's spelling."""
    for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        headings = re.findall(r"^#+ (.+)$", FENCE.sub("", target.read_text("utf-8")), re.MULTILINE)
        spelled = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in spelled, f"{path}#{anchor}"


def test_floors_are_those_that_are_enforced() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, re.MULTILINE)
    floors = {
        pattern: int(floor)
        for floor, patterns in rows
        for pattern in re.findall(r"`fastconv/([^`]+)`", patterns)
    }
    said = {
        name: [floor for pattern, floor in floors.items() if fnmatchcase(name, pattern)]
        for name in test_architecture.source_files(test_architecture.PACKAGE)
    }
    assert said == {name: [test_architecture.floor_of(name)] for name in said}


def test_every_layer_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    public = {
        name
        for name in layers.__all__
        if name not in ("Layer", "InputLayer")
        and (name == "Input" or getattr(getattr(layers, name), "__name__", "") == name)
        and name[0].isupper()  # and no other name of a layer
    }
    assert listed == public


def test_every_operator_is_in_the_table_of_kernels(tmp_path: Path) -> None:
    """docs/serving.md against what layers name and what exports of all of them hold."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \| yes \|", text, re.MULTILINE))
    sources = [*(ROOT / "fastconv" / "layers").glob("*.py"), ROOT / "fastconv" / "activations.py",
               ROOT / "fastconv" / "node.py"]  # fmt: skip
    named = re.compile(r"\.(?:node|_append)\(\s*\"(\w+)\"")
    written = {op for path in sources for op in named.findall(path.read_text(encoding="utf-8"))}
    for case in cases.CASES:
        inputs = [fc.Input(shape) for shape in case.inputs]
        model = fc.Model(inputs, case.make(*inputs))
        for options in ({"input_layout": "NHWC"}, {"dtype": "float16"}):
            written |= set(model.export(tmp_path / "m.onnx", **options).operators)
    assert listed == written


def test_every_page_is_in_the_site() -> None:
    pages = re.findall(r"^ +- [^:]+: (\S+\.md)$", text_of("mkdocs.yml"), re.MULTILINE)
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert len(set(pages)) == len(pages)
    assert written - set(pages) == set()
    made = set(re.findall(r'"(\w+\.md)"', text_of("docs/hooks.py")))  # from outside docs/
    reference = {page for page in pages if page.startswith("reference")}
    assert set(pages) - written - made == reference - made


def test_every_public_module_is_in_the_reference() -> None:
    pages = set(re.findall(r": reference_(\w+)\.md$", text_of("mkdocs.yml"), re.MULTILINE))
    modules = {n for n in fc.__all__ if isinstance(getattr(fc, n), ModuleType)}
    assert pages == modules | {"fastconv", "onnx"}


def test_every_command_is_in_its_page() -> None:
    named = re.findall(r"^\| `fastconv ([\w-]+)", text_of("docs/command_line.md"), re.MULTILINE)
    assert sorted(named) == sorted(COMMANDS)


# -- the pages' Python ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p not in (HOW_TO, GUIDE, DRAWN) and python_blocks(p)],
    ids=name_of,
)
@pytest.mark.usefixtures("registry")
def test_python_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: Callable[[int], None],
) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    threads(1)  # the networks are small, and the bits the same
    for module in ("sklearn", "onnxruntime", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"page_{page.stem}"}
    for line, language, code in blocks(page):
        if language == "python":
            exec(compile("\n" * line + code, str(page), "exec"), names)
        elif language == "sh" and page.name in FOLLOWED:
            for command in code.replace("\\\n", " ").splitlines():
                assert command.startswith("fastconv "), command
                assert main(shlex.split(command)[1:]) == 0, command


def load_pictures() -> ModuleType:
    """docs/pictures.py, which the site's hook runs."""
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("registry")
def test_every_function_that_draws_has_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    image = pytest.importorskip("PIL.Image")
    threads(1)
    monkeypatch.chdir(tmp_path)
    found = load_pictures().run(DRAWN, tmp_path)
    drawing = {
        name
        for name in fc.visualize.__all__
        if inspect.signature(getattr(fc.visualize, name)).return_annotation == "Figure"
    }
    assert len(drawing) == 9
    called = {picture["alt"].partition("(")[0].removeprefix("visualize.") for picture in found}
    assert called == drawing
    fences = list(FENCE.finditer(text_of("docs/visualize.md")))
    for picture in found:
        assert f"visualize.{picture['alt'].split('(')[0][10:]}(" in fences[picture["block"]][2]
        assert 300 < picture["width"] < 900
        pixels = np.asarray(image.open(tmp_path / picture["name"]).convert("L"))
        assert pixels.std() > 10  # something is there


def test_a_page_s_pictures_are_its_figures_and_what_its_commands_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.md"
    draw = "from fastconv.plots import plot_history as draw\nfigure = draw({'loss': [2, 1]})\n"
    page.write_text(
        f"```text\nno\n```\n```python\n{draw}figure\nfigure.savefig('own.png')\n```\n"
        "```sh\nfastconv bench lenet5 --batch 1 --repeat 1 --png roof.png\n```\n"
    )
    monkeypatch.chdir(tmp_path)
    pictures = load_pictures()
    (tmp_path / "out").mkdir()
    figure = {"block": 1, "name": "page-1.png", "alt": "figure: loss", "width": 319}
    assert pictures.run(page, tmp_path / "out") == [figure]
    first, roof = pictures.run(page, tmp_path / "out", commands=True)
    assert first == figure
    assert (roof["block"], roof["width"]) == (2, None)
    assert roof["alt"].startswith("roof.png, written by fastconv bench lenet5")
    assert (tmp_path / "out" / roof["name"]).read_bytes() == (tmp_path / "roof.png").read_bytes()


# -- how to add a layer ---------------------------------------------------------------------------


@pytest.fixture
def new_layer(
    registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ModuleType, cases.Case]:
    """The module that CONTRIBUTING.md writes and its row of tests/cases.py, in place."""
    (_, source), (_, row) = python_blocks(HOW_TO)
    first = source.partition("\n")[0]
    path = Path(first.removeprefix("# "))
    assert path.parent == Path("fastconv/layers"), first
    assert not (ROOT / path).exists(), f"{path} is a layer by now: the page needs another example"
    (tmp_path / path.name).write_text(source, encoding="utf-8")
    name = f"fastconv.layers.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, tmp_path / path.name)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    public = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == name]
    for exported in (k for k in public if not k.startswith("_")):
        monkeypatch.setattr(layers, exported, getattr(module, exported), raising=False)
    (case,) = eval(f"[{row}]", vars(cases))
    return module, case


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_gradients_of_the_new_layer(
    new_layer: tuple[ModuleType, cases.Case], training: bool
) -> None:
    _, case = new_layer
    fc.set_floatx("float64")
    try:
        test_gradients.test_gradients(case, training)
    finally:
        fc.set_floatx("float32")


def test_the_new_layer_is_saved_exported_and_proved(
    new_layer: tuple[ModuleType, cases.Case], tmp_path: Path, rng: np.random.Generator
) -> None:
    _, case = new_layer
    inputs = [fc.Input(shape) for shape in case.inputs]
    model = fc.Model(inputs, case.make(*inputs))
    x = [rng.standard_normal((3, *shape)).astype(np.float32) for shape in case.inputs]
    y = model.predict(x)
    model.save(tmp_path / "m.fastconv")
    np.testing.assert_array_equal(fc.load_model(tmp_path / "m.fastconv").predict(x), y)
    report = model.export(tmp_path / "m.onnx", samples=x)
    assert (tmp_path / "m.onnx").exists()
    assert report.largest_error <= report.tolerance


def test_a_layer_without_a_row_is_found(new_layer: tuple[ModuleType, cases.Case]) -> None:
    with pytest.raises(AssertionError, match="Blend"):
        test_gradients.test_every_layer_has_a_case()


# -- how to add a kernel or an instruction set ----------------------------------------------------


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_kernel_of_the_list_is_in_the_table_and_declared() -> None:
    kernels = re.findall(r"\(\*(\w+)\)\(", text_of("csrc/table.inl"))
    assert len(set(kernels)) == len(kernels) > 0
    filled = re.findall(r"\.(\w+) = (\w+),", text_of("csrc/kernels/all.inl"))
    assert [field for field, _ in filled if field.islower() and field in kernels] == kernels
    assert all(field == body for field, body in filled if field in kernels)
    pairs = re.findall(r"\(\*(\w+)\)\(", text_of("csrc/kernels.h"))  # of bfloat16
    assert re.findall(r"\.(\w+) = pair_\1,", text_of("csrc/kernels/bf16.inl")) == pairs
    declared = re.findall(r"\(\*(\w+)\)\(", text_of("fastconv/_native/dispatch.pxd"))
    assert declared == pairs + kernels * 2  # for float, for double


def test_vector_headers_have_the_same_names() -> None:
    names = {
        path.name: sorted(re.findall(r"^static inline \w+ (v_\w+)\(", path.read_text(), re.M))
        for path in (ROOT / "csrc" / "simd").glob("vec_*.h")
    }
    assert len(names) == 4
    assert len(set(map(tuple, names.values()))) == 1, names


def test_every_instruction_set_is_whole() -> None:
    tables = {path.stem for path in (ROOT / "csrc" / "isa").glob("*.c")}
    listed = set(
        re.findall(r"^\| `(\w+)` \| (?:float|double|pair) \|", text_of("csrc/README.md"), re.M)
    )
    assert listed == tables
    for table in tables:
        assert f'"{table}"' in text_of("setup.py")
        assert f"fc_table_{table}" in text_of("csrc/dispatch.c")


def test_tiles_are_those_of_the_headers() -> None:
    rows = re.findall(
        r"^\| `\w+` \| (\w+) \| (\d+) \| (\d+) × (\d+) \| (\d+) × (\d+) \| `simd/(\w+\.h)` \|",
        text_of("csrc/README.md"),
        re.MULTILINE,
    )
    assert len(rows) == 5
    for _, lanes, *tiles, header in rows:
        sizes = dict(re.findall(r"^#define (\w+_MR) (\d+)", text_of(f"csrc/simd/{header}"), re.M))
        wide = str(2 * int(lanes))
        assert tiles == [sizes["GATHER_MR"], wide, sizes["OUTER_MR"], wide], header
