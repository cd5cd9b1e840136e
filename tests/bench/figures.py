"""What the parts of the benchmark share: the VM that they start, and how figures are taken."""

MEMORY_MIB = 16


def vm_spec(cmdline="idle", tap=False):
    spec = {"memory_mib": MEMORY_MIB, "boot": {"kernel": "guest", "cmdline": cmdline}}
    if tap:
        spec["nics"] = [{"name": "eth0", "network": "default"}]
    return spec


def rss_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
