"""The VMM's disk back end against fio's io_uring, on the same file, in turns: ratios of what each did
in a second.  `tests/bench/run --only disk` runs nothing else.

Both transfer to the same pages of the host: a disk that takes 254 pieces a request takes 1 MiB of
scattered pages as two, so that by luck of the allocation one of them was twice as fast."""
import json
import os
import statistics
import subprocess
import tempfile

SIZE_MIB = 256
MEMORY_MIB = 8  # more than fio needs for any of the loads
ROUNDS = 3
SECONDS = 1
# name: pattern, direction, bytes, depth
LOADS = {
    "random_read_qd1": ("random", "read", 4096, 1),
    "random_read_qd32": ("random", "read", 4096, 32),
    "random_write_qd1": ("random", "write", 4096, 1),
    "random_write_qd32": ("random", "write", 4096, 32),
    "sequential_read": ("sequential", "read", 1 << 20, 4),
    "sequential_write": ("sequential", "write", 1 << 20, 4),
}


def ours(build, path, memory, load, direct, engine="ring"):
    command = [os.path.join(build, "tests", "disk_bench"), path, load[0], load[1], str(load[2]),
               str(load[3]), str(SECONDS), "none" if direct else "buffered", engine, memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def fio(path, memory, load, direct):
    rw = {"random": "rand", "sequential": ""}[load[0]] + load[1]
    command = ["fio", "--name=x", f"--filename={path}", "--ioengine=io_uring", f"--rw={rw}",
               f"--bs={load[2]}", f"--iodepth={load[3]}", f"--runtime={SECONDS}", "--time_based",
               f"--direct={int(direct)}", f"--size={SIZE_MIB}M", "--fallocate=none",
               "--invalidate=0", "--norandommap", "--gtod_reduce=1", "--thread",
               f"--mem=mmapshared:{memory}",
               "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["jobs"][0][load[1]]["iops"]


def bench(build, report):
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=build) as file, \
            tempfile.NamedTemporaryFile(prefix="warren-bench-", dir="/dev/shm") as memory:
        memory.write(os.urandom(MEMORY_MIB << 20))
        memory.flush()
        for _ in range(SIZE_MIB):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        for cache in ("none", "buffered"):
            for name, load in LOADS.items():
                ratios, rates = [], []
                for turn in range(ROUNDS):
                    pair = {}
                    for who in ("ours", "fio") if turn % 2 else ("fio", "ours"):
                        pair[who] = (ours(build, file.name, memory.name, load, cache == "none")
                                     if who == "ours" else
                                     fio(file.name, memory.name, load, cache == "none"))
                    ratios.append(pair["ours"] / pair["fio"])
                    rates.append(pair["ours"])
                report.add(f"disk_{cache}_{name}", statistics.median(rates), "1/s")
                report.add(f"disk_{cache}_{name}_to_fio", statistics.median(ratios), "ratio", 0.95,
                           most=False)
