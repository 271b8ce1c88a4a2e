"""Batches and tensors without a server: what is joined, filled, split, refused, read, written."""

import asyncio
import json
import threading
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastconv.serving import protocol
from fastconv.serving.batching import Batcher, Closed, Expired, Full, buckets
from fastconv.serving.protocol import BadRequest, parse_infer, write_infer


class Network:
    """Doubles its input; keeps the sizes it ran; waits while it is held."""

    def __init__(self):
        self.sizes = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, feeds, outputs):
        self.sizes.append(len(feeds["x"]))
        self.free.wait(10)
        if np.isnan(feeds["x"]).any():
            raise ValueError("no number")
        return [2 * feeds["x"] for _ in outputs]


def rows(n, start=0):
    return {"x": np.arange(start, start + n, dtype=np.float32)[:, None]}


def asked(network, *requests, **options):
    """Answers, or errors, to requests that arrive while the network is busy with one sample."""

    async def ask():
        batcher = Batcher(network, **options)
        network.free.clear()
        first = asyncio.create_task(batcher.submit(rows(1), ["y"]))
        while not network.sizes:
            await asyncio.sleep(0.001)
        tasks = [asyncio.create_task(batcher.submit(r, ["y"])) for r in requests]
        await asyncio.sleep(0.01)
        network.free.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await first
        await batcher.close()
        with pytest.raises(Closed):
            await batcher.submit(rows(1), ["y"])
        assert batcher.waiting == 0
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize(("most", "sizes"), [
    (1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12)),
])  # fmt: skip
def test_buckets(most, sizes):
    assert buckets(most) == sizes


def test_what_waits_goes_together():
    network = Network()
    requests = [rows(n, 10 * n) for n in (1, 2, 3)]
    for request, found in zip(requests, asked(network, *requests), strict=True):
        np.testing.assert_array_equal(found.outputs[0], 2 * request["x"])
        assert found.batch == 6
    assert network.sizes == [1, 6]


def test_batches_are_filled_up():
    network = Network()
    (found,) = asked(network, rows(5), max_batch=8, sizes=buckets(8))
    assert network.sizes == [1, 8]
    np.testing.assert_array_equal(found.outputs[0], 2 * rows(5)["x"])


def test_large_requests_are_split_and_joined():
    network = Network()
    (found,) = asked(network, rows(10), max_batch=4)
    assert network.sizes == [1, 4, 4, 2]
    np.testing.assert_array_equal(found.outputs[0], 2 * rows(10)["x"])


def test_other_shapes_do_not_mix():
    network = Network()
    wide = {"x": np.ones((2, 3), np.float32)}
    first, second, third = asked(network, rows(1), wide, rows(1, 5))
    assert network.sizes == [1, 2, 2]
    assert second.outputs[0].shape == (2, 3)
    assert (first.outputs[0][0, 0], third.outputs[0][0, 0]) == (0, 10)


def test_a_bad_request_fails_alone():
    network = Network()
    bad = {"x": np.full((1, 1), np.nan, np.float32)}
    first, failed, last = asked(network, rows(2), bad, rows(5, 7), max_batch=4)
    assert str(failed) == "no number"
    assert network.sizes == [1, 3, 2, 1, 4, 1]  # the batch, each of it alone, and what came after
    np.testing.assert_array_equal(first.outputs[0], 2 * rows(2)["x"])
    np.testing.assert_array_equal(last.outputs[0], 2 * rows(5, 7)["x"])


def test_without_a_batch_axis_each_runs_alone():
    network = Network()
    found = asked(network, rows(2), rows(2), alone=True)
    assert network.sizes == [1, 2, 2]
    assert [f.outputs[0].shape for f in found] == [(2, 1), (2, 1)]


def test_a_full_queue_refuses_and_an_empty_one_takes_any():
    network = Network()
    first, second, third = asked(network, rows(9), rows(1), rows(1), max_batch=4, queue=4)
    assert len(first.outputs[0]) == 9
    assert isinstance(second, Full)
    assert isinstance(third, Full)
    assert second.retry_after >= 1


def test_time_runs_out_while_it_waits():
    network = Network()

    async def ask():
        batcher = Batcher(network)
        network.free.clear()
        first = asyncio.create_task(batcher.submit(rows(1), ["y"]))
        while not network.sizes:
            await asyncio.sleep(0.001)
        with pytest.raises(Expired):
            await batcher.submit(rows(1), ["y"], timeout=0.01)
        network.free.set()
        await first
        await batcher.close()

    asyncio.run(ask())
    assert network.sizes == [1]  # nobody wanted the other any more


def test_an_output_without_a_batch_axis_is_named():
    async def ask():
        batcher = Batcher(lambda feeds, outputs: [np.float32(1)])
        try:
            await batcher.submit(rows(2), ["total"])
        finally:
            await batcher.close()

    with pytest.raises(ValueError, match="'total' has the shape"):
        asyncio.run(ask())


# -- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "depth"), [
    ('[[1], {"a": [2]}]', 3),
    (r'["[[[", "\"[[", "\\", [["]]"]], "\\\"["]', 3),
    ("[" * 50 + "]" * 50, 50),
])  # fmt: skip
def test_depth_is_counted_outside_of_strings(text, depth):
    json.loads(text)
    for block in (1, 3, protocol.BLOCK):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(protocol, "BLOCK", block)
            assert protocol._depth(text.encode()) == depth


@pytest.mark.parametrize("middle", [b'\\"', b"a", b'"', b"\\", b"["])
def test_no_text_takes_long_or_much_memory(middle):
    body = b"[" * 33 + b'"' + middle * (1 << 20)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(BadRequest):
            protocol.parse_json(body)
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 5
    assert peak < 40 * 2**20


# -- the protocol's tensors -----------------------------------------------------------------------

DTYPES = ["float32", "float64", "float16", "uint8", "int32", "int64", "bool"]


def info(name="x", dtype="float32", shape=(None, 2)):
    return SimpleNamespace(name=name, dtype=np.dtype(dtype), shape=shape)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_there_and_back(dtype, binary, rng):
    x = rng.integers(0, 2, (3, 2)).astype(dtype)
    kind = protocol.NAMES[x.dtype]
    tensor = {"name": "x", "datatype": kind, "shape": [3, 2]}
    tensor |= {"parameters": {"binary_data_size": x.nbytes}} if binary else {"data": x.tolist()}
    outputs = [{"name": "x", "parameters": {"binary_data": binary}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs, "id": "7"}).encode()
    body = head + (x.tobytes() if binary else b"")
    request = parse_infer(body, str(len(head)), [info(dtype=dtype)], [info(dtype=dtype)])
    np.testing.assert_array_equal(request.feeds["x"], x)
    assert request.feeds["x"].dtype == x.dtype
    answer, size = write_infer(request, [x], "m", "1")
    told = json.loads(answer[:size])
    assert (told["id"], told["outputs"][0]["datatype"]) == ("7", kind)
    if binary:
        assert answer[size:] == x.tobytes()
    else:
        assert told["outputs"][0]["data"] == x.ravel().tolist()


@pytest.mark.parametrize("kind", ["BYTES", None])
def test_texts_are_refused(kind):
    tensor = {"name": "x", "datatype": kind, "shape": [1, 2], "data": ["a", "b"]}
    for more in ({}, {"parameters": {"binary_data_size": 16}}):
        head = json.dumps({"inputs": [tensor | more]}).encode()
        with pytest.raises(BadRequest, match="BYTES, which this server does not take"):
            parse_infer(head + bytes(16), str(len(head)), [info(dtype="object")], [info()])
    with pytest.raises(BadRequest, match="BYTES, which this server does not take"):
        protocol.numbers([1, 2], "x", np.dtype(object))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "bool", "float32"])
def test_classes_of_any_numbers(dtype):
    scores = np.array([[0, 1, 0]], dtype)
    best = protocol.classification(scores, protocol.Wanted("y", classes=1), ["a", "b", "c"])
    assert best[0, 0].split(":")[1:] == ["1", "b"]
    with pytest.raises(BadRequest, match="BYTES of the shape"):
        protocol.classification(scores.astype(object), protocol.Wanted("y", classes=1), None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | json_values,
        "datatype": st.sampled_from(list(protocol.DATATYPES)) | json_values,
        "shape": st.lists(st.integers(-2, 2**70), max_size=4) | st.just([1, 2]) | json_values,
        "data": st.lists(st.floats(), max_size=4) | json_values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers()}) | json_values,
    },
)


@given(st.lists(entries, max_size=3) | json_values, json_values, st.binary(max_size=40),
       st.none() | st.integers().map(str) | st.text())  # fmt: skip
def test_whatever_comes_is_read_or_refused(inputs, outputs, tail, length):
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    length = str(len(head)) if length == "0" else length
    try:
        request = parse_infer(head + tail, length, [info()], [info()])
    except BadRequest:
        return
    assert request.feeds["x"].shape[1:] == (2,)
    assert request.feeds["x"].dtype == np.float32


@given(st.binary(max_size=200), st.none() | st.integers(-2, 300).map(str))
def test_bytes_are_read_or_refused(body, length):
    with pytest.raises(BadRequest):
        parse_infer(body, length, [info()], [info()])


def test_what_json_cannot_write_is_said():
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    request = parse_infer(body, None, [info()], [info()])
    with pytest.raises(BadRequest, match="ask for 'binary_data'"):
        write_infer(request, [np.full((1, 2), np.nan, np.float32)], "m", "1")
