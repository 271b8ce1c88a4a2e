"""Data sets: the IDX format and its damage, folders, the cache, downloads (loopback only)."""

import gzip
import hashlib
import io
import os
import struct
import sys
import threading
import tracemalloc
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastconv import datasets
from fastconv.datasets import _files, digits, fashion_mnist, idx, mnist
from fastconv.files import replacing

TYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]
IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


def header(code, *shape):
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def write(path, content):
    path.write_bytes(content)
    return path


def write_folder(folder, pattern="{}-{}-idx{}-ubyte.gz", train=(IMAGES, LABELS), test=None):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (x, y) in (("train", train), ("t10k", test or (IMAGES[:2], LABELS[:2]))):
        idx.write_idx(folder / pattern.format(split, "images", 3), x)
        idx.write_idx(folder / pattern.format(split, "labels", 1), y)
    return folder


def assert_small(loaded):
    (x_train, y_train), (x_test, y_test) = loaded
    for array, expected in (
        (x_train, IMAGES),
        (y_train, LABELS),
        (x_test, IMAGES[:2]),
        (y_test, LABELS[:2]),
    ):
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, expected)


# ---- IDX files ----


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("code", idx.DTYPES, ids=hex)
def test_read_every_type_by_content_not_by_name(tmp_path, code, compress):
    big_endian = np.array([[-3, 0, 1], [2, 100, 127]]).astype(idx.DTYPES[code])
    content = compress(header(code, 2, 3) + big_endian.tobytes())
    for name in ("a.idx", "a.gz"):
        array = idx.read_idx(write(tmp_path / name, content))
        assert array.dtype == idx.DTYPES[code].newbyteorder("=")
        assert array.dtype.isnative
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, big_endian)
        array[0, 0] = 7  # the array is the caller's


def test_bytes_of_the_format(tmp_path):
    idx.write_idx(tmp_path / "a", np.array([[1, -2]], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("00000b02 00000001 00000002 0001fffe")


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(
            st.sampled_from([np.dtype(dtype), np.dtype(dtype).newbyteorder()]),
            hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
        )
    ),
    transpose=st.booleans(),
    name=st.sampled_from(["a.idx", "a.idx.gz"]),
)
def test_round_trip(tmp_path_factory, array, transpose, name):
    path = tmp_path_factory.mktemp("idx") / name
    array = array.T if transpose else array
    idx.write_idx(path, array)
    back = idx.read_idx(path)
    assert back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)  # NaN equals NaN here
    first = path.read_bytes()
    idx.write_idx(path, back)
    assert path.read_bytes() == first
    assert (first[:2] == idx.GZIP_MAGIC) == name.endswith(".gz")


BAD_CONTENT = {
    "empty": (b"", "has only 0 bytes"),
    "cut in the magic": (b"\0\0\x08", "has only 3 bytes"),
    "another format": (b"\x89PNG\r\n\x1a\n", "begins with 89 50"),
    "unknown type": (header(0x0A, 1) + b"\0", "unknown IDX data type 0x0a"),
    "too many dimensions": (header(0x08, *[1] * 33) + b"\0", "33 dimensions"),
    "cut in the shape": (header(0x08, 2, 2)[:-1], "header of 2 dimensions is cut off"),
    "no elements": (header(0x08, 2**20), "truncated"),
    "one byte short": (header(0x0C, 2) + bytes(7), "truncated.*8 bytes"),
    "one byte long": (header(0x0C, 2) + bytes(9), "trailing bytes.*8 bytes"),
    "too large": (header(0x0E, *[2**32 - 1] * 3), "too large for any memory"),
    "overflow to zero": (header(0x08, *[2**31] * 32), "too large for any memory"),
    "empty but too large": (header(0x08, 0, *[2**32 - 1] * 3), "too large for any memory"),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("case", BAD_CONTENT)
def test_bad_content_is_refused_by_name(tmp_path, case, compress):
    content, message = BAD_CONTENT[case]
    path = write(tmp_path / "bad.idx", compress(content))
    with pytest.raises(ValueError, match=message) as caught:
        idx.read_idx(path)
    assert str(path) in str(caught.value)


def test_every_truncation_and_trailing_byte_of_a_gz_file_is_refused(tmp_path):
    whole = gzip.compress(header(0x08, 5, 4, 3) + IMAGES.tobytes())
    path = tmp_path / "a.gz"
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"a\.gz"):
            idx.read_idx(write(path, whole[:length]))
    with pytest.raises(ValueError, match="damaged gzip"):
        idx.read_idx(write(path, whole + b"x"))
    with pytest.raises(ValueError, match="trailing bytes"):
        idx.read_idx(write(path, whole + gzip.compress(b"x")))
    assert idx.read_idx(write(path, whole)).shape == (5, 4, 3)


@pytest.mark.parametrize("position", [2, 14, -6, -2], ids=["method", "data", "crc", "length"])
def test_a_changed_byte_of_a_gz_file_is_refused(tmp_path, position):
    content = bytearray(gzip.compress(header(0x08, 60) + IMAGES.tobytes()))
    content[position] ^= 0xFF
    with pytest.raises(ValueError, match=r"a\.gz"):
        idx.read_idx(write(tmp_path / "a.gz", content))


def peak_memory(path):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=path.name):
            idx.read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_not_taken_for_what_a_header_claims(tmp_path):
    bomb = gzip.compress(header(0x08, 10) + bytes(64 << 20), compresslevel=1)  # 64 MiB follow 10
    bare = header(0x08, 1 << 30) + bytes(100)
    packed = gzip.compress(header(0x08, 1 << 30) + bytes(4 << 20))  # a GiB claimed, 4 MiB there
    assert peak_memory(write(tmp_path / "bomb", bomb)) < 2 << 20
    assert peak_memory(write(tmp_path / "bare", bare)) < 2 << 20
    assert peak_memory(write(tmp_path / "packed", packed)) < 2 << 20


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.idx"):
        idx.read_idx(tmp_path / "none.idx")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        idx.read_idx(tmp_path)


@pytest.mark.parametrize(
    "array",
    [np.zeros(2, np.int64), np.zeros(2, bool), np.zeros(2, complex), np.array(["a"]),
     np.array([None]), np.zeros(2, np.float16), np.zeros(2, [("a", "u1")])],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_write_refuses_other_types_and_leaves_nothing(tmp_path, array):
    with pytest.raises(ValueError, match="cannot hold"):
        idx.write_idx(tmp_path / "a.idx", array)
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_an_extent_beyond_32_bits(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        idx.write_idx(tmp_path / "a.idx", np.empty((0, 2**32), np.uint8))


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = write(tmp_path / "a", b"old")

    def interrupted():
        with replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---- folders of MNIST-format files ----


@pytest.mark.parametrize(
    "pattern",
    ["{}-{}-idx{}-ubyte", "{}-{}-idx{}-ubyte.gz", "{}-{}.idx{}-ubyte", "{}-{}.idx{}-ubyte.gz"],
)
def test_folder_names(tmp_path, pattern):
    assert_small(idx.load_folder(write_folder(tmp_path / "data", pattern)))
    assert_small(mnist.load_data(tmp_path / "data"))
    assert_small(fashion_mnist.load_data(str(tmp_path / "data")))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((IMAGES, LABELS[:4]), "5 training images, but 4 labels"),
        ((IMAGES[0], LABELS[:4]), r"training images.*got uint8 and \(4, 3\)"),
        ((IMAGES.astype(np.int32), LABELS), "training images.*got int32"),
        ((IMAGES, LABELS.astype(np.int32)), "training labels.*got int32"),
        ((IMAGES, LABELS[:, None]), r"training labels.*got uint8 and \(5, 1\)"),
        ((IMAGES[:0], LABELS[:0]), r"training images.*got uint8 and \(0, 4, 3\)"),
        ((IMAGES[:, :3], LABELS), "differ in size"),
    ],
)
def test_folder_whose_files_do_not_belong_together(tmp_path, train, message):
    folder = write_folder(tmp_path / "data", train=train)
    with pytest.raises(ValueError, match=message) as caught:
        idx.load_folder(folder)
    assert str(folder) in str(caught.value)


def test_folder_that_is_incomplete_or_missing(tmp_path):
    folder = write_folder(tmp_path / "data")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"data: holds none of t10k-labels-idx1-ubyte,"):
        idx.load_folder(folder)
    with pytest.raises(NotADirectoryError, match="nowhere"):
        idx.load_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mnist.load_data(tmp_path / "nowhere")


# ---- mnist.npz ----


SMALL = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:2], "y_test": LABELS[:2]}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "mnist.npz", **SMALL)
    assert_small(mnist.load_data(tmp_path / "mnist.npz"))


def test_npz_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mnist.npz", **SMALL)
    assert_small(mnist.load_data("mnist.npz"))


def npy(shape, content=b"", dtype="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + content


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy((1 << 40,)), "x_train.npy holds"),
        (npy((5, 4, 3), bytes(61)), "x_train.npy holds"),
        (npy((1 << 32, 1 << 32)), "x_train.npy holds"),
        (npy((-1, -1, 1), b"1"), "x_train.npy holds"),
        (npy((1,), b"cos\nsystem\n.", dtype="|O"), "x_train.npy holds"),
        (npy((5,), bytes(5)), "training images"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"not an array", "not a whole"),
        (b"", "not a whole"),
    ],
)
def test_npz_with_a_hostile_member(tmp_path, member, message):
    path = tmp_path / "mnist.npz"
    np.savez(path, **{name: SMALL[name] for name in ("y_train", "x_test", "y_test")})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", member)
    with pytest.raises(ValueError, match=message) as caught:
        mnist.load_data(path)
    assert str(path) in str(caught.value)


def test_npz_that_is_damaged(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=IMAGES)
    with pytest.raises(ValueError, match=r"mnist\.npz.*y_train"):
        mnist.load_data(path)
    np.savez(path, **SMALL)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # an element of x_train: only the archive's CRC sees it
    with pytest.raises(ValueError, match=r"mnist\.npz: not a whole"):
        mnist.load_data(write(path, content))
    with pytest.raises(ValueError, match=r"mnist\.npz: not a whole"):
        mnist.load_data(write(path, content[:-30]))


# ---- the places that are looked at, and downloads ----


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty user cache; nothing else is configured and no mirror can be reached."""
    for variable in ("FASTCONV_DATA", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    return tmp_path / "cache/fastconv/mnist"


@pytest.fixture
def serve():
    """Start loopback HTTP servers: ``serve(handler)`` returns an address ending in a slash."""
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class Answer(BaseHTTPRequestHandler):
    """Sends `content`, whatever is asked for, and counts the bytes that it could send."""

    content = b""
    repeat = 1
    sent = 0

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(self.repeat):
            try:
                self.wfile.write(self.content)
            except OSError:
                return
            type(self).sent += len(self.content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder with the four files as a mirror has them, small, with their sums registered."""
    folder = write_folder(tmp_path / "mirror")
    files = {
        path.name: _files.Published(
            path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in folder.iterdir()
    }
    assert files.keys() == mnist.FILES.keys()
    monkeypatch.setattr(mnist, "FILES", files)
    return folder


def test_data_variable_comes_first(tmp_path, monkeypatch, cache):
    write_folder(tmp_path / "data/mnist")
    write_folder(tmp_path / "data/fashion-mnist")
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "data"))
    assert_small(mnist.load_data())
    assert_small(mnist.load_data("mnist.npz"))  # Keras' default, spelt out
    assert_small(fashion_mnist.load_data())
    assert not cache.exists()


def test_error_lists_where_it_looked(tmp_path, monkeypatch, cache, serve, published):
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "data"))
    empty = serve(Answer)
    refusing = "http://127.0.0.1:1/"  # a reserved port: nobody listens
    monkeypatch.setattr(mnist, "MIRRORS", (empty, refusing))
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        mnist.load_data()
    for place in (tmp_path / "data/mnist", cache, "$FASTCONV_DATA", empty, refusing):
        assert str(place) in str(caught.value)
    assert list(cache.iterdir()) == []


def test_download_fills_the_cache_once(monkeypatch, cache, serve, published, capsys):
    mirror = serve(partial(QuietFiles, directory=str(published)))
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:1/", mirror))
    assert_small(mnist.load_data())
    assert {path.name for path in cache.iterdir()} == mnist.FILES.keys()
    assert "train-images-idx3-ubyte.gz: 100%" in capsys.readouterr().err
    monkeypatch.setattr(mnist, "MIRRORS", ())
    assert_small(mnist.load_data())
    assert capsys.readouterr().err == ""


def test_missing_and_damaged_files_of_the_cache_are_downloaded_again(
    monkeypatch, cache, serve, published
):
    mirror = serve(partial(QuietFiles, directory=str(published)))
    monkeypatch.setattr(mnist, "MIRRORS", (mirror,))
    mnist.load_data()
    labels, images = cache / "train-labels-idx1-ubyte.gz", cache / "train-images-idx3-ubyte.gz"
    labels.unlink()
    images.write_bytes(bytes(images.stat().st_size))
    assert_small(mnist.load_data())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "has SHA-256"),
        (lambda whole: whole[:-1], "sent {0} bytes, expected {1}"),
        (lambda whole: whole + b"x", "sent more than {1} bytes"),
        (lambda whole: b"", "sent 0 bytes, expected {1}"),
    ],
    ids=["changed", "short", "long", "empty"],
)
def test_a_file_that_is_not_the_published_one_never_appears(
    monkeypatch, cache, serve, published, damage, message
):
    size = next(iter(mnist.FILES.values())).size
    for path in published.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(mnist, "MIRRORS", (serve(partial(QuietFiles, directory=str(published))),))
    with pytest.raises(OSError, match=message.format(size - 1, size)):
        mnist.load_data()
    assert list(cache.iterdir()) == []


def test_a_file_that_a_mirror_lacks_is_taken_from_the_next(
    tmp_path, monkeypatch, cache, serve, published
):
    (tmp_path / "empty").mkdir()
    folders = (tmp_path / "empty", published)
    mirrors = [serve(partial(QuietFiles, directory=str(folder))) for folder in folders]
    monkeypatch.setattr(mnist, "MIRRORS", mirrors[:1])
    with pytest.raises(OSError, match="404"):
        mnist.load_data()
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    assert_small(mnist.load_data())


def test_an_endless_answer_is_cut_off(monkeypatch, cache, serve, published):
    endless = type("Endless", (Answer,), {"content": bytes(1 << 16), "repeat": 1 << 14})
    monkeypatch.setattr(mnist, "MIRRORS", (serve(endless),))
    with pytest.raises(OSError, match="sent more than"):
        mnist.load_data()
    assert endless.sent < 64 << 20  # of a GiB: what socket buffers hold
    assert list(cache.iterdir()) == []


def test_an_answer_that_is_not_http_is_reported(monkeypatch, cache, serve, published):
    class Garbage(Answer):
        def do_GET(self):
            self.wfile.write(b"garbage\r\n")

    monkeypatch.setattr(mnist, "MIRRORS", (serve(Garbage),))
    with pytest.raises(OSError, match="garbage"):
        mnist.load_data()


def test_relative_cache_variable_is_ignored(monkeypatch):
    monkeypatch.setenv("HOME", os.path.abspath("/home/someone"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _files.cache_folder("mnist") == Path("/home/someone/.cache/fastconv/mnist")


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_mirrors_and_sums(module):
    assert all(m.startswith("https://") and m.endswith("/") for m in module.MIRRORS)
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in module.FILES.values())


# ---- the real data ----


def real_folder(name):
    shared = Path(__file__).parents[2] / "shared/data"
    folder = Path(os.environ.get("FASTCONV_DATA") or shared, name)
    if not folder.is_dir():
        pytest.skip(f"{name} is not at hand: neither $FASTCONV_DATA nor ../shared/data has it")
    return folder


@pytest.mark.parametrize(
    ("module", "name", "per_class"),
    [
        (
            mnist,
            "mnist",
            (
                [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
                [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            ),
        ),
        (fashion_mnist, "fashion-mnist", ([6000] * 10, [1000] * 10)),
    ],
    ids=["mnist", "fashion_mnist"],
)
def test_real_data(module, name, per_class):
    folder = real_folder(name)
    for (x, y), counts in zip(module.load_data(folder), per_class, strict=True):
        assert x.shape == (sum(counts), 28, 28)
        assert x.dtype == y.dtype == np.uint8
        assert x.min() == 0
        assert x.max() == 255
        np.testing.assert_array_equal(np.bincount(y), counts)
    for file, published in module.FILES.items():
        if (folder / file).is_file():
            assert _files._is_whole(folder / file, published)


# ---- scikit-learn's digits ----


def test_digits():
    pytest.importorskip("sklearn", reason="the demo extra is not installed")
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.dtype == y_train.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert x_train.shape == (len(y_train), 8, 8)
    assert x_test.shape == (len(y_test), 8, 8)
    assert len(x_train) + len(x_test) == 1797
    assert (x_train.min(), x_train.max()) == (0, 16)
    share = np.bincount(y_test) / np.bincount(np.concatenate([y_train, y_test]))
    np.testing.assert_allclose(share, 0.2, atol=0.003)
    assert len(np.unique(y_test[:50])) == 10  # shuffled, not class by class


@pytest.mark.parametrize("fraction", [1e-9, 0.25, 1 - 1e-9])
def test_digits_split_is_a_stratified_partition(fraction):
    y = np.repeat(np.arange(4), [2, 5, 40, 100])
    train, test = digits._stratified_split(y, fraction, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
    assert set(y[train]) == set(y[test]) == {0, 1, 2, 3}
    again = digits._stratified_split(y, fraction, seed=3)
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(test, again[1])
    other = digits._stratified_split(y, fraction, seed=4)
    assert not np.array_equal(train, other[0]) or not np.array_equal(test, other[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_digits_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        digits.load_data(test_fraction=fraction)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[sklearn\]'"):
        digits.load_data()


# ---- the package ----


def test_submodules_are_lazy():
    for name in datasets.__all__:
        assert name in dir(datasets)
        assert getattr(datasets, name).__name__ == f"fastconv.datasets.{name}"
    with pytest.raises(AttributeError, match="cifar11"):
        _ = datasets.cifar11
