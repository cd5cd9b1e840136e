/* test_hostile_vcpus.c - hostile vCPUs (hostile_vcpus.h) against all devices of a machine at once,
 * while the loop's thread serves, and its agent changes sizes and limits, connects, attaches, asks
 * disks back, holds the guest and saves it.  Nothing may crash, hang or be reported by a sanitizer,
 * and each device serves an orderly driver afterwards. */
#include "tests/unit/hostile_vcpus.h"
#include <sys/socket.h>
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "tests/unit/ring_harness.h"
#include "vmm/transfer.h"
#include "vmm/virtio_balloon.h"
#include "vmm/virtio_mem.h"
#include "vmm/virtio_vsock.h"

#define ROUNDS     100 /* of each vCPU that writes registers, at least */
#define ACTS       200 /* of the agent */
#define SERVED     10  /* of each kind */
#define BASE_BYTES 4096

/* Which of the machines it is that hold_vcpus() is asked for. */
static struct fixture *of_machine;

/* --- the agent --- */

static void hold_vcpus(struct machine *machine)
{
    (void)machine;
    pthread_rwlock_wrlock(&of_machine->gate);
}

static void release_vcpus(struct machine *machine)
{
    (void)machine;
    pthread_rwlock_unlock(&of_machine->gate);
}

static void tell_nobody(struct control *control, enum vmm_device_kind kind, unsigned place,
                        enum vmm_device_state state, int result)
{
    (void)kind;
    (void)place;
    (void)state;
    (void)result;
    control->gone++;
}

/* Our end of a pair, in the place of an older one; the other. */
static int new_pair(struct fixture *f)
{
    int *ours = &f->sockets[f->socket++ % SOCKETS];
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    cleanup_close(ours);
    *ours = pair[0];
    (void)!write(pair[0], "hello", 5);
    return pair[1];
}

static bool tell_vsock(struct control *control, const struct vmm_vsock *message)
{
    if (message->header.type == VMM_MESSAGE_VSOCK_REQUEST)
        control->asked = *message;
    return message->id % 7 != 0;
}

static void say_vsock(struct fixture *f, enum vmm_message_type type, uint32_t id, uint32_t port)
{
    const struct vmm_vsock message = { .header = vmm_header(type, sizeof message),
                                       .id = id,
                                       .port = port };
    char bytes[256];

    virtio_vsock_message(f->m->devices.vsock, &message, id % 5 == 0 ? -1 : new_pair(f));
    for (unsigned i = 0; i < SOCKETS; i++)
        if (f->sockets[i] >= 0)
            (void)!read(f->sockets[i], bytes, sizeof bytes);
}

static void save(struct fixture *f)
{
    struct transfer transfer = { .err = &f->m->h.err };

    hold_vcpus(NULL);
    devices_finish(&f->m->devices, DISK_FINISH);
    devices_transfer(&f->m->devices, &transfer);
    assert_true(transfer.result == 0 || transfer.result == -EBUSY);
    devices_retry(&f->m->devices);
    release_vcpus(NULL);
    free(transfer.bytes);
}

static void change_disks(struct fixture *f, uint64_t value)
{
    struct vmm_attach change = { .kind = VMM_DEVICE_DISK };

    change.disk = (struct vmm_disk){ .place = value >> 8 & 3,
                                     .queues = 1,
                                     .format = VMM_DISK_RAW,
                                     .size_bytes = DISK_BYTES,
                                     .rate_limit.operations_per_second = value >> 16 & 0xfff };
    devices_change(&f->m->devices, &change);
    change = (struct vmm_attach){ .kind = VMM_DEVICE_NIC };
    change.nic.tx_rate_limit.bytes_per_second = value >> 16 & 0xffffff;
    devices_change(&f->m->devices, &change);
}

/* A disk is asked back, and comes again to its place. */
static void replace_disk(struct fixture *f)
{
    struct vmm_attach disk = a_disk;
    int fd = file_new();

    (void)devices_detach(&f->m->devices, VMM_DEVICE_DISK, 2, true, NULL);
    disk.disk.place = 2;
    if (devices_attach(&f->m->devices, &disk, &fd, NULL) < 0)
        close(fd);
}

static void agent_acts(struct fixture *f)
{
    uint64_t value = next_random(&f->random);

    switch (value & 7) {
    case 0:
        change_disks(f, value);
        break;
    case 1:
        replace_disk(f);
        break;
    case 2:
        virtio_balloon_change(f->m->devices.balloon,
                              &(struct vmm_balloon){ value >> 8 & 3, value >> 16 & 1, 0, 0 });
        break;
    case 3:
        virtio_mem_change(f->m->devices.mem, (value >> 8 & 3) % 3 * VMM_MEMORY_BLOCK);
        break;
    case 4:
        say_vsock(f, VMM_MESSAGE_VSOCK_CONNECT, (uint32_t)(value >> 8), value >> 40 & 7);
        break;
    case 5:
        say_vsock(f, VMM_MESSAGE_VSOCK_ANSWER, (uint32_t)(value >> 8), 0);
        break;
    case 6:
        if (f->has_tap)
            (void)tap_host_send(&f->tap, value >> 8 & 0xfff);
        break;
    default:
        if (value >> 8 & 1)
            save(f);
        else
            virtio_vsock_forget(f->m->devices.vsock);
    }
}

/* --- the machine --- */

static void attach_disk(struct fixture *f, struct vmm_disk disk, const int *fds)
{
    struct vmm_attach attach = { .kind = VMM_DEVICE_DISK, .disk = disk };

    attach.disk.size_bytes = DISK_BYTES;
    assert_int_equal(devices_attach(&f->m->devices, &attach, fds, &f->m->h.err), 0);
}

/* The first two by rings, if this host has such. */
static void attach_disks(struct fixture *f)
{
    int raw = file_new(), slow = file_new(), delta[2] = { f->base_fd, -1 };

    for (unsigned i = 0; i < 2; i++) {
        struct uring *ring = ring_new();

        if (ring)
            f->m->devices.rings[f->m->devices.inherited.count++] = *ring;
        free(ring);
    }
    delta[1] = memfd_create("delta", MFD_CLOEXEC);
    assert_int_equal(delta_file_init(delta[1], DISK_BYTES, BASE_BYTES, "uid", &f->m->h.err), 0);
    attach_disk(f, (struct vmm_disk){ .place = 0, .queues = 4, .format = VMM_DISK_RAW }, &raw);
    attach_disk(f, (struct vmm_disk){ .place = 1, .queues = 1, .format = VMM_DISK_DELTA }, delta);
    attach_disk(f,
                (struct vmm_disk){ .place = 2,
                                   .queues = 1,
                                   .format = VMM_DISK_RAW,
                                   .rate_limit.operations_per_second = 1000 },
                &slow);
}

static void attach_nic(struct fixture *f)
{
    const struct vmm_attach nic = { .kind = VMM_DEVICE_NIC, .nic.queues = 2 };

    f->has_tap = tap_harness_enter() && tap_harness_open_queues(&f->tap, 2);
    if (f->has_tap)
        assert_int_equal(devices_attach(&f->m->devices, &nic, f->tap.fds, &f->m->h.err), 0);
}

static int set_up(void **state)
{
    const struct vmm_configure configure = { .memory_bytes = HARNESS_MEMORY,
                                             .hotplug_bytes = HARNESS_HOTPLUG,
                                             .requested_bytes = HARNESS_HOTPLUG,
                                             .vsock_cid = CID };
    struct fixture *f = calloc(1, sizeof *f);
    pthread_rwlockattr_t fair;

    assert_non_null(f);
    of_machine = f;
    f->random = SEED + 3;
    memset(f->sockets, 0xff, sizeof f->sockets);
    f->base_fd = memfd_create("base", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f->base_fd, BASE_BYTES), 0);
    pthread_rwlockattr_init(&fair); /* or two vCPUs would never let it be held */
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&f->gate, &fair);
    f->m = devices_harness_make(/* with_kvm= */ true, &configure,
                                (struct devices_spec){ .hold = hold_vcpus,
                                                       .release = release_vcpus,
                                                       .tell_device = tell_nobody,
                                                       .tell_vsock = tell_vsock });
    attach_disks(f);
    attach_nic(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct uring rings[2] = { f->m->devices.rings[0], f->m->devices.rings[1] };
    unsigned count = f->m->devices.inherited.count;

    devices_harness_free(f->m); /* and what was attached */
    for (unsigned i = 0; i < count; i++)
        ring_release(&rings[i]);
    if (f->has_tap)
        close(f->tap.host_fd);
    for (unsigned i = 0; i < SOCKETS; i++)
        cleanup_close(&f->sockets[i]);
    pthread_rwlock_destroy(&f->gate);
    free(f);
    return 0;
}

/* --- tests --- */

static bool has_raced(const struct fixture *f, unsigned acts)
{
    const struct stats_page *page = &f->m->page;

    return acts >= ACTS && __atomic_load_n(&f->rounds[0], __ATOMIC_RELAXED) >= ROUNDS &&
           __atomic_load_n(&f->rounds[1], __ATOMIC_RELAXED) >= ROUNDS &&
           (!WRITES_MEMORY ||
            (page->disks[0].read_ops >= SERVED && page->disks[0].write_ops >= SERVED &&
             page->disks[1].write_ops >= SERVED && page->rng_bytes >= SERVED * 64 &&
             page->vsock.connections > 0 && page->balloon.inflated_bytes > 0 &&
             (!f->has_tap || page->nics[0].tx_frames >= SERVED)));
}

/* Back to where it was, and reset, if it is there. */
static void set_back(struct fixture *f, unsigned device)
{
    struct harness *h = &f->m->h;

    h->slot = slots[device];
    if (config_get(h, 0, 4) == UINT32_MAX)
        return;
    config_put(h, 0x10, 4, (uint32_t)(PLATFORM_PCI32_START + h->slot * 0x10000));
    config_put(h, 0x14, 4, (uint32_t)(PLATFORM_PCI32_START + h->slot * 0x10000 + 0x8000));
    driver_attach(h);
    status_put(h, 0);
}

static void serves_an_orderly_driver(struct fixture *f, unsigned device, unsigned queue,
                                     const struct ring_buffer *buffers, unsigned count)
{
    struct harness *h = &f->m->h;
    uint32_t head, length;

    h->slot = slots[device];
    driver_start(h, 0, RING);
    ring_offer(h, queue, buffers, count);
    ring_kick(h, queue);
    assert_true(ring_await(h, queue, &head, &length));
    status_put(h, 0);
}

static void all_serve(struct fixture *f)
{
    const struct ring_buffer entropy = { DATA_BASE, 16, RING_WRITE };
    const struct ring_buffer pages = { DATA_BASE, 4, 0 };
    const struct ring_buffer state[] = { { DATA_BASE, 24, 0 }, { DATA_BASE + 64, 10, RING_WRITE } };
    const struct ring_buffer sector[] = { { DATA_BASE, 16, 0 },
                                          { DATA_BASE + 512, 512, RING_WRITE },
                                          { DATA_BASE + 64, 1, RING_WRITE } };

    for (unsigned device = 0; device < DEVICE_COUNT; device++)
        set_back(f, device); /* what is left running writes where the next one's rings are */
    serves_an_orderly_driver(f, RNG, 0, &entropy, 1);
    serves_an_orderly_driver(f, BALLOON, 0, &pages, 1);
    serves_an_orderly_driver(f, MEM, 0, state, 2);
    for (unsigned device = RAW; device <= DELTA; device++) {
        block_put_header(&f->m->h, DATA_BASE, IN, 0);
        serves_an_orderly_driver(f, device, 0, sector, 3);
        assert_int_equal(guest_get8(&f->m->h, DATA_BASE + 64), OK);
    }
}

static void a_machine_survives_hostile_vcpus(void **state)
{
    struct fixture *f = *state;
    struct vcpu vcpus[2];
    pthread_t threads[3];
    unsigned acts = 0;

    for (unsigned i = 0; i < 2; i++) {
        vcpus[i] = (struct vcpu){ f, f->m->h, SEED + i, i, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, run_vcpu, &vcpus[i]), 0);
    }
    assert_int_equal(pthread_create(&threads[2], NULL, run_writer, f), 0);
    for (; !has_raced(f, acts); acts++) {
        agent_acts(f);
        assert_int_equal(loop_turn(f->m->h.loop, 0, &f->m->h.err), 0);
        if (f->m->control.asked.id != 0)
            say_vsock(f, VMM_MESSAGE_VSOCK_ANSWER, f->m->control.asked.id, 0);
        f->m->control.asked.id = 0;
    }
    __atomic_store_n(&f->stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    print_message("%u acts, %u and %u rounds, %llu reads, %llu frames, %llu connections\n", acts,
                  f->rounds[0], f->rounds[1], (unsigned long long)f->m->page.disks[0].read_ops,
                  (unsigned long long)f->m->page.nics[0].tx_frames,
                  (unsigned long long)f->m->page.vsock.connections);
    all_serve(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_machine_survives_hostile_vcpus, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
