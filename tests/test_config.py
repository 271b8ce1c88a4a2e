"""ISA and thread count: who decides, and how wrong wishes are refused."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastconv import config, cpus
from fastconv._native import dispatch
from fastconv._native.step import Extent, PythonStep, execute


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process with nothing of ours in its environment but this."""
    inherited = {
        k: v for k, v in os.environ.items() if k not in {"FASTCONV_ISA", "OMP_NUM_THREADS"}
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def write_tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


# ---- instruction set -----------------------------------------------------------------------------


def test_best_table_comes_first_and_baseline_last() -> None:
    names = dispatch.isa_names()
    assert names[-1] == "baseline"
    assert len(set(names)) == len(names)
    done = run("from fastconv._native import dispatch; print(dispatch.isa())")
    assert done.stdout.strip() == names[0]


@pytest.mark.parametrize("name", dispatch.isa_names())
def test_environment_forces_a_table(name: str) -> None:
    done = run("from fastconv import config; print(config.config_info()['isa'])", FASTCONV_ISA=name)
    assert done.stdout.strip() == name, done.stderr


@pytest.mark.parametrize("name", ["avx1024", "AVX2 ", "reference_f64", "é"])
def test_unknown_table_in_the_environment(name: str) -> None:
    done = run("import fastconv._native.dispatch", FASTCONV_ISA=name)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: FASTCONV_ISA: no kernel table {name.strip()!r}")
    assert "baseline" in last


def test_set_isa(isa: str) -> None:
    assert dispatch.isa() == isa
    with pytest.raises(ValueError, match="no kernel table 'neon9'"):
        dispatch.set_isa("neon9")
    assert dispatch.isa() == isa


# ---- threads -------------------------------------------------------------------------------------

WHY = "import fastconv._native.dispatch as d; print(d.num_threads(), d.num_threads_why(), sep='|')"
needs_openmp = pytest.mark.skipif(not dispatch.openmp(), reason="this build has no OpenMP")


@needs_openmp
@pytest.mark.parametrize(("words", "count"), [("3", 3), (" 2 ", 2), ("5,2", 5), ("99999", 1024)])
def test_omp_num_threads_is_respected(words: str, count: int) -> None:
    assert run(WHY, OMP_NUM_THREADS=words).stdout.strip() == f"{count}|OMP_NUM_THREADS"


@pytest.mark.parametrize("words", ["0", "-1", "two", "1.5"])
def test_omp_num_threads_is_checked(words: str) -> None:
    done = run("import fastconv._native.dispatch", OMP_NUM_THREADS=words)
    assert f"ImportError: OMP_NUM_THREADS is a positive integer, not {words!r}" in done.stderr


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_affinity_is_respected() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + WHY
    assert run(code).stdout.startswith("1|")


@needs_openmp
def test_set_num_threads(threads) -> None:
    for n in (1, 7, np.int64(3), cpus.MAX_THREADS):
        config.set_num_threads(n)
        assert config.get_num_threads() == n
    assert dispatch.num_threads_why() == "set_num_threads"


@pytest.mark.parametrize("n", [0, -1, 1025, 2**70, 1.0, True, "2", None])
def test_set_num_threads_refuses(n: object, threads) -> None:
    before = config.get_num_threads()
    with pytest.raises(ValueError, match="the number of threads"):
        config.set_num_threads(n)  # type: ignore[arg-type]
    assert config.get_num_threads() == before


def _after_fork(results) -> None:
    """In the child: how many threads, does a step run, may it have more."""
    x, y = np.arange(6, dtype=np.float32), np.zeros(6, np.float32)

    def double(arrays, training, accumulate) -> None:
        arrays[1][:] = 2 * arrays[0]

    slots = [(0, (2,), None), (1, (2,), None)]
    execute(PythonStep(double, slots, [Extent(0, 2)], [Extent(1, 2)]), {0: x, 1: y}, 3)
    try:
        dispatch.set_num_threads(2)
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    results.put((dispatch.num_threads(), dispatch.num_threads_why(), y.tolist(), refused))


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_runs_on_one_thread(threads) -> None:
    threads(2)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_after_fork, args=(results,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    count, why, y, refused = results.get()
    assert (count, y) == (1, [0, 2, 4, 6, 8, 10])
    assert "fork" in why
    assert "spawn" in refused
    assert dispatch.num_threads() == 2


# ---- the container's quota -----------------------------------------------------------------------

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"
OWN = "proc/self/cgroup"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        pytest.param({}, None, id="no cgroups"),
        pytest.param({f"{V2}/cpu.max": "max 100000\n"}, None, id="v2 unlimited"),
        pytest.param({f"{V2}/cpu.max": "250000 100000\n"}, 2.5, id="v2 at the mount"),
        pytest.param(
            {OWN: "0::/a b/c\n", f"{V2}/a b/c/cpu.max": "50000 100000\n"}, 0.5, id="v2 own group"
        ),
        pytest.param(
            {
                OWN: "0::/pod/box\n",
                f"{V2}/pod/cpu.max": "150000 100000\n",
                f"{V2}/pod/box/cpu.max": "300000 100000\n",
            },
            1.5,
            id="v2 an ancestor is tighter",
        ),
        pytest.param(
            {f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"},
            None,
            id="v1 unlimited",
        ),
        pytest.param(
            {f"{V1}/cpu.cfs_quota_us": "350000\n", f"{V1}/cpu.cfs_period_us": "100000\n"},
            3.5,
            id="v1 at the mount",
        ),
        pytest.param(
            {
                OWN: "12:memory:/box\n4:cpu,cpuacct:/box\n",
                f"{V1}/box/cpu.cfs_quota_us": "20000\n",
                f"{V1}/box/cpu.cfs_period_us": "50000\n",
            },
            0.4,
            id="v1 own group",
        ),
        pytest.param(
            {OWN: "4:cpuset:/box\n", f"{V1}/box/cpu.cfs_quota_us": "1\n"}, None, id="v1 elsewhere"
        ),
        pytest.param({f"{V2}/cpu.max": "100000 0\n"}, None, id="nonsense period"),
        pytest.param({f"{V2}/cpu.max": "\n"}, None, id="empty file"),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpus.cpu_quota(write_tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "count"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2), (3.7, 3)])
def test_quota_is_rounded_down(tmp_path: Path, monkeypatch, quota: float, count: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    root = write_tree(tmp_path, {f"{V2}/cpu.max": f"{quota * 1e5:.0f} 100000\n"})
    assert cpus.default_num_threads(root) == (
        count,
        f"the container's quota of {quota:g} CPUs, rounded down",
    )


def test_quota_above_affinity_does_not_count(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3})
    root = write_tree(tmp_path, {f"{V2}/cpu.max": "800000 100000\n"})
    assert cpus.default_num_threads(root) == (2, "CPUs that this process may run on")


# ---- what is printed -----------------------------------------------------------------------------


def test_config_info_is_plain_data() -> None:
    info = config.config_info()
    assert json.loads(json.dumps(info)) == info
    assert info["isa"] in info["isa_available"]
    assert info["threads"] == config.get_num_threads()
    assert info["numpy"] == np.__version__
    assert info["openmp"] is None or info["openmp"] >= "2010-00"
    assert info["cpu"]


def test_config_info_imports_no_package() -> None:
    code = (
        "import sys; from fastconv.config import config_info; config_info();"
        "print(sorted({'numpy', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert run(code).stdout.strip() == "[]"


def test_show_config(capsys, monkeypatch) -> None:
    monkeypatch.setattr(config, "_installed", lambda name: None if name == "onnx" else "9.8")
    assert config.show_config() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["isa"] == dispatch.isa()
    assert lines["threads"] == f"{dispatch.num_threads()} ({dispatch.num_threads_why()})"
    assert lines["onnx"] == "not installed"
    assert lines["numpy"] == "9.8"
    assert "-ffp-contract=off" in lines["flags"]


def test_idle_threads_spin_shortly():
    """GNU OpenMP says itself what it was told; a user's own choice stands."""
    if not dispatch.openmp() or "gcc" not in dispatch.compiler():
        pytest.skip("not a build with GNU OpenMP")

    def told(**choice: str) -> str:
        env = {
            k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        }
        done = subprocess.run(
            [sys.executable, "-c", "import os; import fastconv.layers; print(dict(os.environ))"],
            env=env | {"OMP_DISPLAY_ENV": "verbose"} | choice, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert ("GOMP_SPINCOUNT" in done.stdout) == ("GOMP_SPINCOUNT" in choice)
        return re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)[1]

    assert told() == "1000"
    assert told(GOMP_SPINCOUNT="77") == "77"
