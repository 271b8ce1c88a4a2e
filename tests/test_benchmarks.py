"""The benchmarks: shape files say what layers make, and what is timed computes the right thing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import reference

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import common
import layers as bench
import steps


@pytest.mark.parametrize("network", common.networks())
def test_shape_files_agree_with_the_layers(network):
    shapes = common.read_shapes(network)
    assert shapes
    for shape in shapes:
        assert bench.make_layer(shape).output_shape(shape.size) == shape.out, shape


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a conv 8x8x3 4@3x3 pads 1", "'pads' is no option"),
        ("a conv 8x8x3 4@3x3 pad", "zip"),
        ("a conv 8x8x3", "pop from empty list"),
        ("a cov 8x8x3 4@3x3", "'cov' is no kind"),
        ("a dense 8,8 4", "8,8"),
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


def expected(shape: common.Shape, data: dict) -> dict[str, np.ndarray]:
    """What the textbook says for each direction."""
    x, dy, w, bias = (data.get(name) for name in ("x", "dy", "weight", "bias"))
    if shape.kind == "dense":
        dx, dw, _ = reference.dense_backward(x, w, dy)
        return {"forward": reference.dense(x, w, bias), bench.INPUT: dx, bench.WEIGHT: dw}
    if shape.kind == "batchnorm":
        one, zero = np.ones(shape.channels), np.zeros(shape.channels)
        dx = reference.batch_norm_backward(x, one, dy)[0]
        y = reference.batch_norm(x, one, zero)[0]
        return {"forward": y, bench.INPUT: dx}
    pads = [(shape.pad, shape.pad)] * 2
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
    ],
)
def test_timed_steps_compute_the_layer(line):
    """Every direction, run twice and in any order: nothing that one writes spoils another."""
    shape = make_shape(line)
    data = bench.make_data(shape)
    layer = bench.FastconvLayer(shape, data)
    runners = {direction: layer.runner(direction) for direction in bench.directions(shape)}
    want = expected(shape, data)
    for direction in [*runners, *reversed(runners)]:
        runners[direction]()
        bench.check(shape, direction, layer.result(direction, want[direction]), want[direction])


def test_wrong_results_are_not_timed():
    shape = make_shape("a dense 4 3")
    right = np.ones((3, 3), np.float32)
    bench.check(shape, "forward", right, right)
    for wrong in (right + 0.01, np.full_like(right, np.nan)):
        with pytest.raises(RuntimeError, match="differ"):
            bench.check(shape, "forward", wrong, right)


def test_candidates_are_timed_in_turns(monkeypatch):
    monkeypatch.setattr(common, "PAUSE", 0)
    calls: list[str] = []
    candidates = {name: lambda name=name: calls.append(name) for name in ("fastconv", "b", "c")}
    monkeypatch.setattr(common, "seconds", lambda call, count: [call(), 1.0][1])
    times = common.interleave(candidates, rounds=3)
    timed = calls[6:]  # after a warm-up and a first measure of each
    turns = [name for name, again in zip(timed[::2], timed[1::2], strict=True) if name == again]
    assert turns == ["fastconv", "b", "c", "b", "c", "fastconv", "c", "fastconv", "b"]
    assert {name: len(t.samples) for name, t in times.items()} == dict.fromkeys(candidates, 3)


def test_speedup_is_over_the_best_of_the_others():
    times = {name: common.Timing.of([s]) for name, s in (("fastconv", 2.0), ("b", 6.0), ("c", 5.0))}
    assert common.speedup(times) == 2.5
    assert common.speedup({"fastconv": times["fastconv"]}) is None


def test_work_of_a_step():
    # c1, c3, c5, f6, output; no gradient at the image
    products = [784 * 25 * 6 * 2, *(3 * n for n in (100 * 150 * 16, 400 * 120, 120 * 84, 84 * 10))]
    assert steps.step_gflop(steps.fastconv_lenet5(), 2) == pytest.approx(4e-9 * sum(products))
