"""The benchmarks: all sides do the same work, they take turns, what is timed computes the right
thing, the counts are right, and every part runs from end to end on tiny shapes."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import reference

from fastconv import layers, precision
from fastconv.serving import doctor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import bound
import common
import gpu
import layers as bench
import memory
import networks
import report
import run
import scaling
import serving
import train
import worker
from networks import NETWORKS
from worker import Side, Timing, Worker, WorkerError

needs_torch = pytest.mark.skipif(
    not common.installed("torch"), reason="PyTorch, the other side, is not installed"
)


def missing(*names: str) -> bool:
    return any(not hasattr(layers, name) for name in names)


# -- shape files ----------------------------------------------------------------------------------

CLASSES = {"depthwise": "DepthwiseConv2D", "transposed": "Conv2DTranspose"}


@pytest.mark.parametrize("network", common.shape_files())
def test_shape_files_agree_with_the_layers(network):
    shapes = common.read_shapes(network)
    assert shapes
    for shape in shapes:
        if shape.kind == "optimizer" or missing(CLASSES.get(shape.kind, "Conv2D")):
            continue
        inputs = [shape.size] * (2 if shape.kind.startswith("add") else 1)
        first, *rest = bench.make_layers(shape)
        assert first.output_shape(*inputs) == shape.out, shape
        assert all(layer.output_shape(shape.out) == shape.out for layer in rest)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a conv 8x8x3 4@3x3 pads 1", "'pads' is no option"),
        ("a conv 8x8x3 4@3x3 pad", "zip"),
        ("a conv 8x8x3", "pop from empty list"),
        ("a cov 8x8x3 4@3x3", "'cov' is no kind"),
        ("a dense 8,8 4", "8,8"),
        ("a optimizer 8 adamw", "'adamw' is no optimizer"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, monkeypatch, line, found):
    monkeypatch.setattr(common, "SHAPES", tmp_path)
    (tmp_path / "net.txt").write_text(f"batch 2  # of all\n\n{line}\n")
    with pytest.raises(ValueError, match=r"net\.txt, line 3") as error:
        common.read_shapes("net")
    assert found in str(error.value)


def make_shape(line: str) -> common.Shape:
    return common.parse_shape("test", line.split(), 3)


def test_least_bytes_of_layers():
    norm = make_shape("a normrelu 4x4x8")
    assert norm.gbytes("forward") == pytest.approx(4e-9 * 3 * 3 * 128)  # x, x, y
    assert norm.gbytes("input gradient") == pytest.approx(4e-9 * 5 * 3 * 128)
    pool = make_shape("a maxpool 4x4x8 2x2 stride 2")
    assert pool.gbytes("forward") == pytest.approx(4e-9 * 3 * (128 + 32 + 32 / 4))
    assert make_shape("a optimizer 100 adam").gbytes("update") == pytest.approx(4e-9 * 700)
    dense = make_shape("a dense 20 7")
    assert dense.gbytes("forward") == pytest.approx(4e-9 * (3 * 27 + 140))
    up = make_shape("a transposed 5x4x6 3@2x2 stride 2")
    assert up.out == (10, 8, 3)
    assert up.gflop == pytest.approx(2e-9 * 3 * 20 * 4 * 18)


# -- layers ---------------------------------------------------------------------------------------


def expected(shape: common.Shape, data: dict) -> dict[str, np.ndarray]:
    """What the textbook says for each direction."""
    x, dy, w, bias = (data.get(name) for name in ("x", "dy", "weight", "bias"))
    if shape.kind == "dense":
        dx, dw, _ = reference.dense_backward(x, w, dy)
        return {"forward": reference.dense(x, w, bias), bench.INPUT: dx, bench.WEIGHT: dw}
    if shape.kind == "addrelu":
        y = np.maximum(x + data["b"], 0)
        return {"forward": y, bench.INPUT: dy * (y > 0)}
    if shape.kind in ("batchnorm", "normrelu"):
        one, zero = np.ones(shape.channels), np.zeros(shape.channels)
        y = reference.batch_norm(x, one, zero)[0]
        if shape.kind == "normrelu":
            y, dy = np.maximum(y, 0), dy * (y > 0)
        return {"forward": y, bench.INPUT: reference.batch_norm_backward(x, one, dy)[0]}
    pads = [(shape.pad, shape.pad)] * 2
    if shape.kind == "transposed":  # the convolution from y to x, the other way round
        back = reference.conv_backward(dy, w, x, shape.stride, pads)
        dx = reference.conv(dy, w, None, shape.stride, pads)
        return {"forward": back[0] + bias, bench.INPUT: dx, bench.WEIGHT: back[1]}
    if shape.kind == "depthwise":
        how = (shape.stride, pads, shape.dilation, shape.channels)
        w = np.swapaxes(w, 2, 3)
        dx, dw, _ = reference.conv_backward(x, w, dy, *how)
        y = reference.conv(x, w, bias, *how)
        return {"forward": y, bench.INPUT: dx, bench.WEIGHT: np.swapaxes(dw, 2, 3)}
    if shape.kind == "conv":
        how = (shape.stride, pads, shape.dilation, shape.groups)
        dx, dw, _ = reference.conv_backward(x, w, dy, *how)
        return {"forward": reference.conv(x, w, bias, *how), bench.INPUT: dx, bench.WEIGHT: dw}
    name = {"maxpool": "max_pool", "avgpool": "avg_pool"}[shape.kind]
    how = (shape.kernel, shape.stride, pads)
    dx = getattr(reference, f"{name}_backward")(x, dy, *how)
    return {"forward": getattr(reference, name)(x, *how), bench.INPUT: dx}


@pytest.mark.parametrize(
    "line",
    [
        "a conv 9x8x3 5@3x3 pad 1",
        "b conv 9x8x4 6@3x2 stride 2 groups 2",
        "c conv 9x9x2 7@3x3 dilation 2 pad 2",
        "d dense 20 7",
        "e maxpool 9x8x3 3x3 stride 2 pad 1",
        "f avgpool 8x8x3 2x2 stride 2",
        "g batchnorm 5x5x3",
        "h normrelu 5x5x3",
        "i addrelu 5x5x3",
        "j depthwise 9x8x5 3x3 stride 2 pad 1",
        "k transposed 4x5x6 3@2x2 stride 2",
    ],
)
def test_timed_steps_compute_the_layer(line):
    """Every direction, run twice and in any order: nothing that one writes spoils another."""
    shape = make_shape(line)
    if missing(CLASSES.get(shape.kind, "Conv2D")):
        pytest.skip(f"fastconv has no {CLASSES[shape.kind]} yet")
    data = bench.make_data(shape)
    layer = bench.FastconvLayer(shape, data)
    runners = {direction: layer.runner(direction) for direction in bench.directions(shape)}
    want = expected(shape, data)
    for direction in [*runners, *reversed(runners)]:
        layer.refresh()
        runners[direction]()
        found = layer.result(direction, bench.result_shape(shape, direction))
        bench.check(shape, direction, found, want[direction])


def test_wrong_results_are_not_timed():
    shape = make_shape("a dense 4 3")
    right = np.ones((3, 3), np.float32)
    bench.check(shape, "forward", right, right)
    for wrong in (right + 0.01, np.full_like(right, np.nan)):
        with pytest.raises(RuntimeError, match="differ"):
            bench.check(shape, "forward", wrong, right)


# -- workers and turns ----------------------------------------------------------------------------


class Talker(Side):
    """A side for these tests, in a process of its own."""

    def __init__(self, word: str = "") -> None:
        self.word = word
        self.task = lambda: None

    def repeat(self, times: int) -> list[str]:
        print("a library talks")
        return [self.word] * times

    def fail(self) -> None:
        raise ValueError("this is why")

    def die(self) -> None:
        import os

        os._exit(3)


@pytest.fixture
def talker(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    with Worker(Talker, word="yes") as side:
        yield side


def test_a_worker_answers_whatever_is_printed(talker):
    assert talker.call("repeat", times=2) == ["yes", "yes"]
    assert set(talker.call("sample", calls=3, wake=True)) == {"seconds", "cpu_before", "cpu_after"}


def test_a_workers_error_is_told_and_it_goes_on(talker):
    with pytest.raises(WorkerError, match="this is why"):
        talker.call("fail")
    assert talker.call("repeat", times=1) == ["yes"]


def test_a_dead_worker_is_told(talker):
    with pytest.raises(WorkerError, match="ended with code 3"):
        talker.call("die")
    with pytest.raises(WorkerError, match="ended with code 3"):
        talker.call("repeat", times=1)


def test_all_workers_end_with_an_error(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    with (
        pytest.raises(KeyError),
        worker.started({"a": {"side": Talker}, "b": {"side": Talker}}) as workers,
    ):
        raise KeyError
    assert all(side.process.poll() is not None for side in workers.values())


class Player:
    """A worker that notes its calls."""

    def __init__(self, name: str, notes: list, seconds: float) -> None:
        self.name, self.notes, self.seconds = name, notes, seconds

    def call(self, method: str, **arguments):
        self.notes.append((self.name, method, arguments))
        if method == "run":
            return self.seconds
        return {"seconds": self.seconds, "cpu_before": 1.0, "cpu_after": 1.0}


def test_sides_take_turns_and_are_warmed_up_alike(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0)
    notes: list = []
    players = {n: Player(n, notes, s) for n, s in (("a", 0.05), ("b", 0.01), ("c", 0.05))}
    times, idle = worker.take_turns(players, rounds=3, sample=0.05)
    warm_up = [(name, arguments["calls"]) for name, method, arguments in notes if method == "run"]
    before = {name: sum(calls for n, calls in warm_up if n == name) for name in players}
    alike = 1 + worker.WARM_UP + 1  # one to know, one to count by
    assert before == {"a": alike + 10, "b": alike + 50, "c": alike + 10}  # half a second of each
    turns = [(name, arguments) for name, method, arguments in notes if method == "sample"]
    assert "".join(name for name, _ in turns) == "abcbcacab"
    assert turns[0][1] == {"calls": 1, "wake": True}
    assert turns[1][1] == {"calls": 5, "wake": True}
    assert idle == 0
    assert {name: len(t.samples) for name, t in times.items()} == dict.fromkeys("abc", 3)


def test_sides_that_compute_out_of_turn_are_told():
    assert worker.idle_notes([{"idle_cpus": 0.01}]) == []
    assert "0.90 CPUs" in worker.idle_notes([{"idle_cpus": 0.01}, {"idle_cpus": 0.9}])[0]


def test_long_calls_are_not_repeated_to_wake(monkeypatch):
    monkeypatch.setattr(worker, "PAUSE", 0)
    notes: list = []
    worker.take_turns({n: Player(n, notes, 0.6) for n in "ab"}, rounds=1)
    assert [a for _, method, a in notes if method == "sample"] == [{"calls": 1, "wake": False}] * 2


def test_speedup_is_over_the_best_of_the_others():
    times = {name: Timing.of([s]) for name, s in (("fastconv", 2.0), ("b", 6.0), ("c", 5.0))}
    assert worker.speedup(times) == 2.5
    assert worker.best_other(times) == "c"
    assert worker.speedup({"fastconv": times["fastconv"]}) is None


# -- the same work --------------------------------------------------------------------------------


def possible(net: networks.Network) -> bool:
    return not missing(*{"mobilenet": ["DepthwiseConv2D"], "unet": ["Conv2DTranspose"]}.get(
        net.function, []
    ))  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    sides = {
        "fastconv": {"side": train.FastconvTraining, "threads": 1},
        "torch": {"side": train.TorchTraining, "threads": 1, "channels_last": True},
    }
    with worker.started(sides) as workers:
        yield workers


@needs_torch
@pytest.mark.parametrize("net", networks.ALL, ids=lambda net: net.name)
def test_both_networks_are_the_same_work(pair, net):
    """Parameters, multiply-adds, and the losses of the first steps from the same weights."""
    if not possible(net):
        pytest.skip(f"fastconv has no layer for {net.name} yet")
    small = networks.quick(net)
    train.prepared(small, pair)
    losses = train.compare_losses(small, pair)
    assert all(np.isfinite(side).all() for side in losses.values())


class Answers:
    """A worker with fixed answers."""

    def __init__(self, **answers) -> None:
        self.answers = answers

    def call(self, method: str, **arguments):
        return self.answers[method]


def test_other_work_is_refused():
    net = NETWORKS["lenet5_1"]
    facts = {"parameters": 10, "multiply_adds": 20}
    same = {"fastconv": Answers(prepare=facts), "torch": Answers(prepare=facts)}
    assert train.prepared(net, same) == facts
    for what in facts:
        other = Answers(prepare={**facts, what: 11})
        with pytest.raises(RuntimeError, match=what):
            train.prepared(net, {"fastconv": same["fastconv"], "torch": other})


def test_other_losses_are_refused():
    net = NETWORKS["lenet5_1"]
    ours = Answers(losses=[1.0, 1.0, 1.0])
    assert train.compare_losses(net, {"fastconv": ours, "torch": ours})
    for wrong in ([1.001, 1.0, 1.0], [1.0, 1.0, 1.2], [1.0, float("nan"), 1.0]):
        with pytest.raises(RuntimeError, match="loss"):
            train.compare_losses(net, {"fastconv": ours, "torch": Answers(losses=wrong)})


# -- the bound ------------------------------------------------------------------------------------

LIMIT = {"gflops": 100.0, "gbytes": 10.0, "levels": [(1000, 50.0), (1_000_000, 10.0)]}


def test_a_kernel_takes_what_takes_longer():
    arithmetic = bound.Kernel("a", "direct", "forward", bytes=100, flops=1e6)
    assert arithmetic.seconds(LIMIT) == pytest.approx(1e-5)
    assert bound.Kernel("a", "norm", "forward", bytes=500).seconds(LIMIT) == pytest.approx(1e-8)
    assert bound.Kernel("a", "norm", "forward", bytes=5e6).seconds(LIMIT) == pytest.approx(5e-4)


def test_bound_of_lenet():
    # c1, c3, c5, f6, output; no gradient at the image
    macs = [784 * 25 * 6, 100 * 150 * 16, 400 * 120, 120 * 84, 84 * 10]
    model = networks.fastconv_model(NETWORKS["lenet5_1"])
    assert bound.multiply_adds(model) == sum(macs)
    kernels = bound.kernels(model, 2, training=True, states=1)
    assert bound.gflop(kernels) == pytest.approx(4e-9 * (3 * sum(macs) - macs[0]))
    assert sum(k["flops"] for k in kernels) == sum(k["direct"] for k in kernels)  # no Winograd
    kinds = [kernel["kind"] for kernel in kernels]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "direct": 5, "dense": 9, "pool": 4, "loss": 1, "optimizer": 1
    }  # fmt: skip
    (update,) = (k for k in kernels if k["kind"] == "optimizer")
    assert update["bytes"] == 4 * 5 * model.count_params()
    ahead = bound.kernels(model, 2, training=False)
    assert [kernel["direction"] for kernel in ahead] == ["forward"] * 7


def test_bound_of_winograd_norm_and_residual():
    import fastconv as fc

    x = layers.Input((10, 10, 32))
    y = layers.Conv2D(32, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.Conv2D(32, 3, padding="same", use_bias=False)(y)
    model = fc.Model(x, layers.Add()([z, y]))
    kernels = bound.kernels(model, 1, training=True)
    value = 4 * 3200  # bytes of a tensor
    winograd = [kernel for kernel in kernels if kernel["kind"] == "winograd"]
    assert len(winograd) == 5
    assert {k["flops"] for k in winograd} == {2 * 9 * 36 * 32 * 32}  # 3 x 3 tiles
    assert {k["direct"] for k in winograd} == {2 * 100 * 9 * 32 * 32}
    assert {k["bytes"] for k in winograd} == {2 * value + 4 * 9 * 32 * 32}
    assert [k["bytes"] for k in kernels if k["kind"] == "norm"] == [2 * value, 4 * value]
    # the addition reads its second operand; the gradients of y's two readers are added
    assert [k["bytes"] for k in kernels if k["kind"] == "add"] == [value, value]
    assert bound.seconds(kernels, LIMIT) == pytest.approx(
        sum(bound.by_kind(kernels, LIMIT).values())
    )


def test_bound_refuses_what_it_does_not_know():
    import fastconv as fc

    model = fc.Sequential([layers.Input((4, 4, 1)), layers.ZeroPadding2D(1)])
    with pytest.raises(ValueError, match="ZeroPadding2D"):
        bound.kernels(model, 1, training=False)


# -- memory, scaling, reports ---------------------------------------------------------------------


def test_remaining_memory():
    found = {"base": 10, "peak": 100, "parameters": 20, "gradients": 20, "state": 5}
    assert memory.remaining(found) == 45


def test_the_peak_of_memory_is_seen():
    memory.forget_peak()
    before = memory.resident_peak()
    block = np.ones(1 << 25)  # 256 MiB
    assert memory.resident_peak() - before > 200 << 20
    assert memory.resident() > block.nbytes


def test_states_are_the_optimizers():
    for net in networks.ALL:
        assert networks.states(net.optimizer) == len(networks.fastconv_optimizer(net).states)


def test_slope_is_the_exponent():
    assert common.slope([(x, 3 * x**1.5) for x in (1, 2, 4, 16)]) == pytest.approx(1.5)


def test_axes_change_what_they_say():
    for axis in scaling.AXES:
        sizes = [(size, getattr(net, axis.field)) for size, net in axis.networks(quick=False)]
        assert all(size == field for size, field in sizes)


def make_report() -> report.Report:
    table = report.Table("Times", ["name", "ms"], [["a|b", "1.0"], ["c", "20.0"]])
    bars = report.Bars("Ratios <1>", [("fast & good", 8.0), ("slow", 0.5), ("tiny", 0.01)])
    return report.Report("train", "Steps", [table], [bars], ["A note."], {"rows": []})


def test_tables_in_the_terminal_and_in_markdown():
    found = make_report()
    assert found.text().splitlines()[2:] == [
        "name    ms", "----  ----", "a|b    1.0", "c     20.0", "", "A note."
    ]  # fmt: skip
    page = report.page([found], common.machine(2), "python benchmarks/run.py train")
    for line in ("| a\\|b | 1.0 |", "- A note.", "python benchmarks/run.py train", "Intel"):
        assert line in page


def test_bars_begin_at_one():
    tree = ElementTree.fromstring(report.svg(make_report().bars))
    bars = [e for e in tree.iter() if e.tag.endswith("rect")]
    assert [bar.get("class") for bar in bars] == ["faster", "slower", "slower"]
    one = float(bars[0].get("x"))
    for bar in bars[1:]:
        assert float(bar.get("x")) + float(bar.get("width")) == pytest.approx(one, abs=0.2)
    ends = [float(e.get("x")) for e in tree.iter() if e.get("text-anchor") == "end"]
    assert all(float(bar.get("x")) > max(ends) for bar in bars)  # labels are beside the bars
    words = [e.text for e in tree.iter() if e.tag.endswith("text")]
    assert {"fast & good", "8.00×", "0.01×", "Ratios <1>"} <= set(words)


# -- every part from end to end -------------------------------------------------------------------

PARTS = {
    "layers": ["keras_mnist conv conv1", "memory addrelu add3", "memory optimizer adam"],
    "train": ["lenet5_1"],
    "inference": ["lenet5_1"],
    "scaling": ["image"],
    "memory": ["lenet5_1"],
    "policies": ["lenet5_1"],
    "import": ["numpy"],
    "feeding": ["input", "callbacks", "folder", "command"],
    "optimizers": [],
    "peak": [],
}


@pytest.mark.parametrize("part", run.PARTS)
@pytest.mark.parametrize("peers", [False, True], ids=["alone", "beside peers"])
def test_parts_run(part, peers, tmp_path, monkeypatch):
    if part == "policies" and precision.no_bf16():
        pytest.skip(precision.no_bf16())
    alone = part in ("peak", "feeding", "policies", "optimizers")
    if peers and (alone or not common.installed("torch")):
        pytest.skip("there is nobody to compare with" if alone else "PyTorch is missing")
    if not peers:
        installed = common.installed
        monkeypatch.setattr(
            common, "installed", lambda name: name not in common.PEERS and installed(name)
        )
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "markdown", "svg")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    only = ["--only", *PARTS[part]] if PARTS[part] else []
    saved = ["--save", str(tmp_path / "saved")]
    run.main([part, "--quick", "--threads", "1", *options, *saved, *only])
    found = json.loads(files["json"].read_text())[part]
    assert "failed" not in files["markdown"].read_text()
    rows = found["axes"][0]["points"] if part == "scaling" else found["rows"]
    assert rows
    for row in rows:
        sides = row.get("times", {})
        assert any(name.startswith("torch") for name in sides) == (peers and bool(sides))
        if "speedup" in row:
            assert (row["speedup"] or 0) > 0 if peers else row["speedup"] is None
    name = "-".join([part, *PARTS[part]]).replace(" ", "_")
    assert (tmp_path / "saved" / f"{name}.md").exists()
    pictured = peers and part in ("layers", "train", "inference", "memory")
    assert files["svg"].exists() == (pictured or part == "policies")


def test_all_parts_run_although_one_fails(monkeypatch, tmp_path):
    class Broken:
        @staticmethod
        def run(args):
            raise RuntimeError("broken")

    class Fine:
        @staticmethod
        def run(args):
            return replace(make_report(), part="peak")

    monkeypatch.setattr(run, "PARTS", {"train": ("broken", 1), "peak": ("fine", 1)})
    monkeypatch.setattr(run, "import_module", {"broken": Broken, "fine": Fine}.get)
    with pytest.raises(SystemExit, match="failed: train"):
        run.main(["all", "--save", str(tmp_path)])
    assert (tmp_path / "peak.md").exists()


# -- serving --------------------------------------------------------------------------------------


def test_the_session_is_timed_beside_onnxruntime(tmp_path, capsys):
    command = ["session", "--quick", "--only", "mnist", "--json", str(tmp_path / "s.json")]
    run.measure("serving.py", serving.__doc__, serving.PARTS, command)
    rows = json.loads((tmp_path / "s.json").read_text())["session"]["rows"]
    assert [row["batch"] for row in rows] == [1, 64]
    assert all(row["allowed"] > 20e-6 for row in rows)
    assert "mnist, batch 64" in capsys.readouterr().out


def test_the_server_is_timed_beside_the_session_and_a_plain_handler(tmp_path):
    pytest.importorskip("starlette")
    for part in ("server", "load"):
        command = [part, "--quick", "--json", str(tmp_path / f"{part}.json")]
        run.measure("serving.py", serving.__doc__, serving.PARTS, command)
    found = json.loads((tmp_path / "server.json").read_text())["server"]
    assert 0 < found["added"] < 0.1
    rows = json.loads((tmp_path / "load.json").read_text())["load"]["rows"]
    assert len(rows) == 4
    assert all(row["rate"] > 0 and row["wrong"] == row["refused"] == 0 for row in rows)


def test_64_clients_with_batches_and_without(tmp_path, capsys):
    pytest.importorskip("starlette")
    command = ["gpu", "--quick", "--json", str(tmp_path / "gpu.json")]
    run.measure("serving.py", serving.__doc__, serving.PARTS, command)
    rows = json.loads((tmp_path / "gpu.json").read_text())["gpu"]["rows"]
    assert [row["side"] for row in rows] == ["batches up to 64", "batching off"]
    assert all(row["rate"] > 0 and row["wrong"] == row["refused"] == 0 for row in rows)
    if not doctor.examine("cuda").ok:
        run.measure("serving.py", serving.__doc__, serving.PARTS, ["gpu"])
        assert "Not run: " in capsys.readouterr().out


def test_networks_are_timed_on_a_device(tmp_path, capsys):
    command = ["--device", "cpu", "--quick", "--only", "lenet5", "--json", str(tmp_path / "g.json"),
               "--markdown", str(tmp_path / "g.md")]  # fmt: skip
    assert gpu.main(command) == 0
    (found,) = json.loads((tmp_path / "g.json").read_text())["gpu"]["networks"]
    rows = {row["dtype"]: row for row in found["rows"] if "proof" in row}
    assert set(rows) == {"float32", "float16"}
    assert all(row["proof"]["ok"] and set(row["times"]) == {"1", "4"} for row in rows.values())
    assert "Exported networks on cpu (no GPU)" in (tmp_path / "g.md").read_text()


def test_without_a_gpu_it_says_why(capsys):
    if doctor.examine("cuda").ok:
        pytest.skip("there is a GPU here")
    assert gpu.main([]) == 2
    assert capsys.readouterr().err.startswith("gpu.py: ")
