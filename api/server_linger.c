/* server_linger.c - see server_linger.h. */
#include "api/server_linger.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "api/server.h"
#include "base/loop.h"

struct server_linger {
    struct server *server;
    struct server_linger *next, **previous;
    struct loop_source *source;
    struct loop_timer *end;
    int fd;
};

static void linger_end(struct server_linger *linger)
{
    *linger->previous = linger->next;
    if (linger->next)
        linger->next->previous = linger->previous;
    linger->server->linger_count--;
    loop_remove(linger->source);
    loop_cancel(linger->end);
    close(linger->fd);
    free(linger);
}

static void linger_is_over(void *context)
{
    struct server_linger *linger = context;

    linger->end = NULL;
    linger_end(linger);
}

/* A part at a time, so that the others have their turns. */
static void linger_read(void *context, uint32_t events)
{
    const struct server_linger *linger = context;
    char dropped[65536];
    ssize_t size = recv(linger->fd, dropped, sizeof(dropped), MSG_DONTWAIT);

    (void)events;
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR))
        linger_end(context);
}

void linger_begin(struct server *server, int fd)
{
    struct server_linger *linger;

    if (server->linger_count >= SERVER_LINGER_MAX)
        return;
    linger = calloc(1, sizeof(*linger));
    if (!linger)
        return;
    *linger = (struct server_linger){ .server = server,
                                      .next = server->lingering,
                                      .previous = &server->lingering,
                                      .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0) };
    if (linger->fd < 0) {
        free(linger);
        return;
    }
    if (linger->next)
        linger->next->previous = &linger->next;
    server->lingering = linger;
    server->linger_count++;
    linger->end = loop_after(server->loop, SERVER_LINGER_MS, linger_is_over, linger);
    if (!linger->end || loop_add(server->loop, linger->fd, EPOLLIN, linger_read, linger,
                                 &linger->source, NULL) < 0) {
        linger_end(linger);
        return;
    }
    shutdown(linger->fd, SHUT_WR); /* its client sees the answer's end all the same */
}

void linger_end_all(struct server *server)
{
    while (server->lingering)
        linger_end(server->lingering);
}
