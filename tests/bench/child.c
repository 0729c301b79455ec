/* The server that the bench has supervised: as light as a server can be, so that what is measured is the supervisor.
 * It says when it began, answers every HTTP request with 200, and prints numbered lines if it is asked to.
 *
 *   INSTANCE_NAME  who it is
 *   PORT           where it listens on 127.0.0.1
 *   BENCH_EVENTS   a FIFO that is told "NAME WHAT PID NANOSECONDS", with WHAT one of up, flood, done, failed
 *   BENCH_FLOOD    "LINES BYTES PER_WRITE": prints so many lines of so many bytes, so many of them with each write
 *   BENCH_GO       a FIFO; the flood begins when somebody opens it for writing
 *
 * A line is "NAME NUMBER xxx...\n"; lines.c checks it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LIFE 3600 /* seconds: who outlives the bench ends by itself */
#define DIGITS 10

static const char *name;

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void tell(const char *what, long long at) {
    char text[128];
    int length = snprintf(text, sizeof text, "%s %s %d %lld\n", name, what, (int)getpid(), at);
    int fifo = open(getenv("BENCH_EVENTS"), O_WRONLY | O_CLOEXEC);
    if (fifo < 0 || write(fifo, text, length) != length) _exit(97);
    close(fifo);
}

static void fail(void) {
    tell("failed", now());
    _exit(98);
}

static void end(int number) {
    (void)number;
    _exit(0);
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 64)) fail();
    return fd;
}

static void print(const char *text, size_t length) {
    while (length > 0) {
        ssize_t written = write(1, text, length);
        if (written < 0 && errno != EINTR) fail();
        if (written > 0) text += written, length -= written;
    }
}

static void flood(const char *order) {
    long long lines;
    int bytes, batch;
    if (sscanf(order, "%lld %d %d", &lines, &bytes, &batch) != 3) fail();
    int number_at = (int)strlen(name) + 1;
    char *text = malloc((size_t)bytes * batch);
    for (int i = 0; i < batch; i++) {
        char *line = text + (size_t)i * bytes;
        memset(line, 'x', bytes);
        memcpy(line, name, strlen(name));
        line[number_at - 1] = line[number_at + DIGITS] = ' ';
        line[bytes - 1] = '\n';
    }
    close(open(getenv("BENCH_GO"), O_RDONLY | O_CLOEXEC)); /* blocks until there is a writer */
    tell("flood", now());
    for (long long next = 0; next < lines;) {
        int count = lines - next < batch ? (int)(lines - next) : batch;
        for (int i = 0; i < count; i++) {
            long long number = next + i;
            for (int digit = DIGITS - 1; digit >= 0; digit--, number /= 10)
                text[(size_t)i * bytes + number_at + digit] = '0' + number % 10;
        }
        print(text, (size_t)count * bytes);
        next += count;
    }
    tell("done", now());
    free(text);
}

static void answer(int client) {
    static const char good[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    char request[1024];
    struct pollfd readable = {client, POLLIN, 0};
    if (poll(&readable, 1, 1000) > 0 && read(client, request, sizeof request) > 0)
        if (write(client, good, sizeof good - 1) < 0) errno = 0; /* the client is gone */
    close(client);
}

int main(void) {
    long long born = now();
    alarm(LIFE);
    name = getenv("INSTANCE_NAME");
    tell("up", born);
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGPIPE, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    int server = listen_on(atoi(getenv("PORT")));
    if (getenv("BENCH_FLOOD")) flood(getenv("BENCH_FLOOD"));
    for (;;) {
        int client = accept4(server, 0, 0, SOCK_CLOEXEC);
        if (client >= 0) answer(client);
    }
}
