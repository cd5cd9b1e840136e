"""power_client.py - a client that knows what it was promised, and says what of it an agent after a power cut does not have.

All it makes has names of its own, so nobody else changes it. After each acknowledged change it notes its world, and has a
mark put into the disk's log: at a cut behind mark N world N must be there; of the change after it all, or nothing.
"""
import collections
import hashlib
import json
import os
import re
import struct

import invariant
from node import vm_spec, wait_for

WAIT = 60 # seconds; an emulated machine is slow
STEPS = ("put_image", "put_clone", "put_vm", "write", "put_snapshot", "fork", "write", "put_snapshot")
MIB, SECTOR, BLOCK = 1 << 20, 512, 4096
DELTA = struct.Struct("<8sIIQQQ40sQ")

# What an acknowledgement promises of a thing. states: of its status, after a host's start; content: of a volume, its bytes;
# files: {name: (size, digest)}, of an image or a snapshot
Thing = collections.namedtuple("Thing", "uid generation spec states content files", defaults=(None, None))
# What was acknowledged; world: the one that it made; the rest: of a POST, which has an Idempotency-Key.
Request = collections.namedtuple("Request", "world method path body key status text", defaults=(None,) * 4)


def file_sum(path):
    with open(path, "rb") as file:
        data = file.read()
    return len(data), hashlib.sha256(data).hexdigest()


def files_in(top):
    return {name: file_sum(f"{top}/{name}") for name in invariant.names_in(top)}


def directory_of(kind, node, instance):
    return f"{node.state_dir}/{kind}/{instance}"


def read_delta(path, base):
    """The disk's bytes, by its file and its base's bytes."""
    with open(path, "rb") as file:
        data = file.read()
    magic, _, block, size, _, bitmap_bytes, _, _ = DELTA.unpack_from(data)
    if magic != b"WRNDELTA" or block != BLOCK:
        raise ValueError(f"{path} is no delta")
    disk = bytearray(base[:size].ljust(size, b"\0"))
    start = BLOCK + bitmap_bytes
    for number in range(size // BLOCK):
        if data[BLOCK + number // 8] >> number % 8 & 1:
            at = start + number * BLOCK
            disk[number * BLOCK:(number + 1) * BLOCK] = data[at:at + BLOCK].ljust(BLOCK, b"\0")
    return bytes(disk)


def read_volume(node, rows, volume):
    """The bytes of a volume (the API's item) that no VM has open."""
    path = f"{node.state_dir}/volumes/{rows['volumes', volume['id']][0]}"
    if os.path.exists(f"{path}.raw"):
        with open(f"{path}.raw", "rb") as file:
            return file.read()
    base = volume["status"]["base"]
    if not base:
        raise ValueError("it has no file, and no base")
    kind, name = ("images", "content") if "image" in base else ("snapshots", "disk0.raw") # VMs have one disk
    with open(f"{directory_of(kind, node, rows[kind, base[kind[:-1]]][0])}/{name}", "rb") as file:
        return read_delta(f"{path}.delta", file.read())


def audit_lines(node):
    """(method, path) of each whole one."""
    with open(f"{node.state_dir}/audit.log", encoding="utf-8", errors="replace") as file:
        return re.findall(r'"method":"(\w+)","path":"([^"]*)".*}$', file.read(), re.M)


def node_item(node):
    """The node's own settings, as an item."""
    _, item = node.api("GET", "/v1/node")
    return {"id": "node", "uid": "node", "generation": item["generation"],
            "spec": {**item["spec"], "draining": item["drain"] is not None}, "status": {"state": "ready"}}


def post(node, path, body, key=None, content_type="application/json"):
    """(status, whether it is an answer given before, text)"""
    connection = invariant.Api(node.socket, WAIT + 30)
    headers = {"Content-Type": content_type} if body else {}
    connection.request("POST", path, body, {**headers, "Idempotency-Key": key} if key else headers)
    response = connection.getresponse()
    answer = response.status, response.getheader("Idempotency-Replayed") == "true", response.read().decode()
    connection.close()
    return answer


def first_difference(found, *allowed):
    """None if each sector is as in one of those allowed (and the size, too)."""
    if len(found) not in {len(content) for content in allowed}:
        return f"has {len(found)} bytes, not {' or '.join(str(len(content)) for content in allowed)}"
    if found in allowed:
        return None
    for at in range(0, len(found), SECTOR):
        here = [content[at:at + SECTOR].ljust(SECTOR, b"\0") for content in allowed]
        if found[at:at + SECTOR] not in here:
            return f"sector {at // SECTOR} begins with {found[at:at + 4].hex()}, not {' or '.join(one[:4].hex() for one in here)}"
    return None


class Client:
    """mark(text) is called after each acknowledgement; order: random.Random of its own."""

    def __init__(self, node, name, order, mark):
        self.node, self.name, self.order, self.mark = node, name, order, mark
        self.world, self.worlds, self.done, self.requests = {}, [{}], ["nothing"], []
        self.count, self.going_on = 0, set() # forks that were not started anew

    # --- what it does ---

    def acknowledged(self, text):
        self.worlds.append(dict(self.world))
        self.done.append(text)
        self.mark(f"{self.name}.{len(self.worlds) - 1}.{text.replace(' ', '.')}")

    def new_id(self, letter):
        self.count += 1
        return f"{self.name}{letter}{self.count}"

    def note(self, kind, name, states, content=None, files=None):
        item = node_item(self.node) if kind == "node" else self.item(kind, name)
        self.world[kind, name] = Thing(item["uid"], item["generation"], item["spec"], states, content, files)

    def item(self, kind, name):
        return self.node.api("GET", f"/v1/{kind}/{name}")[1]

    def instance(self, kind, name):
        rows, _ = invariant.read_rows(self.node.state_dir)
        return rows[kind, name][0]

    def ask(self, method, path, body=None):
        status, answer = self.node.api(method, path, body, timeout=WAIT + 30)
        if status not in (200, 201):
            raise AssertionError(f"{method} {path}: {status} {answer}")
        self.requests.append(Request(len(self.worlds), method, path))

    def post(self, path, body=None):
        """With an Idempotency-Key."""
        body, key = body and json.dumps(body), f"{self.name}-{len(self.worlds)}"
        status, _, text = post(self.node, path, body, key)
        if status != 200:
            raise AssertionError(f"POST {path}: {status} {text}")
        self.requests.append(Request(len(self.worlds), "POST", path, body, key, status, text))

    def put(self, kind, name, body, states=("ready",), content=None, files=None):
        self.ask("PUT", f"/v1/{kind}/{name}?wait={WAIT}", body)
        self.note(kind, name, states, content, files)
        self.acknowledged(f"PUT {kind}/{name}")

    def delete(self, kind, name):
        force = "&force=true" if kind == "vms" else ""
        self.ask("DELETE", f"/v1/{kind}/{name}?wait={WAIT}{force}")
        del self.world[kind, name]
        for volume in [volume for volume in self.names("volumes") if kind == "vms" and self.fork_of(volume) == name]:
            del self.world["volumes", volume] # it goes with its fork
        self.acknowledged(f"DELETE {kind}/{name}")

    def put_image(self):
        """A disk with holes."""
        name, blocks = self.new_id("i"), self.order.randrange(40, 256)
        path = f"{self.node.work}/import/{name}"
        with open(path, "wb") as file:
            file.truncate(blocks * BLOCK)
            for block in self.order.sample(range(blocks), blocks // 2):
                file.seek(block * BLOCK)
                file.write(self.order.randbytes(BLOCK))
        self.put("images", name, {"kind": "disk", "source": path}, files={"content": file_sum(path)})

    def put_kernel(self):
        path = f"{self.node.work}/import/guest.elf"
        self.put("images", "guest", {"kind": "kernel", "source": path})
        self.world["images", "guest"] = self.world["images", "guest"]._replace(
            files=files_in(directory_of("images", self.node, self.instance("images", "guest"))))

    def put_volume(self):
        size = self.order.randrange(1, 4)
        self.put("volumes", self.new_id("v"), {"size_mib": size}, content=bytes(size * MIB))

    def put_clone(self):
        image, size = self.order.choice(self.names("images")), self.order.randrange(1, 4)
        with open(f"{self.node.work}/import/{image}", "rb") as file:
            content = file.read().ljust(size * MIB, b"\0")
        body = {"image": image, "size_mib": size, "clone": self.order.choice(("copy", "delta", "delta", None))}
        self.put("volumes", self.new_id("c"), body, content=content)

    def grow(self):
        name = self.order.choice(self.names("volumes"))
        old = self.world["volumes", name]
        size = len(old.content) // MIB + 1
        self.ask("PATCH", f"/v1/volumes/{name}?wait={WAIT}", {"size_mib": size})
        self.note("volumes", name, old.states, old.content.ljust(size * MIB, b"\0"))
        self.acknowledged(f"PATCH volumes/{name}")

    def put_network(self):
        cidr = f"10.{100 + self.count % 100}.{ord(self.name[0])}.0/24"
        self.put("networks", self.new_id("n"), {"cidr": cidr, "mode": "isolated"})

    def put_vm(self):
        free = [name for name in self.names("volumes") if name not in self.used_volumes()]
        memory = ("anonymous", "shared")[(self.count + ord(self.name[0])) % 2] # differences need the one, forks the other
        spec = vm_spec(labels={"n": "0"}, stop_timeout_seconds=2, boot={"kernel": "guest", "cmdline": "power:watch obey"},
                       autostart=self.order.random() < 0.3, memory_backing=memory,
                       disks=[{"name": "root", "volume": self.order.choice(free)}] if free else [])
        if self.names("vms") and self.order.random() < 0.25:
            spec["desired_state"] = "stopped"
        self.put("vms", self.new_id("m"), spec, states=states_after_start(spec))

    def note_vm(self, name):
        self.note("vms", name, states_after_start(self.item("vms", name)["spec"]))

    def label_vm(self):
        name = self.order.choice(self.names("vms"))
        self.ask("PATCH", f"/v1/vms/{name}?wait={WAIT}", {"labels": {"n": str(len(self.worlds))}})
        self.note("vms", name, self.world["vms", name].states)
        self.acknowledged(f"PATCH vms/{name}")

    def turn_vm(self):
        """On or off."""
        name = self.order.choice(self.names("vms"))
        verb = "stop" if self.world["vms", name].spec["desired_state"] == "running" else "start"
        self.post(f"/v1/vms/{name}/{verb}?wait={WAIT}")
        self.going_on.discard(name)
        self.note_vm(name)
        self.acknowledged(f"POST vms/{name}/{verb}")

    def write(self):
        """By a guest, with a flush."""
        name = self.order.choice(self.running(with_disk=True))
        volume = self.world["vms", name].spec["disks"][0]["volume"]
        thing = self.world["volumes", volume]
        sectors, value = self.order.randrange(1, 24), self.order.randrange(1, 256)
        first = self.order.randrange(0, MIB // SECTOR - sectors) # as small as it ever was
        self.type_on(name, f"blk:write:{first}:{value}:{sectors} blk:flush", "blk 0 flush ok")
        content = bytearray(thing.content)
        content[first * SECTOR:(first + sectors) * SECTOR] = bytes([value]) * (sectors * SECTOR)
        self.world["volumes", volume] = thing._replace(content=bytes(content))
        self.acknowledged(f"flush {volume}")

    def type_on(self, vm, words, wanted):
        heard = lambda text: self.item("vms", f"{vm}/console?tail=65536").count(text)
        before = heard(wanted) if wait_for(WAIT, lambda: vm in self.going_on or heard("obey")) else 0
        status, _, _ = post(self.node, f"/v1/vms/{vm}/console/input", words + "\n", content_type="text/plain")
        if status != 204 or not wait_for(WAIT, lambda: heard(wanted) > before):
            raise AssertionError(f"{vm} was typed {words}: {status} {self.node.api('GET', f'/v1/vms/{vm}/console?tail=300')}")

    def put_snapshot(self):
        """Of what changed since another, where the VM's memory stands on one."""
        vm, name = self.order.choice(self.running()), self.new_id("s")
        base = self.item("vms", vm)["status"]["memory_base"]
        more = {"parent": base} if base else {"track_changes": self.world["vms", vm].spec["memory_backing"] != "shared"}
        self.post(f"/v1/vms/{vm}/snapshot?wait={WAIT}", {"id": name, **more})
        files = files_in(directory_of("snapshots", self.node, self.instance("snapshots", name)))
        if not {"state", "memory"} <= set(files):
            raise AssertionError(f"snapshot {name} has {sorted(files)}")
        self.note("snapshots", name, ("ready",), files=files)
        self.acknowledged(f"POST vms/{vm}/snapshot")

    def fork(self):
        """Another VM goes on as this one does, with a disk of its own."""
        vm, name = self.order.choice(self.running(shared=True)), self.new_id("f")
        self.post(f"/v1/vms/{vm}/fork?wait={WAIT}", {"ids": [name]})
        if (state := self.item("vms", name)["status"]["state"]) != "running":
            raise AssertionError(f"fork {name} is {state}")
        self.going_on.add(name)
        self.note_vm(name)
        for disk in self.world["vms", vm].spec["disks"]:
            self.note("volumes", f"{name}-{disk['name']}", ("ready",), self.world["volumes", disk["volume"]].content)
        self.acknowledged(f"POST vms/{vm}/fork")

    def delete_any(self):
        kinds = ("vms", "snapshots", "networks", "volumes", "images")
        choices = [(kind, name) for kind in kinds for name in self.names(kind) if self.may_go(kind, name)]
        self.delete(*self.order.choice(choices))

    # --- what it may do ---

    def names(self, kind):
        return sorted(name for of, name in self.world if of == kind and name != "guest")

    def running(self, with_disk=False, shared=False):
        specs = {name: self.world["vms", name].spec for name in self.names("vms")}
        return [name for name, spec in specs.items() if spec["desired_state"] == "running"
                and (spec["disks"] or not with_disk) and (spec["memory_backing"] == "shared" or not shared)]

    def fork_of(self, volume):
        return self.world["volumes", volume].spec.get("fork")

    def used_volumes(self):
        return {disk["volume"] for name in self.names("vms") for disk in self.world["vms", name].spec["disks"]}

    def may_go(self, kind, name):
        if kind == "volumes":
            return name not in self.used_volumes()
        if kind == "snapshots":
            return name not in {self.item("vms", vm)["status"]["memory_base"] for vm in self.names("vms")} | {
                self.world["snapshots", other].spec.get("parent") for other in self.names("snapshots")}
        held = {self.world["volumes", volume].spec.get("image") for volume in self.names("volumes")}
        copies = self.names("snapshots") or any(self.fork_of(volume) for volume in self.names("volumes")) # stand on it, too
        return kind != "images" or name not in held and not copies

    def choices(self):
        few = lambda kind, most: len(self.names(kind)) < most
        return ([self.put_image] * few("images", 4) + [self.put_volume] * few("volumes", 6) + [self.put_network] * few("networks", 2)
                + [self.put_clone] * 2 * (bool(self.names("images")) and few("volumes", 6))
                + [self.put_vm] * 2 * few("vms", 3) + [self.put_snapshot] * (bool(self.running()) and few("snapshots", 3))
                + [self.fork] * (bool(self.running(shared=True)) and few("vms", 4))
                + [self.grow] * bool(self.names("volumes")) + [self.label_vm, self.turn_vm] * bool(self.names("vms"))
                + [self.write] * 3 * bool(self.running(with_disk=True)) + [self.delete_any] * 3 * bool(self.names("images")))

    def run(self, changes):
        """So many; the first ones so that each kind is there."""
        for step in STEPS[len(self.worlds) - 1:changes]:
            if getattr(self, step) in self.choices():
                getattr(self, step)()
        while len(self.worlds) <= changes:
            self.order.choice(self.choices())()

    # --- what it was promised ---

    def missing(self, node, items, rows, number):
        """What an agent does not have of world `number`: lines."""
        old = self.worlds[number]
        new = self.worlds[min(number + 1, len(self.worlds) - 1)]
        wrong = []
        for key in sorted(set(old) | set(new)):
            allowed = [world.get(key) for world in (old, new)]
            try:
                said = judge(node, rows, key, items.get(key), allowed[:1] if allowed[0] == allowed[1] else allowed)
            except (OSError, ValueError) as error:
                said = f"cannot be read: {error}"
            if said:
                wrong.append(f"{key[0]}/{key[1]} {said} ({self.done[number]} was acknowledged)")
        mine = {key for key in items if key[1].startswith(self.name) and key[0] != "operations"}
        wrong += [f"{kind}/{name} is there again ({self.done[number]} was acknowledged)" for kind, name in sorted(mine - set(old) - set(new))]
        return wrong

    def unlogged(self, lines, number):
        """What was acknowledged up to world `number` and does not stand in the audit log."""
        asked = collections.Counter((one.method, one.path.split("?")[0]) for one in self.requests if one.world <= number)
        return [f"{count} of {method} {path}, which was acknowledged, are not in the audit log"
                for (method, path), count in (asked - collections.Counter(lines)).items()]

    def unanswered(self, node, number):
        """What was answered up to world `number` and is not answered so again to the same Idempotency-Key."""
        again = [(one, post(node, one.path, one.body, one.key)) for one in self.requests if one.key and one.world <= number]
        return [f"POST {one.path} is answered {said}, not what was acknowledged" for one, said in again if said != (one.status, True, one.text)]


class NodeClient(Client):
    """Changes the node itself.  Cordoned and drained it must be while no other client is at work."""

    def __init__(self, *of_client):
        super().__init__(*of_client)
        self.note("node", "node", ("ready",)) # it is there before anything is asked
        self.worlds = [dict(self.world)]

    def changed(self, what):
        self.note("node", "node", ("ready",))
        self.acknowledged(f"{what} node")

    def patch(self, spec):
        self.ask("PATCH", "/v1/node", spec)
        self.changed("PATCH")

    def set_memory(self):
        self.patch({"memory": {"reserve_mib": self.order.randrange(1, 256)}})

    def drain(self):
        self.post(f"/v1/node/drain?wait={WAIT}")
        for vm in self.names("vms"):
            self.note_vm(vm)
        self.changed("drain")

    def uncordon(self):
        self.post("/v1/node/uncordon")
        self.changed("uncordon")

    def choices(self):
        return [self.set_memory]


def states_after_start(spec):
    """Of a VM, once its host has started anew."""
    return ("running",) if spec.get("autostart") and spec.get("desired_state", "running") == "running" else ("stopped",)


def judge(node, rows, key, item, allowed):
    """None, or what is wrong of it; allowed: one Thing or None, or two while it was being changed."""
    there = [thing for thing in allowed if thing]
    if not item:
        return None if None in allowed else "is gone"
    state = item["status"]["state"]
    if None in allowed and state in ("failed", "creating"):
        return None # its making was cut off; what is left as creating is a volume whose fork failed
    same = [thing for thing in there if (thing.uid, thing.generation, thing.spec) == (item["uid"], item["generation"], item["spec"])]
    if not same:
        return f"is another: {item['uid']}, {item['generation']}, {item['spec']}"
    if len(allowed) == 1 and state not in same[0].states:
        return f"is {state}: {item['status'].get('reason')}"
    if same[0].content is not None:
        said = first_difference(read_volume(node, rows, item), *[thing.content for thing in there])
        return said and f"{said} ({'its size may change' if len({len(t.content) for t in there}) > 1 else 'size as promised'})"
    if same[0].files:
        found = files_in(directory_of(key[0], node, rows[key][0]))
        return None if found == same[0].files else f"has {found}, not {same[0].files}"
    return None


def restore(node, snapshot, thing):
    """Makes a VM of a snapshot, with its disks, and takes it away again; lines of what is wrong."""
    _, item = node.api("GET", f"/v1/snapshots/{snapshot}")
    asked = [("PUT", f"volumes/again{i}", {"snapshot": snapshot, "disk": disk["name"]}) for i, disk in enumerate(item["status"]["disks"])]
    disks = [{"name": disk["name"], "volume": f"again{i}"} for i, disk in enumerate(item["status"]["disks"])]
    asked.append(("PUT", "vms/again", vm_spec(boot={"snapshot": snapshot}, disks=disks)))
    asked += [("DELETE", path, None) for _, path, _ in reversed(asked)]
    for method, path, body in asked:
        force = "&force=true" if method == "DELETE" and path == "vms/again" else ""
        status, answer = node.api(method, f"/v1/{path}?wait={WAIT}{force}", body, timeout=WAIT + 30)
        if status not in (200, 201) or body and answer["status"]["state"] not in ("ready", "running"):
            return [f"snapshot {snapshot} of {thing.spec} cannot be restored: {method} {path}: {status} {answer}"]
    return []


def check_all(node, clients, numbers, key, wait):
    """What does not hold of an agent that was started on what a cut left; numbers: {client's name: world}; key: the
    sum of node.key, of which snapshots' digests are made."""
    wrong = node.held(wait)
    items = {(kind, item["id"]): item for kind in invariant.KINDS for item in invariant.listed(node.socket, kind)}
    items["node", "node"] = node_item(node)
    rows, _ = invariant.read_rows(node.state_dir)
    lines = audit_lines(node)
    for client in clients:
        wrong += client.missing(node, items, rows, numbers[client.name]) + client.unlogged(lines, numbers[client.name])
    for client in clients: # what is not given again may be done again
        wrong += client.unanswered(node, numbers[client.name])
    if any(numbers.values()) and file_sum(f"{node.state_dir}/node.key") != key:
        wrong.append("node.key is another, though changes were acknowledged")
    sure = [(name, thing) for client in clients for (kind, name), thing in client.worlds[numbers[client.name]].items()
            if kind == "snapshots" and items.get((kind, name))]
    if not wrong and sure: # of those that hold a difference the first, if there are any
        node.must("POST", "/v1/node/uncordon")
        wrong = restore(node, *min(sure, key=lambda one: ("parent" not in one[1].spec, one[0])))
    return wrong
