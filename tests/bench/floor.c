/* The floor: the least that a supervisor of one process can do, and so what no supervisor can beat by much. It starts
 * its children, starts them again at once when they end, copies what they print into files, asks them over HTTP, and
 * answers a client. No policy, no checks of anything, no rotation, no state that outlives it.
 *
 *   floor DIR COUNT PORT CHILD CHECK
 *
 * DIR/floor.sock: "s" is answered with a line per child, "q" ends all children and is answered when they are gone.
 * CHECK: milliseconds from one check of a child to the next, 0 for none. A child that answers no check in 500 ms is
 * killed. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_MS 500

extern char **environ;

enum kind { ENDED, PRINTED, TICK, CLIENT };

static struct child {
    pid_t pid;
    int pidfd, log, out[2]; /* out: the pipe of its output */
    long restarts;
    char name[16];
} *children;
static int count, port, events, alive, stopping = -1; /* stopping: the client that waits for the end of all */
static char *program;

static void must(int good, const char *what) {
    if (!good) {
        perror(what);
        _exit(1);
    }
}

static void watch(int fd, enum kind kind, int index) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (unsigned long long)kind << 32 | (unsigned)index};
    must(!epoll_ctl(events, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void start(int index) {
    struct child *child = &children[index];
    char number[16], *arguments[] = {program, 0};
    snprintf(number, sizeof number, "%d", port + index);
    setenv("INSTANCE_NAME", child->name, 1);
    setenv("PORT", number, 1);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, child->out[1], 1);
    posix_spawn_file_actions_adddup2(&files, child->out[1], 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    errno = posix_spawn(&child->pid, program, &files, &attributes, arguments, environ);
    must(!errno, "posix_spawn");
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    child->pidfd = syscall(SYS_pidfd_open, child->pid, 0);
    watch(child->pidfd, ENDED, index);
    alive++;
}

static void make(const char *directory, int index) {
    struct child *child = &children[index];
    char path[4096];
    snprintf(child->name, sizeof child->name, "w%04d", index);
    snprintf(path, sizeof path, "%s/%s.log", directory, child->name);
    child->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    must(child->log >= 0 && !pipe2(child->out, O_CLOEXEC), "log");
    fcntl(child->out[0], F_SETFL, O_NONBLOCK);
    watch(child->out[0], PRINTED, index);
    start(index);
}

static void ended(int index) {
    struct child *child = &children[index];
    waitpid(child->pid, 0, 0);
    close(child->pidfd);
    child->pid = 0;
    alive--;
    if (stopping < 0) {
        child->restarts++;
        start(index);
    } else if (alive == 0) {
        must(write(stopping, "gone\n", 5) == 5, "answer");
        close(stopping);
    }
}

static void copy(struct child *child) {
    static char buffer[65536];
    ssize_t length = read(child->out[0], buffer, sizeof buffer);
    for (char *at = buffer; length > 0;) {
        ssize_t written = write(child->log, at, length);
        must(written > 0, "write");
        at += written, length -= written;
    }
}

/* Asks one child, and waits for its answer. Only one that takes the question and says nothing is killed. */
static void check(int index) {
    static const char question[] = "GET /health/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port + index)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval timeout = {.tv_usec = TIMEOUT_MS * 1000};
    char reply[1024];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (!connect(fd, (struct sockaddr *)&address, sizeof address) && write(fd, question, sizeof question - 1) > 0 &&
        read(fd, reply, sizeof reply) < 0 && errno == EAGAIN && children[index].pid)
        kill(children[index].pid, SIGKILL);
    close(fd);
}

static void serve(int server) {
    char asked, *text = 0;
    size_t length = 0;
    int client = accept4(server, 0, 0, SOCK_CLOEXEC);
    if (client < 0 || read(client, &asked, 1) != 1) {
        close(client);
    } else if (asked == 'q') {
        stopping = client;
        for (int i = 0; i < count; i++) kill(children[i].pid, SIGTERM);
    } else {
        FILE *answer = open_memstream(&text, &length);
        for (struct child *child = children; child < children + count; child++)
            fprintf(answer, "%s running pid %d restarts %ld\n", child->name, child->pid, child->restarts);
        fclose(answer);
        if (write(client, text, length) < 0) errno = 0; /* the client is gone */
        free(text);
        close(client);
    }
}

int main(int number, char **arguments) {
    if (number != 6) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    count = atoi(arguments[2]), port = atoi(arguments[3]), program = arguments[4];
    int interval = atoi(arguments[5]);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    children = calloc(count, sizeof *children);
    events = epoll_create1(EPOLL_CLOEXEC);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/floor.sock", arguments[1]);
    unlink(address.sun_path);
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(!bind(server, (struct sockaddr *)&address, sizeof address) && !listen(server, 64), "bind");
    watch(server, CLIENT, 0);
    for (int i = 0; i < count; i++) make(arguments[1], i);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), next = 0;
    if (interval) {
        long long each = interval * 1000000LL / count;
        struct timespec tick = {each / 1000000000, each % 1000000000};
        timerfd_settime(timer, 0, &(struct itimerspec){tick, tick}, 0);
        watch(timer, TICK, 0);
    }

    for (struct epoll_event ready[64];;) {
        int found = epoll_wait(events, ready, 64, -1);
        for (int i = 0; i < found; i++) {
            int index = (int)(unsigned)ready[i].data.u64;
            unsigned long long ticks;
            switch ((enum kind)(ready[i].data.u64 >> 32)) {
            case ENDED: ended(index); break;
            case PRINTED: copy(&children[index]); break;
            case CLIENT: serve(server); break;
            case TICK:
                if (read(timer, &ticks, sizeof ticks) > 0) check(next++ % count);
            }
        }
    }
}
