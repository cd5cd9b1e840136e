"""node.py - a real agent for the fault tests: namespace, users and directories are its own, and gone at the end.

The same as tests/integration/agent_lib.sh is for the shell."""
import glob
import http.client
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import invariant

GUEST = {"vcpus": 1, "memory_mib": 8, "boot": {"kernel": "guest", "cmdline": "power:wait"}}
CUT_OFF = (OSError, http.client.HTTPException)


def vm_spec(**more):
    return {**GUEST, **more}


def wait_for(seconds, done):
    """Whether done() became true in that time."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True


class Node:
    """`with Node("kills", "build") as node:` - started; also what invariant.py wants to know of an agent."""

    def __init__(self, name, build):
        self.build = os.path.realpath(build)
        for program in ("warrend", "guest.elf"):
            if not os.path.exists(f"{self.build}/{program}"):
                raise SystemExit(f"FAIL {self.build}/{program} is not built: run make")
        self.name = f"{name}-{os.getpid()}"
        self.netns = self.name
        self.prefix = f"{name[0]}{os.getpid() % 4096:03x}"
        self.uid_base = 1000000000 + os.getpid() % 100000 * 10000 + 9000
        self.uid_count = 1000
        self.agent = None
        self.agent_pid = 0
        self.starts = 0
        self.under = [] # what the agent is started by
        self.environment = dict(os.environ)

    def __enter__(self):
        self.work = tempfile.mkdtemp(prefix=f"warren-{self.name}-")
        os.chmod(self.work, 0o755)
        self.state_dir, self.run_dir = f"{self.work}/state", f"{self.work}/run"
        self.socket = f"{self.run_dir}/warren.sock"
        os.mkdir(f"{self.work}/import")
        shutil.copy(f"{self.build}/guest.elf", f"{self.work}/import/")
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        signal.signal(signal.SIGTERM, lambda *_: end_process())
        try:
            self.lay_out()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.agent:
            self.agent.kill()
            self.agent.wait()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # While one is dying its cgroup stays, which would be the next agent's with this prefix.
        wait_for(10, lambda: not self.processes() and self.remove_cgroups())
        subprocess.run(["ip", "netns", "del", self.netns], check=False)
        self.clear_up()
        shutil.rmtree(self.work, ignore_errors=True)

    def remove_cgroups(self):
        """Whether none is left."""
        left = 0
        for root in invariant.CGROUPS:
            for leaf in glob.glob(f"{root}/{self.prefix}-vms/*/") + glob.glob(f"{root}/{self.prefix}-vms/"):
                try:
                    os.rmdir(leaf)
                except OSError:
                    left += 1
        return left == 0

    def lay_out(self):
        """For others: what must be there before the agent starts."""

    def clear_up(self):
        """For others: the same, afterwards."""

    def processes(self):
        """All that run as users of this agent; not zombies, which whoever is process 1 here reaps late."""
        found = []
        for path in glob.glob("/proc/[0-9]*"):
            match = re.search(r"^State:\s+(\S).*^Uid:\s+(\d+)", invariant.text_of(f"{path}/status"), re.M | re.S)
            if match and match.group(1) != "Z" and self.uid_base <= int(match.group(2)) < self.uid_base + self.uid_count:
                found.append(int(path.split("/")[2]))
        return found

    def start(self, wait=20):
        """Starts an agent; whether it answers in time."""
        log = open(f"{self.work}/log", "ab")
        with log:
            self.agent = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.netns}", *self.under, f"{self.build}/warrend", "--state-dir", self.state_dir,
                 "--run-dir", self.run_dir, "--import-dir", f"{self.work}/import", "--prefix", self.prefix,
                 "--uid-base", str(self.uid_base), "--uid-count", str(self.uid_count)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)
        self.agent_pid = self.agent.pid
        self.starts += 1
        return wait_for(wait, self.answers)

    def answers(self):
        try:
            return invariant.ask(self.socket, "GET", "/healthz", timeout=5)[0] == 200
        except CUT_OFF:
            return False

    def stop(self, how=signal.SIGTERM):
        """Its exit status."""
        if self.agent.poll() is None:
            self.agent.send_signal(how)
        return self.agent.wait(60)

    def restart(self, how=signal.SIGKILL):
        self.stop(how)
        return self.start()

    def api(self, method, path, body=None, timeout=60):
        """(status, body); cut off: one of CUT_OFF."""
        return invariant.ask(self.socket, method, path, body, timeout)

    def must(self, method, path, body=None):
        status, answer = self.api(method, path, body)
        if status not in (200, 201, 202):
            raise AssertionError(f"{method} {path}: {status} {answer}")
        return answer

    def held(self, wait=10):
        return invariant.held(self, wait)

    def log_tail(self, lines=15):
        return "\n".join("     | " + line for line in invariant.text_of(f"{self.work}/log").splitlines()[-lines:])

    def delete_all(self):
        """Everything, in an order in which nothing holds another; asked again until it is gone."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            left = 0
            for kind in ("vms", "snapshots", "volumes", "networks", "images"):
                for item in invariant.listed(self.socket, kind):
                    left += 1
                    force = "force=true&" if kind == "vms" else ""
                    self.api("DELETE", f"/v1/{kind}/{item['id']}?{force}wait=10")
            if left == 0:
                return True
        return False


def set_up(node):
    """Images `guest` and `base`, network `net` and volume `vol`."""
    with open(f"{node.work}/import/disk.raw", "wb") as disk:
        disk.write(b"warren" * 100000)
        disk.truncate(1 << 20)
    node.must("PUT", "/v1/images/guest?wait=20", {"kind": "kernel", "source": f"{node.work}/import/guest.elf"})
    node.must("PUT", "/v1/images/base?wait=20", {"kind": "disk", "source": f"{node.work}/import/disk.raw"})
    node.must("PUT", "/v1/networks/net?wait=20", {"cidr": "10.89.0.0/24", "mode": "isolated"})
    node.must("PUT", "/v1/volumes/vol?wait=20", {"size_mib": 4})


def end_process():
    raise SystemExit(143)
