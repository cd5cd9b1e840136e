#!/usr/bin/env python3
"""filter_uses.py - which of the VMM's system call rules were used, of traces of VMMs.

  filter_uses.py RULES EXCEPTIONS TRACE...

RULES is what build/tests/filter_rules prints, EXCEPTIONS has lines `KIND CALL [CONDITION...] # reason`
for rules that need not be seen, a TRACE is of `strace -f -e raw=all`.  Prints a line for each rule with
how often it was used, `excepted` with the reason, or UNUSED, and STRANGE calls, which no rule allows; ends
with 1 if there is one of either, or an exception for a rule that there is not.

A VMM's threads count from when they have loaded their filter.  The one that made the VM is the devices'.
"""
import re
import sys

KVM_CREATE_VM, KVM_RUN = 0xAE01, 0xAE80
LINE = re.compile(r"(?:\[pid +)?(\d+)\]? +(\w+)\((.*?)(?:\)\s*= .*|\s*<unfinished.*|\)?)$")


def numbers(text):
    values = []
    for word in text.split(","):
        try:
            values.append(int(word.strip(), 0))
        except ValueError:
            values.append(None)  # strace does not print all of some as numbers
    return values


class Rule:
    def __init__(self, line):
        self.line = " ".join(line.split())
        self.kind, self.call, *conditions = line.split()
        self.conditions = [tuple(int(n, 0) for n in re.split("[&=]", c)) for c in conditions]
        self.uses = 0

    def fits(self, arguments):
        return all(
            a < len(arguments) and arguments[a] is not None and arguments[a] & mask == value
            for a, mask, value in self.conditions
        )


def vmm_calls(path):
    """(kind, call, arguments) of each call that a filtered thread of a VMM made."""
    made_vm, filtered, is_vcpu = set(), {}, set()
    with open(path, errors="replace") as trace:
        for line in trace:
            match = LINE.match(line.rstrip())
            if not match:
                continue
            thread, call, text = match.groups()
            arguments = numbers(text)
            request = arguments[1] if call == "ioctl" and len(arguments) > 1 else None
            if call in ("execve", "execveat"):  # another program: the number may be an older one's
                yield from flush(filtered, thread, made_vm, is_vcpu)
                made_vm.discard(thread)
            elif request == KVM_CREATE_VM:
                made_vm.add(thread)
            if thread in filtered:
                filtered[thread].append((call, arguments))
                if request == KVM_RUN:
                    is_vcpu.add(thread)
            elif call == "seccomp" and arguments[0] == 1:
                filtered[thread] = []
            if call == "exit_group":
                yield from flush(filtered, thread, made_vm, is_vcpu)
    for thread in list(filtered):
        yield from flush(filtered, thread, made_vm, is_vcpu)


def flush(filtered, thread, made_vm, is_vcpu):
    calls = filtered.pop(thread, [])
    kind = "devices" if thread in made_vm else "vcpu" if thread in is_vcpu else None
    is_vcpu.discard(thread)
    for call, arguments in calls if kind else []:
        yield kind, call, arguments


def main():
    rules_path, exceptions_path, *traces = sys.argv[1:]
    rules, reasons, bad, strange = [], {}, 0, {}
    with open(rules_path) as lines:
        rules = [Rule(line) for line in lines if line.strip()]
    with open(exceptions_path) as lines:
        for line in lines:
            rule, _, reason = line.partition("#")
            if rule.strip():
                reasons[" ".join(rule.split())] = reason.strip()
    for path in traces:
        for kind, call, arguments in vmm_calls(path):
            fitting = [r for r in rules if r.kind in (kind, "refused") and r.call == call and r.fits(arguments)]
            for rule in fitting:
                rule.uses += 1
            if not fitting:
                key = f"{kind} {call} {arguments[:4]}"
                strange[key] = strange.get(key, 0) + 1
    for rule in rules:
        if rule.uses > 0:
            print(f"{rule.uses:8} {rule.line}")
        elif rule.line in reasons:
            print(f"excepted {rule.line}: {reasons[rule.line]}")
        else:
            print(f"  UNUSED {rule.line}")
            bad += 1
    for line in reasons.keys() - {rule.line for rule in rules}:
        print(f"  UNKNOWN exception {line}")
        bad += 1
    for key, count in sorted(strange.items()):
        print(f"  STRANGE {count} {key}")
        bad += 1
    return 1 if bad else 0


sys.exit(main())
