/* vcpu_gate.h - where vCPU threads wait until the guest may run: at the start, so that no guest
 * instruction runs before every thread is confined, and while it is paused.
 *
 * A closed gate is reached from anywhere: KVM_RUN leaves at once while `immediate_exit` is set, and
 * finishes the access it was in the middle of; a signal gets one out that is inside. */
#pragma once
#include <pthread.h>
#include <stdbool.h>

#define VCPU_GATE_SIGNAL SIGUSR1

struct vcpu_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
    unsigned waiting; /* vCPUs at the closed gate */
};

/* Closed. */
void vcpu_gate_init(struct vcpu_gate *gate);

/* vCPU threads: returns once the gate is open; true if it had to wait. */
bool vcpu_gate_pass(struct vcpu_gate *gate);

/* The main thread.  Close lets those come that are on their way, await returns when `count` are
 * there. */
void vcpu_gate_close(struct vcpu_gate *gate);
void vcpu_gate_await(struct vcpu_gate *gate, unsigned count);
void vcpu_gate_open(struct vcpu_gate *gate);
