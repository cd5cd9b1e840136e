#!/usr/bin/python3
"""Is there an order of what clients asked of one VM that explains every answer?

An order must keep to time: what was answered before another was asked comes before it.  The search is Wing and
Gong's, with the places it has been at remembered (Lowe).  Run as a program this tests itself.

The model of a VM: None, or (label, desired state, uid, deleting).  Deleting becomes None at any time, by itself.  An
operation that was cut off may have come about until its end, or not at all."""
import sys
from collections import namedtuple

# asked, answered: times; status: HTTP, 0 = cut off; value: what was written; seen: what GET or a 201 showed
Operation = namedtuple("Operation", "asked answered verb value status seen")
Vm = namedtuple("Vm", "label desired uid deleting")
DESIRED = {"start": "running", "stop": "stopped", "kill": "stopped"}


def refused(operation, vm):
    """May it be refused with its status, when that is there?"""
    if operation.status == 404:
        return vm is None
    if operation.status != 409 or vm is None:
        return operation.status in (503, 507)
    if operation.verb == "put":
        return vm.deleting or vm.label != operation.value
    # Whether a verb fits depends on what the machine does just then.
    return vm.deleting or operation.verb in DESIRED


def done(operation, vm):
    """The VM afterwards, in a list; [] if it cannot have been done then."""
    verb, value = operation.verb, operation.value
    if verb == "put":
        created = operation.status != 200 and vm is None
        if created:
            return [Vm(value, "running", operation.seen and operation.seen.uid, False)]
        return [vm] if operation.status != 201 and vm and not vm.deleting and vm.label == value else []
    if vm is None:
        return []
    if verb == "delete":
        return [vm._replace(deleting=True)]
    if verb == "get":
        seen = operation.seen
        known = vm._replace(uid=vm.uid or seen.uid)
        return [known] if known == seen else []
    if vm.deleting:
        # A VM that is being deleted can be killed; its desire is of no more interest.
        return [vm] if verb == "kill" else []
    return [vm._replace(label=value)] if verb == "patch" else [vm._replace(desired=DESIRED[verb])]


def steps(operation, vm):
    """All states that the operation may lead to, its answer being what it was."""
    found = []
    for now in [vm, None] if vm and vm.deleting else [vm]:
        if operation.status == 0:
            found += [now, *done(operation, now)]
        elif 200 <= operation.status < 300:
            found += done(operation, now)
        elif refused(operation, now):
            found.append(now)
    return found


def explain(history):
    """(None, ...) if there is an order; else the most operations that were ordered, and those that came next."""
    history = sorted(history, key=lambda operation: operation.asked)
    everything = (1 << len(history)) - 1
    stack, been, furthest = [(0, None)], set(), (0, [])
    while stack:
        mask, vm = stack.pop()
        if mask == everything:
            return None, []
        if (mask, vm) in been:
            continue
        been.add((mask, vm))
        open_ones, until = [], float("inf")
        index = (~mask & (mask + 1)).bit_length() - 1 # the first that is not ordered
        while index < len(history) and history[index].asked <= until:
            if not mask >> index & 1:
                open_ones.append(index)
                until = min(until, history[index].answered)
            index += 1
        open_ones = [i for i in open_ones if history[i].asked <= until]
        if mask.bit_count() >= furthest[0]:
            furthest = (mask.bit_count(), [vm, *[history[i] for i in open_ones]])
        for i in open_ones:
            stack += [(mask | 1 << i, after) for after in steps(history[i], vm)]
    return furthest


def main():
    """Right histories are explained, wrong ones are not."""
    a, b = Vm("a", "running", "1", False), Vm("b", "running", "1", False)
    put = Operation(0, 1, "put", "a", 201, a)
    cases = {
        "one after the other": (True, [put, Operation(2, 3, "get", 0, 200, a)]),
        "two at once, one of them loses": (True, [Operation(0, 3, "put", "a", 201, a), Operation(1, 2, "put", "b", 409, None)]),
        "a read during a write sees old or new": (True, [put, Operation(2, 9, "patch", "b", 200, None), Operation(3, 4, "get", 0, 200, a),
                                                        Operation(5, 6, "get", 0, 200, b)]),
        "new, and then old again": (False, [put, Operation(2, 9, "patch", "b", 200, None), Operation(3, 4, "get", 0, 200, b),
                                            Operation(5, 6, "get", 0, 200, a)]),
        "acknowledged and lost": (False, [put, Operation(2, 3, "get", 0, 404, None)]),
        "a stale read": (False, [put, Operation(2, 3, "patch", "b", 200, None), Operation(4, 5, "get", 0, 200, a)]),
        "created twice": (False, [put, Operation(0, 1, "put", "a", 201, a._replace(uid="2"))]),
        "another VM without a deletion": (False, [put, Operation(2, 3, "get", 0, 200, a._replace(uid="2"))]),
        "cut off, and done": (True, [Operation(0, 9, "put", "a", 0, None), Operation(2, 3, "get", 0, 200, a)]),
        "cut off, and not done": (True, [Operation(0, 9, "put", "a", 0, None), Operation(2, 3, "get", 0, 404, None)]),
        "cut off, done, and undone": (False, [Operation(0, 9, "put", "a", 0, None), Operation(2, 3, "get", 0, 200, a),
                                              Operation(4, 5, "get", 0, 404, None)]),
        "cut off, and done after its end": (False, [put, Operation(2, 3, "patch", "b", 0, None), Operation(4, 5, "get", 0, 200, a),
                                                    Operation(6, 7, "get", 0, 200, b)]),
        "deleted, gone, made again": (True, [put, Operation(2, 3, "delete", 0, 202, None), Operation(4, 5, "get", 0, 200, a._replace(deleting=True)),
                                             Operation(6, 7, "put", "b", 201, b._replace(uid="2"))]),
        "deleted, and there again": (False, [put, Operation(2, 3, "delete", 0, 202, None), Operation(4, 5, "get", 0, 200, a)]),
        "a stop that is forgotten": (False, [put, Operation(2, 3, "stop", 0, 202, None), Operation(4, 5, "get", 0, 200, a)]),
        "a start of what is deleted": (False, [put, Operation(2, 3, "delete", 0, 202, None), Operation(4, 5, "start", 0, 202, None)]),
        "refused for another, but it is the same": (False, [put, Operation(2, 3, "put", "a", 409, None)]),
    }
    failed = 0
    for name, (right, history) in cases.items():
        good = (explain(history)[0] is None) == right
        failed += not good
        print(f"ok   {name}" if good else f"FAIL {name}: {'refused' if right else 'accepted'}")
    print(f"{len(cases) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
