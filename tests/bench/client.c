/* The least that a command can be: `client SOCKET WORD` sends the first letter of WORD and prints the answer. */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int number, char **arguments) {
    if (number != 3) return 2;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", arguments[1]);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(server, (struct sockaddr *)&address, sizeof address) || write(server, arguments[2], 1) != 1) return 1;
    char buffer[65536];
    ssize_t length, total = 0;
    while ((length = read(server, buffer, sizeof buffer)) > 0) {
        if (write(1, buffer, length) != length) return 1;
        total += length;
    }
    return total == 0;
}
