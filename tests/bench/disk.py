"""The VMM's disk back end against fio's io_uring on the same file, and a delta against a raw file, in turns:
ratios of what each did in a second.  `tests/bench/run --only disk` runs nothing else.

What could favour one of the two is alike for both.  They transfer to the same pages of the host: a disk that
takes 254 pieces a request takes 1 MiB of scattered pages as two, so that by luck of the allocation one of
them was twice as fast.  The file is out of the page cache for `none` (the kernel hands a direct write to a
thread where it has to drop a page first) and in it for `buffered`.  Both run on the same
processor: where the disk's interrupts come to another one, each request takes a fifth longer.  A disk that
others use, too, goes from half to twice its speed within seconds: the turns are short, and many."""
import json
import os
import statistics
import subprocess
import tempfile

SIZE_MIB = 256
MEMORY_MIB = 8  # more than fio needs for any of the loads
ROUNDS = 11
MS = 200
# name: pattern, direction, bytes, depth
LOADS = {
    "random_read_qd1": ("random", "read", 4096, 1),
    "random_read_qd32": ("random", "read", 4096, 32),
    "random_write_qd1": ("random", "write", 4096, 1),
    "random_write_qd32": ("random", "write", 4096, 32),
    "sequential_read": ("sequential", "read", 1 << 20, 4),
    "sequential_write": ("sequential", "write", 1 << 20, 4),
}


class Bench:
    def __init__(self, build, memory):
        self.build, self.memory = build, memory

    def ours(self, path, load, direct=False, base=None, ms=MS):
        command = [os.path.join(self.build, "tests", "disk_bench"), path, load[0], load[1], str(load[2]),
                   str(load[3]), str(ms), "none" if direct else "buffered", "ring", self.memory]
        done = subprocess.run(command + ([base] if base else []), capture_output=True, text=True, check=True)
        return float(done.stdout)

    def fio(self, path, load, direct):
        rw = {"random": "rand", "sequential": ""}[load[0]] + load[1]
        command = ["fio", "--name=x", f"--filename={path}", "--ioengine=io_uring", f"--rw={rw}",
                   f"--bs={load[2]}", f"--iodepth={load[3]}", f"--runtime={MS}ms", "--time_based",
                   f"--direct={int(direct)}", f"--size={SIZE_MIB}M", "--fallocate=none",
                   "--invalidate=0", "--norandommap", "--gtod_reduce=1", "--thread",
                   f"--mem=mmapshared:{self.memory}", "--output-format=json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["jobs"][0][load[1]]["iops"]

    def in_new_file(self, size, load, base=None):
        """On a file of its own: of holes, or with a base an empty one, which becomes a delta."""
        with tempfile.NamedTemporaryFile(prefix="disk-", dir=self.build) as file:
            os.ftruncate(file.fileno(), size)
            return self.ours(file.name, load, base=base)


def compare(report, name, against, goal, one, other):
    """One's rate, and its ratio to the other's: the median of the rounds."""
    ratios, rates = [], []
    for turn in range(ROUNDS):
        first = one() if turn % 2 else None
        reference = other()
        rates.append(first or one())
        ratios.append(rates[-1] / reference)
    report.add(name, statistics.median(rates), "1/s")
    report.add(f"{name}_to_{against}", statistics.median(ratios), "ratio", goal, most=False)


def bench_fio(bench, path, report):
    for cache in ("none", "buffered"):
        direct = cache == "none"
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while not direct and file.read(1 << 20):
                pass
        for name, load in LOADS.items():
            compare(report, f"disk_{cache}_{name}", "fio", 0.95, lambda: bench.ours(path, load, direct),
                    lambda: bench.fio(path, load, direct))


def bench_delta(bench, base, report, loads):
    """Blocks of the base, those of the delta, and those that a write brings to it; the loads are of one
    size, by which the files are written, too: so both are in pages alike."""
    size = SIZE_MIB << 20
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=bench.build) as empty, \
            tempfile.NamedTemporaryFile(prefix="disk-", dir=bench.build) as delta, \
            tempfile.NamedTemporaryFile(prefix="disk-", dir=bench.build) as raw:
        os.ftruncate(raw.fileno(), size)
        for path, over in ((delta.name, base), (raw.name, None)):
            bench.ours(path, ("sequential", "write", *list(loads.values())[0][2:]), base=over, ms=0)
        for name, load in loads.items():
            if load[1] == "read":
                compare(report, f"delta_base_{name}", "raw", 0.9,
                        lambda: bench.ours(empty.name, load, base=base), lambda: bench.ours(base, load))
            else:
                compare(report, f"delta_first_{name}", "raw", 0.9,
                        lambda: bench.in_new_file(0, load, base), lambda: bench.in_new_file(size, load))
            compare(report, f"delta_{name}", "raw", 0.9, lambda: bench.ours(delta.name, load, base=base),
                    lambda: bench.ours(raw.name, load))


def bench(build, report):
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=build) as file, \
            tempfile.NamedTemporaryFile(prefix="warren-bench-", dir="/dev/shm") as memory:
        memory.write(os.urandom(MEMORY_MIB << 20))
        memory.flush()
        for _ in range(SIZE_MIB):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        turns = Bench(build, memory.name)
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(processors)})
        bench_fio(turns, file.name, report)
        for pattern in ("random", "sequential"):
            bench_delta(turns, file.name, report,
                        {name: load for name, load in LOADS.items() if load[0] == pattern})
        os.sched_setaffinity(0, processors)
