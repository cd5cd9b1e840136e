/* block.h - virtio-blk: one request at a time for the words, many for the benchmark.
 * Virtio 1.2, 5.2. */
#pragma once

/* Runs blkN:VERB:... and prints "blk N VERB ..."; arguments[0] is the verb. */
void block_run(unsigned index, char **arguments, unsigned count);
/* Writes the last sector of the disk in a slot and reads it again:
 * "slot 9 disk 2048 sectors was 0x00 write ok read ok". */
void block_probe(unsigned slot);
/* latency:blk:N and bench:blk:N:DEPTH; arguments begin after "blk". */
void block_measure(unsigned index, char **arguments, unsigned count);
