/* What example2 does, in plain C: `echo server`, or `echo client PORT` with standard input and output.
   The other side of benchmarks/echo_throughput.py. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char piece[65536];

static int copy(int from, int to) {
    ssize_t n;
    while ((n = read(from, piece, sizeof piece)) > 0)
        for (ssize_t done = 0, m; done < n; done += m)
            if ((m = write(to, piece + done, n - done)) <= 0) return 1;
    return n != 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (argc == 2 && !strcmp(argv[1], "server")) {
        if (bind(s, (struct sockaddr *)&address, size) || listen(s, 16)) return 1;
        getsockname(s, (struct sockaddr *)&address, &size);
        printf("Listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
        fflush(stdout);
        for (;;) {
            int c = accept(s, NULL, NULL);
            if (c < 0) return 1;
            copy(c, c);
            close(c);
        }
    }
    if (argc != 3) return 2;
    address.sin_port = htons(atoi(argv[2]));
    if (connect(s, (struct sockaddr *)&address, size)) return 1;
    if (fork() == 0) {
        int failed = copy(0, s);
        shutdown(s, SHUT_WR);
        _exit(failed);
    }
    int failed = copy(s, 1), status;
    wait(&status);
    return failed || status;
}
