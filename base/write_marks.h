/* write_marks.h - which parts of a VM's disks were written to, a byte for each part: in a memfd of
 * the agent's, which a VMM sets them in.  So disks are copied while their VM runs, and it is held
 * only for what was written since.
 *
 * A mark is set once the write has ended.  Who takes it away, and then reads, has what it stood
 * for, or finds it set again. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRITE_MARKS_OF_DISK  65536u /* the disk at place N has those from N times as many on */
#define WRITE_MARK_SHIFT_MIN 20u    /* a part has at least so many bytes, as a power of two */
#define WRITE_MARK_SHIFT_MAX 48u

/* For disks of at most so many bytes; the last part has what lies behind, too. */
static inline unsigned write_mark_shift(uint64_t bytes)
{
    unsigned shift = WRITE_MARK_SHIFT_MIN;

    while (shift < WRITE_MARK_SHIFT_MAX && bytes >> shift > WRITE_MARKS_OF_DISK)
        shift++;
    return shift;
}

static inline size_t write_mark_at(uint64_t offset, unsigned shift)
{
    uint64_t mark = offset >> shift;

    return mark < WRITE_MARKS_OF_DISK ? (size_t)mark : WRITE_MARKS_OF_DISK - 1;
}

/* `size` is not 0; marks: of the disk. */
static inline void write_marks_set(uint8_t *marks, unsigned shift, uint64_t offset, uint64_t size)
{
    size_t last = write_mark_at(offset + size - 1, shift);

    for (size_t mark = write_mark_at(offset, shift); mark <= last; mark++)
        __atomic_store_n(&marks[mark], 1, __ATOMIC_RELEASE);
}

static inline bool write_mark_take(uint8_t *marks, size_t mark)
{
    return __atomic_load_n(&marks[mark], __ATOMIC_ACQUIRE) &&
           __atomic_exchange_n(&marks[mark], 0, __ATOMIC_ACQ_REL);
}
