"""The VMM's disk back end against fio's io_uring, on the same file, in turns: ratios of what each did
in a second.  `tests/bench/run --only disk` runs nothing else."""
import json
import os
import statistics
import subprocess
import tempfile

SIZE_MIB = 256
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


def ours(build, path, load, direct, engine="ring"):
    command = [os.path.join(build, "tests", "disk_bench"), path, load[0], load[1], str(load[2]),
               str(load[3]), str(SECONDS), "none" if direct else "buffered", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def fio(path, load, direct):
    rw = {"random": "rand", "sequential": ""}[load[0]] + load[1]
    command = ["fio", "--name=x", f"--filename={path}", "--ioengine=io_uring", f"--rw={rw}",
               f"--bs={load[2]}", f"--iodepth={load[3]}", f"--runtime={SECONDS}", "--time_based",
               f"--direct={int(direct)}", f"--size={SIZE_MIB}M", "--fallocate=none",
               "--invalidate=0", "--norandommap", "--gtod_reduce=1", "--thread",
               "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["jobs"][0][load[1]]["iops"]


def bench(build, report):
    with tempfile.NamedTemporaryFile(prefix="disk-", dir=build) as file:
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
                        pair[who] = (ours(build, file.name, load, cache == "none") if who == "ours"
                                     else fio(file.name, load, cache == "none"))
                    ratios.append(pair["ours"] / pair["fio"])
                    rates.append(pair["ours"])
                report.add(f"disk_{cache}_{name}", statistics.median(rates), "1/s")
                report.add(f"disk_{cache}_{name}_to_fio", statistics.median(ratios), "ratio", 0.95,
                           most=False)
