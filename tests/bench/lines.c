/* lines NAME LINES BYTES FILE...: whether the files, one after the other, are exactly what child.c printed: each line
 * whole, none missing, none twice, in order. Prints four numbers: whole lines, missing, torn, out of order. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGITS 10

static const char *name;
static size_t bytes;
static long long whole, torn, reordered, last = -1;

static void look(const char *line, size_t length, const char *payload) {
    size_t head = strlen(name) + 1 + DIGITS + 1;
    if (length != bytes || memcmp(line, name, strlen(name)) || memcmp(line + head, payload, bytes - head)) {
        torn++;
        return;
    }
    long long number = strtoll(line + strlen(name), 0, 10);
    whole++;
    if (number <= last) reordered++;
    last = number;
}

int main(int count, char **arguments) {
    if (count < 4) return 2;
    name = arguments[1], bytes = atol(arguments[3]);
    long long wanted = atoll(arguments[2]);
    size_t room = 4 << 20, have = 0;
    char *buffer = malloc(room), *payload = malloc(bytes), *end;
    memset(payload, 'x', bytes);
    payload[bytes - (strlen(name) + 1 + DIGITS + 1) - 1] = '\n';
    for (int i = 4; i < count; i++) {
        int file = open(arguments[i], O_RDONLY);
        if (file < 0) return 1;
        for (ssize_t length; (length = read(file, buffer + have, room - have)) > 0;) {
            char *line = buffer, *stop = buffer + have + length;
            for (; (end = memchr(line, '\n', stop - line)); line = end + 1) look(line, end + 1 - line, payload);
            have = stop - line;
            memmove(buffer, line, have);
            if (have == room) have = 0, torn++; /* no line is that long */
        }
        close(file);
    }
    torn += have > 0;
    printf("%lld %lld %lld %lld\n", whole, wanted - (whole - reordered), torn, reordered);
    return 0;
}
