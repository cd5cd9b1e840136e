/* test_delta_power_cut.c - a delta disk whose power is cut at every point of a random workload.
 *
 * A cut leaves all that a sync had finished before it, and of the rest any part: each page, or each
 * sector, of each write and punch since comes through or does not. */
#include "tests/unit/delta_harness.h"

#define REQUESTS      32u
#define CUTS_AT_POINT 4u
#define FILE_PAGES    (BITMAP_USED / BLOCK + WINDOW_BLOCKS)

/* --- what a power cut leaves --- */

struct image { /* the parts of a delta file that can change */
    uint8_t bitmap[BITMAP_USED];
    uint8_t window[WINDOW_BYTES];
};

/* A sector of the file in an image; NULL = outside of what may be written. */
static uint8_t *image_at(struct image *image, uint64_t offset)
{
    uint64_t window = data_offset() + WINDOW_START;

    if (offset >= BLOCK && offset < BLOCK + BITMAP_USED)
        return image->bitmap + (offset - BLOCK);
    if (offset >= window && offset < window + WINDOW_BYTES)
        return image->window + (offset - window);
    return NULL;
}

static void image_apply(struct image *image, const struct operation *operation, uint64_t from,
                        uint64_t size)
{
    for (uint64_t at = from; at < from + size; at += SECTOR) {
        uint8_t *to = image_at(image, operation->offset + at);

        assert_non_null(to);
        if (operation->what == WROTE)
            memcpy(to, operation->bytes + at, SECTOR);
        else
            memset(to, 0, SECTOR);
    }
}

/* What of the operations after the last sync comes through. */
struct luck {
    unsigned grain; /* bytes that come through together */
    int chance;     /* in 8 */
    bool lost[FILE_PAGES];
};

/* A page is written as it is at some moment: if it lacks one change, it lacks the later ones, too.
 * Sectors are written, or not, in any order. */
static bool comes_through(struct luck *luck, uint64_t offset)
{
    bool *lost =
        &luck->lost[offset < data_offset() ? offset / BLOCK - 1
                                           : 2 + (offset - data_offset() - WINDOW_START) / BLOCK];

    if (luck->grain < BLOCK || !*lost)
        *lost = rand() % 8 >= luck->chance;
    return !*lost;
}

static void image_apply_some(struct image *image, const struct operation *operation,
                             struct luck *luck)
{
    for (uint64_t at = 0; at < operation->size;) {
        uint64_t piece = luck->grain - (operation->offset + at) % luck->grain;

        if (piece > operation->size - at)
            piece = operation->size - at;
        if (comes_through(luck, operation->offset + at))
            image_apply(image, operation, at, piece);
        at += piece;
    }
}

static int image_file(const struct image *image)
{
    int fd = new_delta();

    for (unsigned i = 0; i < BITMAP_USED; i += BLOCK)
        if (!all_zero(image->bitmap + i, BLOCK))
            assert_int_equal(pwrite(fd, image->bitmap + i, BLOCK, (off_t)(BLOCK + i)), BLOCK);
    for (size_t i = 0; i < WINDOW_BYTES; i += BLOCK)
        if (!all_zero(image->window + i, BLOCK))
            assert_int_equal(
                pwrite(fd, image->window + i, BLOCK, (off_t)(data_offset() + WINDOW_START + i)),
                BLOCK);
    return fd;
}

/* --- a disk and what it should hold --- */

struct state {         /* of the window, after a request */
    unsigned begun;    /* operations recorded before it */
    unsigned finished; /* and when it was done */
    bool flush;
    uint8_t bytes[WINDOW_BYTES];
};

struct run {
    struct fixture disk;
    unsigned count;
    struct state states[REQUESTS + 1]; /* the first is the start */
};

static void open_disk(struct run *f)
{
    fixture_open(&f->disk);
    f->count = 1;
    f->states[0] = (struct state){ .flush = true };
    read_window(f->disk.disk, f->states[0].bytes);
}

static int set_up(void **state)
{
    struct run *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->disk.base_fd = new_base();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct run *f = *state;

    close(f->disk.base_fd);
    free(f);
    return 0;
}

/* --- power cuts --- */

static void fill_request(uint8_t *bytes, size_t size, unsigned number)
{
    for (size_t i = 0; i < size; i += SECTOR)
        memset(bytes + i, (int)(number % 127 + 1), SECTOR);
}

static void do_random_request(struct run *f)
{
    struct state *state = &f->states[f->count];
    uint8_t bytes[REQUEST_BLOCKS * BLOCK], window[WINDOW_BYTES];
    uint64_t sectors = 1 + (uint64_t)rand() % (REQUEST_BLOCKS * (BLOCK / SECTOR));
    uint64_t start;
    int kind = rand() % 8;

    if (rand() % 2) /* whole blocks */
        sectors = (sectors + 7) / 8 * 8;
    start = (uint64_t)rand() % (WINDOW_BYTES / SECTOR - sectors + 1);
    if (rand() % 2)
        start = start / 8 * 8;
    *state = (struct state){ .begun = recorder.count };
    memcpy(state->bytes, state[-1].bytes, WINDOW_BYTES);
    if (kind < 4) {
        fill_request(bytes, sectors * SECTOR, (unsigned)rand());
        memcpy(state->bytes + start * SECTOR, bytes, sectors * SECTOR);
        assert_int_equal(submit(f->disk.disk, DISK_WRITE, WINDOW_START + start * SECTOR, bytes,
                                sectors * SECTOR, false),
                         0);
    } else if (kind < 6) {
        memset(state->bytes + start * SECTOR, 0, sectors * SECTOR);
        assert_int_equal(submit(f->disk.disk, kind == 4 ? DISK_DISCARD : DISK_WRITE_ZEROES,
                                WINDOW_START + start * SECTOR, NULL, sectors * SECTOR, rand() % 2),
                         0);
    } else if (kind == 6) {
        state->flush = true;
        assert_int_equal(submit(f->disk.disk, DISK_FLUSH, 0, NULL, 0, false), 0);
    }
    state->finished = recorder.count;
    f->count++;
    read_window(f->disk.disk, window);
    assert_memory_equal(window, state->bytes, WINDOW_BYTES);
}

/* Each piece of `grain` bytes is as some state since the last flush that was finished had it. */
static void check_cut(const struct run *f, const uint8_t *window, unsigned point, unsigned grain)
{
    unsigned first = 0, end = f->count;

    for (unsigned i = 0; i < f->count; i++) {
        if (f->states[i].flush && f->states[i].finished <= point)
            first = i;
        if (end == f->count && f->states[i].begun > point)
            end = i;
    }
    for (size_t at = 0; at < WINDOW_BYTES; at += grain) {
        bool known = false;

        for (unsigned i = first; i < end && !known; i++)
            known = memcmp(f->states[i].bytes + at, window + at, grain) == 0;
        if (!known)
            fail_msg("cut at operation %u of %u: block %zu, sector %zu is none it ever was since "
                     "the last flush (request %u of %u)",
                     point, recorder.count, at / BLOCK, at % BLOCK / SECTOR, first, f->count);
    }
}

/* The file as a cut before operation `point` leaves it: one of many. */
static struct image image_cut(const struct image *start, unsigned point, unsigned grain, int chance)
{
    struct luck luck = { .grain = grain, .chance = chance };
    struct image image = *start;
    unsigned synced = 0;

    for (unsigned i = 0; i < point; i++)
        if (recorder.operations[i].what == SYNCED)
            synced = i;
    for (unsigned i = 0; i < point; i++) {
        const struct operation *operation = &recorder.operations[i];

        if (operation->what != SYNCED && i < synced)
            image_apply(&image, operation, 0, operation->size);
        else if (operation->what != SYNCED)
            image_apply_some(&image, operation, &luck);
    }
    return image;
}

/* Cuts the power everywhere, and leaves in *image what one of the cuts left. */
static unsigned cut_everywhere(struct run *f, struct image *image, unsigned grain)
{
    static const int chances[CUTS_AT_POINT] = { 0, 8, 4, 7 };
    const struct image start = *image;
    unsigned operations = recorder.count;
    unsigned next = (unsigned)rand() % (operations + 1);
    int recorded = recorder.fd;

    recorder.fd = -1;
    for (unsigned point = 0; point <= operations; point++) {
        for (unsigned i = 0; i < CUTS_AT_POINT; i++) {
            struct image cut = image_cut(&start, point, grain, chances[i]);
            auto_close int fd = image_file(&cut);
            uint8_t window[WINDOW_BYTES];
            struct disk *disk;

            assert_int_equal(
                disk_delta_new(f->disk.base_fd, fd, ring, DISK_BYTES, &disk, &f->disk.err), 0);
            read_window(disk, window);
            disk_free(disk);
            check_cut(f, window, point, grain);
            if (point == next)
                *image = cut;
        }
    }
    recorder.fd = recorded;
    return (operations + 1) * CUTS_AT_POINT;
}

static unsigned given(const char *name, unsigned otherwise)
{
    const char *value = getenv(name);

    return value ? (unsigned)atoi(value) : otherwise;
}

/* Where whole pages come through or do not, blocks are old or new; where sectors do, sectors are.
 * Each run has several lives: what a cut left is what the next begins with. */
static void power_cuts(struct run *f, unsigned grain)
{
    unsigned first = given("DELTA_SEED", 1), runs = given("DELTA_RUNS", 12);
    unsigned cuts = 0;

    for (unsigned seed = first; seed < first + runs; seed++) {
        struct image image = { .bitmap = { 0 } };

        srand(seed);
        for (unsigned life = 0; life < 3; life++) {
            f->disk.delta_fd = image_file(&image);
            open_disk(f);
            while (f->count <= REQUESTS)
                do_random_request(f);
            cuts += cut_everywhere(f, &image, grain);
            fixture_close(&f->disk);
        }
    }
    printf("%u power cuts, %u bytes at a time\n", cuts, grain);
}

static void a_power_cut_leaves_each_block_old_or_new(void **state)
{
    power_cuts(*state, BLOCK);
}

static void a_torn_power_cut_leaves_each_sector_old_or_new(void **state)
{
    power_cuts(*state, SECTOR);
}

#define ON_A_DISK(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_A_DISK(a_power_cut_leaves_each_block_old_or_new),
        ON_A_DISK(a_torn_power_cut_leaves_each_sector_old_or_new),
    };

    return cmocka_run_group_tests_name("delta_power_cut", tests, NULL, NULL);
}
