#!/usr/bin/python3
"""Invariant I of one agent: each thing is wholly there or wholly absent.

  tests/fault/invariant.py --state-dir DIR --run-dir DIR --prefix P --uid-base N --uid-count N
                           --netns NAME [--wait SECONDS]

Compares what the agent says (its API) and what it wrote down (a copy of its database) with what there
is: processes, cgroups, taps and bridges, nftables, DHCP hosts, run directories, files, mounts.
A line for each thing that is too much or missing; exit status 1 then.  --wait: tries again for so long, because
what an agent has just been asked for is under way for a moment.
"""
import argparse
import glob
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

KINDS = ("images", "volumes", "networks", "snapshots", "vms", "operations")
LIVE = ("running", "paused")
SETTLED = LIVE + ("stopped", "failed", "ready", "succeeded", "cancelled")
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


class Api(http.client.HTTPConnection):
    """One request to an agent's socket; refused or cut off it is an OSError or HTTPException."""

    def __init__(self, path, timeout=30):
        super().__init__("warren", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, method, url, body=None, timeout=30):
    """(status, parsed body or text)."""
    connection = Api(path, timeout)
    headers = {"Accept": "application/json"} # of events a page, and no stream
    if body is not None:
        headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        body = json.dumps(body)
    try:
        connection.request(method, url, body, headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


def listed(path, kind):
    """All of one kind, whatever a page holds."""
    items, token = [], None
    while True:
        url = f"/v1/{kind}?limit=1000" + (f"&cursor={token}" if token else "")
        status, page = ask(path, "GET", url)
        if status != 200:
            raise OSError(f"GET {url}: {status}")
        items += page["items"]
        token = page["next"]
        if not token:
            return items


def read_rows(state_dir):
    """{(kind, id): (instance, uid)} of a copy, as the agent has the database for itself."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("warren.db-wal", "warren.db"):
            if os.path.exists(f"{state_dir}/{name}"):
                shutil.copy(f"{state_dir}/{name}", copy)
        database = sqlite3.connect(f"{copy}/warren.db")
        try:
            rows = database.execute("SELECT kind, id, instance, uid FROM resource WHERE kind <> 'node'").fetchall()
            highest = database.execute("SELECT value FROM counter WHERE name = 'instance'").fetchone()[0]
        finally:
            database.close()
    return {(kind + "s", name): (instance, uid) for kind, name, instance, uid in rows}, highest


def run_json(command):
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")


def text_of(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def link_of(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def names_in(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


class Invariant:
    """What is wrong collects in self.wrong."""

    def __init__(self, where):
        self.where = where
        self.wrong = []
        self.socket = f"{where.run_dir}/warren.sock"

    def say(self, line):
        self.wrong.append(line)

    def same(self, what, wanted, found):
        """wanted, found: dicts or sets of names; dicts say whose they are."""
        for name in sorted(set(wanted) - set(found), key=str):
            whose = f" of {wanted[name]}" if isinstance(wanted, dict) else ""
            self.say(f"{what} {name}{whose} is missing")
        for name in sorted(set(found) - set(wanted), key=str):
            whose = f" ({found[name]})" if isinstance(found, dict) else ""
            self.say(f"{what} {name} is nobody's{whose}")

    def check(self):
        self.wrong = []
        self.items = {kind: listed(self.socket, kind) for kind in KINDS}
        self.rows, highest = read_rows(self.where.state_dir)
        shown = {(kind, item["id"]): item["uid"] for kind in KINDS for item in self.items[kind]}
        self.same("row", shown, {key: uid for key, (_, uid) in self.rows.items()})
        for key in set(shown) & set(self.rows):
            if shown[key] != self.rows[key][1]:
                self.say(f"{key}: the row has another uid")
            if self.rows[key][0] > highest:
                self.say(f"{key}: instance {self.rows[key][0]} may be given again")
        waits = self.forks_that_wait()
        for kind in KINDS:
            for item in self.items[kind]:
                state = item["status"]["state"]
                if state not in SETTLED and not (kind == "vms" and state == "creating") and item["spec"].get("fork") not in waits:
                    self.say(f"{kind} {item['id']} is still {state}: {item['status'].get('reason')}")
        if self.wrong:
            return self.wrong
        self.vms = {self.rows["vms", vm["id"]][0]: vm for vm in self.items["vms"]}
        self.live = {i: vm for i, vm in self.vms.items() if vm["status"]["state"] in LIVE}
        self.check_processes()
        self.check_cgroups()
        self.check_run_dirs()
        self.check_network()
        self.check_files()
        self.check_mounts()
        return self.wrong

    def instances(self, kind, states=("ready",)):
        return {self.rows[kind, item["id"]][0]: item["id"] for item in self.items[kind]
                if item["status"]["state"] in states}

    def forks_that_wait(self):
        """Whose volumes are made when they are started, their parents being no more."""
        return {vm["id"] for vm in self.items["vms"] if vm["status"]["restore"] == "due" and vm["status"]["state"] in ("stopped", "failed")}

    def check_processes(self):
        base, count = self.where.uid_base, self.where.uid_count
        wanted = {vm["status"]["pid"]: f"VM {vm['id']}" for vm in self.live.values()}
        vmms, others, agents = {}, [], set()
        for path in glob.glob("/proc/[0-9]*/stat"):
            pid = int(path.split("/")[2])
            stat = text_of(path)
            if not stat:
                continue
            name, state, parent = re.match(r"\d+ \((.*)\) (\S) (\d+)", stat, re.S).groups()
            # Not the owner of /proc/PID: what is not dumpable is root's there.
            match = re.search(r"^Uid:\s+(\d+)", text_of(f"/proc/{pid}/status"), re.M)
            uid = int(match.group(1)) if match else -1
            if state == "Z":
                if self.where.agent_pid and int(parent) == self.where.agent_pid:
                    self.say(f"process {pid} ({name}) is a zombie")
            elif base <= uid < base + count:
                if name == "warren-vmm":
                    vmms[pid] = uid - base - 16
                else:
                    others.append(name)
        self.same("process", wanted, {pid: f"VMM with the user of instance {i}" for pid, i in vmms.items()})
        for instance, vm in self.live.items():
            if vmms.get(vm["status"]["pid"], instance % (count - 16)) != instance % (count - 16):
                self.say(f"VM {vm['id']}: its process has the user of another")
        networks = len(self.instances("networks"))
        for name, number in (("warren-api", 1), ("dnsmasq", networks), ("warren-fetch", 0)):
            if others.count(name) != number:
                self.say(f"{others.count(name)} processes {name}, not {number}")
        for name in set(others) - {"warren-api", "dnsmasq", "warren-fetch"}:
            self.say(f"process {name} of the agent's users")

    def check_cgroups(self):
        for root in CGROUPS:
            top = f"{root}/{self.where.prefix}-vms"
            if os.path.isdir(top):
                found = {name for name in names_in(top) if os.path.isdir(f"{top}/{name}")}
                self.same("cgroup", {str(i): f"VM {vm['id']}" for i, vm in self.live.items()}, found)

    def check_run_dirs(self):
        top = f"{self.where.run_dir}/vms"
        for name in names_in(top):
            if not name.isdigit() or int(name) not in self.vms:
                self.say(f"run directory vms/{name} is nobody's")
                continue
            files = set(names_in(f"{top}/{name}"))
            lives = int(name) in self.live
            wanted = {"page", "log"} | ({"process", "control.sock"} if lives else set())
            if lives or files & {"process", "control.sock"}:
                self.same(f"vms/{name}:", wanted, files)
            elif files - wanted:
                self.say(f"vms/{name}: {files - wanted} is left of it")
        for instance, vm in self.live.items():
            if not os.path.isdir(f"{top}/{instance}"):
                self.say(f"run directory vms/{instance} of VM {vm['id']} is missing")

    def check_network(self):
        prefix, enter = self.where.prefix, ["nsenter", f"--net=/run/netns/{self.where.netns}"]
        nics = {}
        for instance, vm in self.live.items():
            states = {nic["name"]: nic for nic in vm["status"]["nics"]}
            for nic in states.values():
                place = nic["pci_slot"] - 16 if nic.get("pci_slot") is not None else 0
                nics[f"{prefix}-{instance:x}-{place}"] = (vm["id"], nic)
        networks = self.instances("networks")
        links = {link["ifname"] for link in run_json([*enter, "ip", "-j", "link"])
                 if link["ifname"].startswith(prefix + "-")}
        wanted = {name: f"VM {vm}" for name, (vm, _) in nics.items()}
        wanted.update({f"{prefix}-b{i:x}": f"network {name}" for i, name in networks.items()})
        self.same("interface", wanted, links)
        self.check_rules(run_json([*enter, "nft", "-j", "list", "ruleset"])["nftables"], nics, networks)
        top = f"{self.where.run_dir}/net"
        served = {name for name in names_in(top) if os.path.isdir(f"{top}/{name}")}
        self.same("DHCP directory", {f"{i:x}": f"network {name}" for i, name in networks.items()}, served)
        for part in ("hosts", "names"):
            found = {os.path.basename(path) for path in glob.glob(f"{top}/*/{part}/*")} - {"reload"}
            self.same(f"DHCP {part}", {name: f"VM {vm}" for name, (vm, _) in nics.items()}, found)

    def check_rules(self, ruleset, nics, networks):
        sets = {}
        for entry in ruleset:
            part = entry.get("set")
            if part and part["table"] == f"warren_{self.where.prefix}":
                members = [e["concat"] if isinstance(e, dict) and "concat" in e else [e] for e in part.get("elem", [])]
                sets[part["family"], part["name"]] = {tuple(str(word) for word in m) for m in members}
        sources = {(name, nic["mac"], nic["ipv4"]): f"VM {vm}" for name, (vm, nic) in nics.items()}
        self.same("nft element of sources", sources, sets.get(("bridge", "sources"), set()))
        clients = {element[0] for element in sets.get(("bridge", "clients"), set())}
        self.same("nft element of clients", {name: f"VM {vm}" for name, (vm, _) in nics.items()}, clients)
        bridges = {(f"{self.where.prefix}-b{i:x}",) * 2: f"network {name}" for i, name in networks.items()}
        self.same("nft element of bridges", bridges, sets.get(("inet", "bridges"), set()))

    def check_files(self):
        state = self.where.state_dir
        volumes = self.instances("volumes")
        found = {}
        for name in names_in(f"{state}/volumes"):
            match = re.fullmatch(r"(\d+)\.(raw|delta)", name)
            found[int(match.group(1)) if match else name] = name
        self.same("volume's file", volumes, found)
        images = self.instances("images")
        self.same("image's directory", {str(i): name for i, name in images.items()}, names_in(f"{state}/images"))
        for instance in images:
            self.same(f"images/{instance}:", {"content"}, names_in(f"{state}/images/{instance}"))
        snapshots = self.instances("snapshots")
        self.same("snapshot's directory", {str(i): name for i, name in snapshots.items()}, names_in(f"{state}/snapshots"))
        for instance in snapshots:
            files = set(names_in(f"{state}/snapshots/{instance}"))
            if files and not {"state", "memory"} <= files:
                self.say(f"snapshots/{instance} has only {sorted(files)}")
        for vm in self.live.values():
            for fd in glob.glob(f"/proc/{vm['status']['pid']}/fd/*"):
                target = link_of(fd)
                if target.startswith(f"{state}/volumes/") and target.endswith(" (deleted)"):
                    self.say(f"VM {vm['id']} has {target} open")

    def check_mounts(self):
        for line in text_of("/proc/self/mountinfo").splitlines():
            point = line.split()[4]
            for top in (self.where.state_dir, self.where.run_dir):
                if point.startswith(top + "/"):
                    self.say(f"mount {point}")


def held(where, wait=0):
    """[] when the invariant holds, at the latest after `wait` seconds; else what is wrong at the end."""
    until = time.monotonic() + wait
    while True:
        try:
            wrong = Invariant(where).check()
        except (OSError, http.client.HTTPException, sqlite3.Error, KeyError) as error:
            wrong = [f"cannot be checked: {error!r}"]
        if not wrong or time.monotonic() >= until:
            return wrong
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    for name in ("state-dir", "run-dir", "prefix", "netns"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("uid-base", "uid-count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--agent-pid", type=int, default=0)
    parser.add_argument("--wait", type=float, default=0)
    where = parser.parse_args()
    wrong = held(where, where.wait)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
