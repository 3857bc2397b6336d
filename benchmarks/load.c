/* A crowd of chat members in one thread: connects them, lets some of them talk, and checks every delivery.

   load HOST PORT[,PORT]... MEMBERS TALKERS SECONDS RATE HELLO MESSAGE [STOPPED]

   With several ports, one for each server of a cluster, the members take turns with them.
   HELLO and MESSAGE are what a member sends when it comes in, and for each line; in hexadecimal. In HELLO "@@@@@" stands
   for the member's number. MESSAGE contains "~", five digits for the talker and nine for the line's number. Whatever the
   server sends back is searched for "~": so this works for every protocol that passes texts on unchanged.

   RATE: lines a second, all talkers together; 0: as many as the server takes, with at most ON_THE_WAY deliveries
   outstanding (else most lines would wait in the kernel's buffers, and the end would take minutes).
   STOPPED: so many more come in, and as soon as the talking begins they read no more.

   Prints one line of JSON: lines, deliveries, seconds, p50, p99, max (latency in seconds; of RATE > 0), wrong (lost, twice, or out of order). */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MARK = 15, CHUNK = 65536, BATCH = 32, ON_THE_WAY = 2500000, GROUP = 50, QUIET = 20, HISTORY = 1 << 16, PATIENCE = 20, STUCK = 5 };

struct member {
    int socket, probed, tail_size;
    char tail[MARK];
    unsigned *last;      /* for each talker, the last line that has come */
    char *out;           /* what a talker has still to send */
    size_t out_size;
    unsigned line;       /* the last one it has said */
    double *said;        /* when */
};

static struct member *members;
static int count, stopped, talkers, poller;
static unsigned long long deliveries, wrong;
static double *latencies;
static size_t latency_count, latency_space;
static int paced;
static double last_delivery;
static char buffer[MARK + CHUNK];

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static size_t from_hex(const char *text, char *bytes) {
    size_t size = strlen(text) / 2;
    for (size_t i = 0; i < size; i++) {
        unsigned value;
        sscanf(text + 2 * i, "%2x", &value);
        bytes[i] = (char)value;
    }
    return size;
}

static void put_number(char *at, int digits, unsigned value) {
    for (int i = digits - 1; i >= 0; i--, value /= 10) at[i] = '0' + value % 10;
}

/* Eight digits at once: pairs, then fours, then all. Whoever looks at every delivery must be faster than the server. */
static int read_digits(const char *at, unsigned *value) {
    uint64_t digits;
    memcpy(&digits, at, 8);
    digits -= 0x3030303030303030;
    if ((digits | (digits + 0x7676767676767676)) & 0x8080808080808080) return 0;
    digits = digits * 10 + (digits >> 8);
    *value = ((digits & 0x000000FF000000FF) * 0x000F424000000064 + (digits >> 16 & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
    return 1;
}

static void delivered(struct member *member, unsigned talker, unsigned line, double at) {
    if (line == 0) {
        member->probed = 1;
        return;
    }
    if (talker >= (unsigned)talkers || line != member->last[talker] + 1) wrong++;
    if (talker >= (unsigned)talkers) return;
    member->last[talker] = line;
    deliveries++;
    last_delivery = at;
    if (paced) {
        if (latency_count == latency_space) {
            latency_space = latency_space ? 2 * latency_space : 1 << 16;
            latencies = realloc(latencies, latency_space * sizeof *latencies);
        }
        latencies[latency_count++] = at - members[talker].said[line % HISTORY];
    }
}

static void receive(struct member *member) {
    memcpy(buffer, member->tail, member->tail_size);
    ssize_t got = recv(member->socket, buffer + member->tail_size, CHUNK, 0);
    if (got == 0) fail("the server has hung up");
    if (got < 0) {
        if (errno == EAGAIN) return;
        fail("receive");
    }
    double at = now();
    char *place = buffer, *end = buffer + member->tail_size + got;
    member->tail_size = 0;
    while ((place = memchr(place, '~', end - place))) {
        if (end - place < MARK) {
            member->tail_size = end - place;
            memcpy(member->tail, place, member->tail_size);
            return;
        }
        unsigned head, tail;  /* tttttlll, and then llllll with the last two l of these before it */
        if (!read_digits(place + 1, &head) || !read_digits(place + 7, &tail)) {
            place++;  /* a byte of a frame's length can look like this, too */
            continue;
        }
        delivered(member, head / 1000, head % 1000 * 1000000 + tail % 1000000, at);
        place += MARK;
    }
}

static void watch(struct member *member, int writing, int operation) {
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = member};
    if (epoll_ctl(poller, operation, member->socket, &event)) fail("epoll");
}

static char message[8192];
static size_t message_size, message_mark;

static void say(struct member *member, unsigned line) {
    memcpy(member->out + member->out_size, message, message_size);
    put_number(member->out + member->out_size + message_mark + 1, 5, member - members);
    put_number(member->out + member->out_size + message_mark + 6, 9, line);
    member->out_size += message_size;
    if (member->said) member->said[line % HISTORY] = now();
}

/* Returns whether all was sent. */
static int flush(struct member *member) {
    while (member->out_size) {
        ssize_t sent = send(member->socket, member->out, member->out_size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) return 0;
            fail("send");
        }
        memmove(member->out, member->out + sent, member->out_size - sent);
        member->out_size -= sent;
    }
    return 1;
}

/* Returns whether there was anything to do. */
static int poll_once(int milliseconds) {
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, milliseconds);
    for (int i = 0; i < ready; i++) {
        struct member *member = events[i].data.ptr;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(member);
        if ((events[i].events & EPOLLOUT) && flush(member)) watch(member, 0, EPOLL_CTL_MOD);
    }
    return ready > 0;
}

/* What the talker may say now: the next member has heard all but a few of its lines. */
static void talk(struct member *talker) {
    unsigned heard = members[(talker - members + 1) % count].last[talker - members];
    unsigned window = ON_THE_WAY / count / talkers + 1;
    if (talker->out_size) return;
    for (int i = 0; i < BATCH && talker->line - heard < window; i++) say(talker, ++talker->line);
    if (talker->out_size && !flush(talker)) watch(talker, 1, EPOLL_CTL_MOD);
}

static void connect_all(const char *host, char *ports, const char *hello_hex) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char *port = ports;
    inet_pton(AF_INET, host, &address.sin_addr);
    char hello[8192];
    size_t hello_size = from_hex(hello_hex, hello);
    char *place = memmem(hello, hello_size, "@@@@@", 5);
    for (int i = 0; i < count + stopped; i++) {
        struct member *member = &members[i];
        int one = 1;
        member->socket = socket(AF_INET, SOCK_STREAM, 0);
        if (member->socket < 0) fail("socket");
        address.sin_port = htons(strtol(port, &port, 10));
        port = *port == ',' ? port + 1 : ports;
        if (connect(member->socket, (struct sockaddr *)&address, sizeof address)) fail("connect");
        setsockopt(member->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        member->last = calloc(talkers, sizeof *member->last);
        if (i < talkers) {
            member->out = malloc((2 * BATCH + 1) * message_size);
            if (paced) member->said = calloc(HISTORY, sizeof *member->said);
        }
        watch(member, 0, EPOLL_CTL_ADD);
        if ((i + 1) % GROUP && i + 1 < count + stopped) continue;
        for (int j = i / GROUP * GROUP; j <= i; j++) {
            if (place) put_number(place, 5, j);
            if (send(members[j].socket, hello, hello_size, MSG_NOSIGNAL) != (ssize_t)hello_size) fail("hello");
            fcntl(members[j].socket, F_SETFL, O_NONBLOCK);
        }
        while (poll_once(QUIET)) {}  /* they come in group by group: what a rush leaves behind is no idle member's memory */
    }
}

/* The first talker repeats a line until all others have had it: then everybody is in. */
static void wait_for_all(void) {
    double deadline = now() + 6 * PATIENCE, next = 0;
    for (;;) {
        int missing = 0;
        for (int i = 1; i < count + stopped; i++) missing += !members[i].probed;
        if (!missing) return;
        if (now() > deadline) {
            fprintf(stderr, "load: %d of %d members never heard anything\n", missing, count + stopped);
            exit(1);
        }
        if (now() > next && !members[0].out_size) {
            say(&members[0], 0);
            flush(&members[0]);
            next = now() + 0.1;
        }
        poll_once(10);
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 9 && argc != 10) {
        fprintf(stderr, "usage: load HOST PORT[,PORT]... MEMBERS TALKERS SECONDS RATE HELLO MESSAGE [STOPPED]\n");
        return 2;
    }
    count = atoi(argv[3]);
    stopped = argc > 9 ? atoi(argv[9]) : 0;
    talkers = atoi(argv[4]);
    double seconds = atof(argv[5]), rate = atof(argv[6]);
    paced = rate > 0;
    message_size = from_hex(argv[8], message);
    message_mark = (char *)memchr(message, '~', message_size) - message;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    poller = epoll_create1(0);
    members = calloc(count + stopped, sizeof *members);
    connect_all(argv[1], argv[2], argv[7]);
    wait_for_all();
    printf("ready\n");
    fflush(stdout);
    if (seconds == 0) {  /* idle, until our input ends */
        while (getchar() != EOF) {}
        return 0;
    }
    if (getchar() == EOF) return 0;  /* whoever measures has taken notice */
    for (double quiet = now() + 0.3; now() < quiet;) poll_once(10);  /* the last probes pass */
    for (int i = count; i < count + stopped; i++)
        if (epoll_ctl(poller, EPOLL_CTL_DEL, members[i].socket, NULL)) fail("epoll");
    double began = now(), end = began + seconds;
    last_delivery = began;
    for (unsigned long long said = 0; now() < end;) {
        for (; paced && said < (now() - began) * rate; said++) {
            struct member *talker = &members[said % talkers];
            if (talker->out_size < BATCH * message_size) {
                say(talker, ++talker->line);
                if (!flush(talker)) watch(talker, 1, EPOLL_CTL_MOD);
            }
        }
        for (int i = 0; !paced && i < talkers; i++) talk(&members[i]);
        poll_once(1);
    }
    unsigned long long lines = 0;
    for (int i = 0; i < talkers; i++) lines += members[i].line;
    unsigned long long expected = lines * (count - 1);
    while (deliveries < expected && now() - last_delivery < STUCK) poll_once(10);
    if (deliveries < expected) wrong += expected - deliveries;
    qsort(latencies, latency_count, sizeof *latencies, ascending);
    double p50 = latency_count ? latencies[latency_count / 2] : 0, p99 = latency_count ? latencies[latency_count * 99 / 100] : 0;
    printf("{\"lines\": %llu, \"deliveries\": %llu, \"seconds\": %f, \"p50\": %f, \"p99\": %f, \"max\": %f, \"wrong\": %llu}\n", lines,
           deliveries, last_delivery - began, p50, p99, latency_count ? latencies[latency_count - 1] : 0, wrong);
    return wrong != 0;
}
