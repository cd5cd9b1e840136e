"""power_log.py - the log of dm-log-writes: what a disk was told, in order, and what may be on it after a power cut.

The format is that of the kernel's Documentation/admin-guide/device-mapper/log-writes.rst: a superblock in the first
sector, then for each write its entry in one sector and its data behind it; a mark's text stands in its entry's sector.
A write without FUA is logged when the next flush is done, one with FUA when it is done itself, a mark at once. So what
stands before a mark was on the disk by then, and what stands between two flushes may be there or not, each by itself.
"""
import collections
import os
import random
import struct

MAGIC, VERSION = 0x6A736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
PIECE = 4096 # a disk writes as much wholly or not at all; file systems and SQLite count on that

# offset and size on the disk, in bytes; at: where the data stand in the log; text: of a mark, else None
Entry = collections.namedtuple("Entry", "offset size flags at text")


class BadLog(Exception):
    """The log is not one, or ends too early."""


def read_log(file):
    """All entries of a log that is open for reading."""
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(SUPER.size)
    if len(head) < SUPER.size:
        raise BadLog("no superblock")
    magic, version, count, sector = SUPER.unpack(head)
    if magic != MAGIC or version != VERSION or sector not in (512, 1024, 2048, 4096):
        raise BadLog(f"a superblock of magic {magic:#x}, version {version}, {sector} bytes a sector")
    entries, at = [], sector
    for number in range(count):
        file.seek(at)
        block = file.read(sector)
        if len(block) < sector:
            raise BadLog(f"entry {number} of {count} is behind the end")
        start, sectors, flags, data_bytes = ENTRY.unpack_from(block)
        at += sector
        if flags & MARK:
            if data_bytes > sector - ENTRY.size:
                raise BadLog(f"entry {number}: a mark of {data_bytes} bytes")
            text = block[ENTRY.size:ENTRY.size + data_bytes].split(b"\0")[0].decode(errors="replace")
            entries.append(Entry(0, 0, flags, at, text))
            continue
        size = sectors * sector
        entries.append(Entry(start * sector, size, flags, at, None))
        if not flags & DISCARD:
            at += size
        if at > length:
            raise BadLog(f"entry {number}: {sectors} sectors are behind the end")
    return entries


def is_loose(entry):
    """Whether nothing but the next flush makes it last."""
    return entry.text is None and not entry.flags & (FLUSH | FUA) and entry.size > 0


def loose_after(entries, end):
    """Up to where entries from `end` on may be on the disk or not: before the next flush.

    None of them is FUA: what is written because such a one is done must not be there without it."""
    stop = end
    while stop < len(entries) and is_loose(entries[stop]):
        stop += 1
    return stop if stop < len(entries) and entries[stop].flags & FLUSH else end


# The first `end` entries; torn: a seed for what is there of the loose ones behind them, or None.
Point = collections.namedtuple("Point", "end torn")


def choose_points(entries, begin, count, seed):
    """`count` of all points from entry `begin` on: at marks, at flushes and FUAs, in between, and torn."""
    order = random.Random(seed)
    inside = range(begin, len(entries) + 1)
    marks = [end for end in inside if entries[end - 1].text is not None]
    synced = [end for end in inside if entries[end - 1].flags & (FLUSH | FUA)]
    torn = [end for end in inside if loose_after(entries, end) > end and (not is_loose(entries[end - 1]))]
    kinds = [(marks, False), (torn, True), (synced, False), (torn, True), (list(inside), False)]
    chosen = set()
    for turn in range(count * 4):
        ends, is_torn = kinds[turn % len(kinds)]
        if ends and len(chosen) < count:
            chosen.add(Point(order.choice(ends), order.randrange(1 << 30) if is_torn else None))
    return sorted(chosen, key=lambda point: (point.end, point.torn or 0))


class Disk:
    """A file that becomes what the disk was, entry by entry; `log` is open for reading."""

    def __init__(self, path, log, entries):
        self.fd, self.log, self.entries, self.done = os.open(path, os.O_RDWR), log, entries, 0
        self.size = os.fstat(self.fd).st_size

    def close(self):
        os.close(self.fd)

    def put(self, entry, first=0, size=None):
        """The part of an entry from its byte `first` on."""
        size = entry.size - first if size is None else size
        if entry.offset + entry.size > self.size:
            raise BadLog(f"a write of {entry.size} bytes at {entry.offset}, behind the disk's end")
        while size > 0:
            step = min(size, 1 << 20)
            if entry.flags & DISCARD:
                data = bytes(step)
            else:
                data = os.pread(self.log.fileno(), step, entry.at + first)
            if len(data) != step:
                raise BadLog(f"{entry.at + first}: the log is cut")
            os.pwrite(self.fd, data, entry.offset + first)
            first, size = first + step, size - step

    def go_to(self, end):
        """Forward only."""
        for entry in self.entries[self.done:end]:
            if entry.text is None:
                self.put(entry)
        self.done = max(self.done, end)

    def tear(self, seed):
        """A random part of what may be there behind where it is; how many pieces of how many."""
        order = random.Random(seed)
        share = order.choice((0.1, 0.5, 0.9))
        pieces = [(entry, first) for entry in self.entries[self.done:loose_after(self.entries, self.done)]
                  for first in range(0, entry.size, PIECE)]
        there = [(entry, first) for entry, first in pieces if order.random() < share]
        for entry, first in there:
            self.put(entry, first, min(PIECE, entry.size - first))
        return len(there), len(pieces)
