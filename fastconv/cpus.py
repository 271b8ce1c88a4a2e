"""How many processors this process may use.

Training and serving ask here, so it knows nothing of either.
"""

import os

MAX_THREADS = 1024


def cpu_quota(root: str = "") -> float | None:
    """CPUs that the container may use, None without a limit.

    The tightest limit on the process' control group and its ancestors: ``cpu.max`` of cgroup v2,
    ``cpu.cfs_quota_us`` over ``cpu.cfs_period_us`` of v1, read below ``root``.
    """

    def read(path: str) -> str:
        try:
            with open(f"{root}{path}") as file:
                return file.read()
        except OSError:
            return ""

    limits = []
    # the mounted roots count even where the group's own path is hidden from the container
    for line in ["0::/", "0:cpu:/", *read("/proc/self/cgroup").splitlines()]:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, names = "/sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mount, names = "/sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        parts = group.strip("/").split("/")
        for depth in range(len(parts) + 1):
            folder = "/".join([mount, *parts[:depth]])
            words = [word for name in names for word in read(f"{folder}/{name}").split()]
            if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
                limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def default_num_threads(root: str = "") -> tuple[int, str]:
    """The thread count of a fresh process, and why that many; ``root`` as in `cpu_quota`.

    ``OMP_NUM_THREADS``, else the smaller of the affinity mask and the container's CPU quota.

    Raises
    ------
    ValueError
        ``OMP_NUM_THREADS`` is no count.
    """
    words = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if words:
        if words.isdigit() and int(words) > 0:
            return min(int(words), MAX_THREADS), "OMP_NUM_THREADS"
        raise ValueError(f"OMP_NUM_THREADS is a positive integer, not {words!r}")
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cpus = os.cpu_count() or 1
    quota = cpu_quota(root)
    if quota is not None and quota < cpus:
        return max(1, int(quota)), f"the container's quota of {quota:g} CPUs, rounded down"
    return min(cpus, MAX_THREADS), "CPUs that this process may run on"
