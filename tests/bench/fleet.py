"""The agent with 10, 100 and 1,000 live VMs: what it costs, how fast it answers while 20 VMs with taps
a second come and go, how many it creates a second, and whether anything grows faster than linearly.
`tests/bench/run --only fleet` runs nothing else."""
import json
import os
import subprocess
import threading
import time

from figures import percentile, rss_kib, vm_spec

SIZES = (10, 100, 1000)
CHURN_A_SECOND = 20
CHURN_SECONDS = 10
IDLE_SECONDS = 10
SLOW_SYNC_MS = 10
SLOW_CREATIONS = 100
# name: unit, goal at every size (None: none).  All are "at most".
FIGURES = {
    "agent_rss": ("MiB", None),
    "idle_cpu": ("%", 1),
    "p99_get": ("ms", 10),
    "p99_list_page": ("ms", 10),
    "p99_metrics": ("ms", 50),
    "metrics_size": ("KiB", None),
}


def cpu_seconds(pid):
    """Of a process, its children that live and those that are gone."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    own = sum(int(x) for x in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    return own + sum(cpu_seconds(child) for child in children if name_of(child) == "warren-api")


def name_of(pid):
    return open(f"/proc/{pid}/comm").read().strip()


def p99_ms(times):
    return percentile(times, 0.99) * 1000


def create(client, first, last):
    """VMs a second, from the first request until all run."""
    begun = time.monotonic()
    for i in range(first, last):
        client.request("create", "PUT", f"/v1/vms/f{i}", vm_spec())
    for i in range(first, last):
        client.request("wait", "GET", f"/v1/vms/f{i}/wait?for=running&timeout=120")
    return (last - first) / (time.monotonic() - begun)


def delete(client, count):
    for i in range(count):
        client.request("delete", "DELETE", f"/v1/vms/f{i}?force=true")
    for i in range(count):
        client.request("gone", "GET", f"/v1/vms/f{i}/wait?for=deleted&timeout=120")


class Churn(threading.Thread):
    """VMs with a tap, each of which lives for a second."""

    def __init__(self, client):
        super().__init__()
        self.client, self.over, self.came, self.failure = client, False, 0, None

    def run(self):
        try:
            begun = time.monotonic()
            while not self.over:
                time.sleep(max(0, begun + self.came / CHURN_A_SECOND - time.monotonic()))
                self.put()
            for i in range(max(0, self.came - CHURN_A_SECOND), self.came):
                self.client.request("churn", "DELETE", f"/v1/vms/c{i}?force=true&wait=60")
        except BaseException as failure:  # pylint: disable=broad-except  # join() tells it
            self.failure = failure

    def put(self):
        self.client.request("churn", "PUT", f"/v1/vms/c{self.came}", vm_spec(tap=True))
        if self.came >= CHURN_A_SECOND:
            self.client.request("churn", "DELETE", f"/v1/vms/c{self.came - CHURN_A_SECOND}?force=true")
        self.came += 1

    def end(self):
        self.over = True
        self.join()
        if self.failure:
            raise self.failure
        return self.came


def answers(connect, size):
    """p99 of each kind of reading, in milliseconds, and how many VMs came a second meanwhile."""
    client, churn = connect(), Churn(connect())
    begun = time.monotonic()
    churn.start()
    length = i = 0
    while time.monotonic() < begun + CHURN_SECONDS:
        for _ in range(10):
            client.request("get", "GET", f"/v1/vms/f{i * 7 % size}")
            i += 1
        client.request("list", "GET", "/v1/vms?limit=100")
        length = len(client.request("metrics", "GET", "/metrics"))
        time.sleep(0.02)
    took = time.monotonic() - begun
    rate = churn.end() / took
    return {"p99_get": p99_ms(client.times["get"]), "p99_list_page": p99_ms(client.times["list"]),
            "p99_metrics": p99_ms(client.times["metrics"]), "metrics_size": length / 1024}, rate


def idle_percent(agent):
    before = cpu_seconds(agent.process.pid)
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(agent.process.pid) - before) / IDLE_SECONDS * 100


def bench_sizes(agent, connect, report):
    """By size: each figure."""
    rows, there = {}, 0
    for size in SIZES:
        rate = create(connect(), there, size)
        there = size
        report.add(f"fleet_{size}_creations", rate, "1/s")
        row = {"agent_rss": rss_kib(agent.process.pid) / 1024, "idle_cpu": idle_percent(agent)}
        more, came = answers(connect, size)
        rows[size] = row | more
        report.add(f"fleet_{size}_churn", came, "1/s", CHURN_A_SECOND * 0.95, most=False)
        for name, (unit, goal) in FIGURES.items():
            report.add(f"fleet_{size}_{name}", rows[size][name], unit, goal)
    return rows


def bench_growth(rows, report):
    """From 100 to 1,000 VMs by a factor of 10 at most; what is there with none makes it less."""
    for name in FIGURES:
        if rows[100][name] > 0:
            report.add(f"fleet_growth_{name}", rows[1000][name] / rows[100][name], "ratio", 10)


def bench_slow_sync(agent, connect, report):
    library = os.path.join(agent.build, "tests", "slow_sync.so")
    subprocess.run(["make", "-s", f"BUILD={agent.build}", library], check=True)
    for name, ms in (("", 0), (f"_{SLOW_SYNC_MS}ms_syncs", SLOW_SYNC_MS)):
        agent.restart({"LD_PRELOAD": library, "SLOW_SYNC_MS": str(ms)})
        report.add(f"creations{name}", create(connect(), 0, SLOW_CREATIONS), "1/s")
        delete(connect(), SLOW_CREATIONS)
    agent.restart({})


def bench(agent, connect, report):
    """agent: as in run.  connect: makes a client."""
    rows = bench_sizes(agent, connect, report)
    bench_growth(rows, report)
    listed = json.loads(connect().request("list", "GET", "/v1/vms?limit=1000&state=running"))["items"]
    report.add("fleet_still_running", len(listed), "VMs", SIZES[-1], most=False)
    delete(connect(), SIZES[-1])
    bench_slow_sync(agent, connect, report)
