#include "vmm/vcpu_gate.h"

void vcpu_gate_init(struct vcpu_gate *gate)
{
    *gate = (struct vcpu_gate){ .closed = true };
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
}

bool vcpu_gate_pass(struct vcpu_gate *gate)
{
    bool waited;

    pthread_mutex_lock(&gate->lock);
    waited = gate->closed;
    gate->waiting++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->closed)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->waiting--;
    pthread_mutex_unlock(&gate->lock);
    return waited;
}

void vcpu_gate_close(struct vcpu_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->closed = true;
    pthread_mutex_unlock(&gate->lock);
}

void vcpu_gate_await(struct vcpu_gate *gate, unsigned count)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->waiting < count)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void vcpu_gate_open(struct vcpu_gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->closed = false;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}
