/* The practical limit: an epoll loop that relays whole frames and coalesces writes. All frames that have come in one turn
   leave in one send per member; nobody gets his own back. No names, no JSON, no limits: it does nothing else. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CHUNK = 65536, MANY = 65536 };

struct bytes { char *data; size_t size, space; };
struct slice { size_t begin, end; };
struct member {
    int socket, watched, place;
    struct bytes in, out;
    struct slice *own;      /* what of this turn came from it */
    int own_count, own_space;
};

static struct member *all[MANY];
static int count, poller;
static struct bytes turn;

static void append(struct bytes *bytes, const char *data, size_t size) {
    if (bytes->size + size > bytes->space) {
        bytes->space = 2 * (bytes->size + size);
        bytes->data = realloc(bytes->data, bytes->space);
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

static void watch(struct member *member, int writing) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = member};
    epoll_ctl(poller, EPOLL_CTL_MOD, member->socket, &event);
    member->watched = writing;
}

static void lose(struct member *member) {
    close(member->socket);
    all[member->place] = all[--count];
    all[member->place]->place = member->place;
    free(member->in.data);
    free(member->out.data);
    free(member->own);
    free(member);
}

/* Returns whether the member is still there. */
static int receive(struct member *member) {
    static char chunk[CHUNK];
    ssize_t got = recv(member->socket, chunk, CHUNK, 0);
    if (got <= 0) {
        if (got < 0 && errno == EAGAIN) return 1;
        lose(member);
        return 0;
    }
    append(&member->in, chunk, got);
    size_t whole = 0;
    while (member->in.size - whole >= 4) {
        uint32_t length;
        memcpy(&length, member->in.data + whole, 4);
        if (member->in.size - whole - 4 < ntohl(length)) break;
        whole += 4 + ntohl(length);
    }
    if (whole) {
        if (member->own_count == member->own_space)
            member->own = realloc(member->own, (member->own_space = 2 * member->own_space + 4) * sizeof *member->own);
        member->own[member->own_count++] = (struct slice){turn.size, turn.size + whole};
        append(&turn, member->in.data, whole);
        memmove(member->in.data, member->in.data + whole, member->in.size - whole);
        member->in.size -= whole;
    }
    return 1;
}

static void flush(struct member *member) {
    ssize_t sent = send(member->socket, member->out.data, member->out.size, MSG_NOSIGNAL);
    if (sent < 0) sent = 0;
    memmove(member->out.data, member->out.data + sent, member->out.size - sent);
    member->out.size -= sent;
    if (!member->out.size != !member->watched) watch(member, member->out.size > 0);
}

/* What of the turn is for this member: all but its own slices. */
static void deliver(struct member *member) {
    struct iovec parts[64];
    int used = 0;
    size_t from = 0, total = 0, sent = 0;
    for (int i = 0; i <= member->own_count; i++) {
        size_t to = i < member->own_count ? member->own[i].begin : turn.size;
        if (to > from) {
            if (used == 64 || member->out.size) {
                append(&member->out, turn.data + from, to - from);
            } else {
                parts[used++] = (struct iovec){turn.data + from, to - from};
                total += to - from;
            }
        }
        if (i < member->own_count) from = member->own[i].end;
    }
    member->own_count = 0;
    if (used) {
        struct msghdr header = {.msg_iov = parts, .msg_iovlen = used};
        ssize_t result = sendmsg(member->socket, &header, MSG_NOSIGNAL);
        sent = result < 0 ? 0 : result;
        for (int i = 0; i < used && sent < total; i++) {
            size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
            append(&member->out, (char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
            sent -= skip;
            total -= skip;
        }
    }
    if (member->out.size && !member->watched) watch(member, 1);
}

int main(int argc, char **argv) {
    (void)argc;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) return 1;
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[1024];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, 1024, -1);
        turn.size = 0;
        for (int i = 0; i < ready; i++) {
            struct member *member = events[i].data.ptr;
            if (!member) {
                int accepted;
                while ((accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    member = calloc(1, sizeof *member);
                    member->socket = accepted;
                    member->place = count;
                    all[count++] = member;
                    event.data.ptr = member;
                    epoll_ctl(poller, EPOLL_CTL_ADD, accepted, &event);
                }
                continue;
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                if (!receive(member)) continue;
            if (events[i].events & EPOLLOUT) flush(member);
        }
        if (turn.size)
            for (int i = 0; i < count; i++) deliver(all[i]);
    }
}
