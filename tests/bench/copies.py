"""Restores and forks: how long they take, and what a fork costs.  The guest is the tests' own, whose
touched memory is what there is to be copied."""
import os
import re
import statistics
import subprocess
import tempfile
import time

ROUNDS = 7
TOUCHED_MIB = 64
MORE_MIB = 1024
UNUSED_MIB = 4096
FORKS = 100


def restores(build):
    """Milliseconds from CONFIGURE to READY of a machine that is restored."""
    took = []
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as work:
        run = [os.path.join(build, "tests", "run_vmm"), "--vmm", os.path.join(build, "warren-vmm"),
               "--memory", "80", "--quiet"]
        prefix = os.path.join(work, "s")
        subprocess.run(run + ["--kernel", os.path.join(build, "guest.elf"), "--cmdline",
                              f"touch:{TOUCHED_MIB}:7 tick:10", "--snapshot", prefix,
                              "--snapshot-after", "1500"], capture_output=True, check=False)
        for _ in range(ROUNDS):
            said = subprocess.run(run + ["--restore", prefix, "--measure", "--timeout", "0"],
                                  capture_output=True, text=True, check=False).stderr
            took.append(int(re.search(r"configured to ready (\d+) us", said)[1]) / 1000)
    return statistics.median(took)


def await_console(client, name, text):
    deadline = time.monotonic() + 60
    while text not in client.request("fork", "GET", f"/v1/vms/{name}/console?tail=200"):
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: the guest of {name} does not come to {text}")
        time.sleep(0.05)


def parent(client, name, touched_mib):
    """A VM of shared memory that has touched so much of it."""
    client.request("fork", "PUT", f"/v1/vms/{name}?wait=10",
                   {"memory_mib": touched_mib + 16, "memory_backing": "shared",
                    "boot": {"kernel": "guest", "cmdline": f"touch:{touched_mib}:7 tick:1000"}})
    await_console(client, name, b"tick")


def remove(client, names):
    for name in names:
        client.request("fork", "DELETE", f"/v1/vms/{name}?force=true&wait=20")


def forks(client, touched_mib):
    """Milliseconds from the request to a fork that runs: the first of a VM, and later ones; and to when the
    VM itself goes on after the first."""
    first, later, goes_on = [], [], []
    for _ in range(ROUNDS):
        parent(client, "parent", touched_mib)
        for times, child in ((first, "f1"), (later, "f2")):
            begun = time.monotonic()
            client.request("fork", "POST", "/v1/vms/parent/fork?wait=10", {"ids": [child]})
            times.append((time.monotonic() - begun) * 1000)
            client.request("fork", "GET", "/v1/vms/parent/wait?for=running&timeout=10")
            if times is first:
                goes_on.append((time.monotonic() - begun) * 1000)
        remove(client, ["f1", "f2", "parent"])
    return [statistics.median(times) for times in (first, later, goes_on)]


def held(client):
    """Milliseconds for which VMs were held since the agent began."""
    return float(re.search(rb"^warren_vm_hold_seconds_sum ([0-9.e+-]+)$", client.request("fork", "GET", "/metrics"),
                           re.MULTILINE)[1]) * 1000


def holds(client, name, spec, ready):
    """Milliseconds for which a VM is held for a snapshot, once its guest has said that it is ready."""
    took = []
    client.request("fork", "PUT", f"/v1/vms/{name}?wait=10", spec)
    await_console(client, name, ready)
    for _ in range(ROUNDS):
        before = held(client)
        client.request("fork", "POST", f"/v1/vms/{name}/snapshot?wait=60", {"id": "held"})
        client.request("fork", "GET", f"/v1/vms/{name}/wait?for=running&timeout=10")
        took.append(held(client) - before)
        client.request("fork", "DELETE", "/v1/snapshots/held?wait=20")
    remove(client, [name])
    return statistics.median(took)


def snapshots(client, report):
    memory = holds(client, "memory", {"memory_mib": MORE_MIB + 16, "boot": {
        "kernel": "guest", "cmdline": f"touch:{MORE_MIB}:7 tick:1000"}}, b"tick")
    report.add("snapshot_hold_with_1_gib_touched", memory, "ms")
    unused = holds(client, "unused", {"memory_mib": UNUSED_MIB + TOUCHED_MIB, "boot": {
        "kernel": "guest", "cmdline": f"touch:{TOUCHED_MIB}:7 tick:1000"}}, b"tick")
    report.add("snapshot_hold_with_4_gib_unused", unused, "ms")
    client.request("fork", "PUT", "/v1/volumes/held?wait=10", {"size_mib": TOUCHED_MIB + 8})
    disk = holds(client, "disk", {"memory_mib": 16, "disks": [{"name": "root", "volume": "held"}], "boot": {
        "kernel": "guest", "cmdline": f"blk:write:0:0x5a:{TOUCHED_MIB * 2048} blk:count:{TOUCHED_MIB * 2048}:100000000"}},
                 b"count at")
    report.add("snapshot_hold_with_64_mib_on_disk", disk, "ms")
    client.request("fork", "DELETE", "/v1/volumes/held?wait=20")


def fleet(client, mem_available_kib):
    """KiB that each of many forks takes while it does next to nothing."""
    parent(client, "parent", TOUCHED_MIB)
    names = [f"n{i}" for i in range(FORKS)]
    before = mem_available_kib()
    begun = time.monotonic()
    for start in range(0, FORKS, 50):
        client.request("fork", "POST", "/v1/vms/parent/fork?wait=30", {"ids": names[start:start + 50]})
    took = time.monotonic() - begun
    time.sleep(1)
    used = (before - mem_available_kib()) / FORKS
    remove(client, names + ["parent"])
    return used, took


def bench(build, client, report, mem_available_kib):
    report.add("restore_call", restores(build), "ms", 3)
    first, later, goes_on = forks(client, TOUCHED_MIB)
    report.add("fork_with_64_mib_touched", first, "ms", 10)
    report.add("fork_again", later, "ms", 10)
    report.add("fork_parent_goes_on", goes_on, "ms")
    more, _, more_goes_on = forks(client, TOUCHED_MIB + MORE_MIB)
    report.add("fork_per_further_gib", (more - first) * 1024 / MORE_MIB, "ms", 15)
    report.add("fork_parent_goes_on_per_further_gib", (more_goes_on - goes_on) * 1024 / MORE_MIB, "ms")
    snapshots(client, report)
    used, took = fleet(client, mem_available_kib)
    report.add("memory_per_fork_of_100", used, "KiB")
    report.add("forks_100", took * 1000, "ms")
