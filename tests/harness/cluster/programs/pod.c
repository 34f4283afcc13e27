/* The program of pods: a process that waits, and a DNS client.
 *
 *   pod pause                              waits for SIGTERM, and reaps orphans
 *   pod query NAME COUNT INTERVAL [SERVER] sends queries for A of q0.NAME, q1.NAME, ..., one after the other,
 *                                          INTERVAL milliseconds after the last answer. Without SERVER, to
 *                                          the first one of /etc/resolv.conf
 *
 * It is static, and starts in a millisecond: its first query is as early as any in a pod's life.
 * Exit code of `query`: 0 if all queries were answered, 1 if not.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void quit(int signal) { (void)signal; _exit(0); }

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
}

static void wait_for_ever(void) {
    signal(SIGINT, quit);
    signal(SIGTERM, quit);
    signal(SIGCHLD, reap);
    for (;;) pause();
}

static int first_server(char *server, size_t size) {
    char line[256], address[64];
    FILE *file = fopen("/etc/resolv.conf", "r");
    if (!file) return -1;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "nameserver %63s", address) == 1) {
            snprintf(server, size, "%s", address);
            fclose(file);
            return 0;
        }
    }
    fclose(file);
    return -1;
}

/* Writes the query, and returns its length. */
static size_t encode(unsigned char *out, unsigned id, const char *name) {
    unsigned char *at = out + 12;
    memset(out, 0, 12);
    out[0] = id >> 8;
    out[1] = id & 0xff;
    out[2] = 1; /* recursion desired */
    out[5] = 1; /* one question */
    while (*name) {
        size_t length = strcspn(name, ".");
        *at++ = (unsigned char)length;
        memcpy(at, name, length);
        at += length;
        name += length;
        if (*name == '.') name++;
    }
    memcpy(at, "\0\0\1\0\1", 5); /* root, A, IN */
    return (size_t)(at + 5 - out);
}

static int exchange(const struct sockaddr_in *server, unsigned id, const char *name) {
    unsigned char query[512], answer[4096];
    struct timeval patience = {.tv_sec = 5};
    size_t length = encode(query, id, name);
    int answered = 0, handle = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(handle, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(handle, (const struct sockaddr *)server, sizeof *server) == 0 &&
        send(handle, query, length, 0) == (ssize_t)length) {
        ssize_t received = recv(handle, answer, sizeof answer, 0);
        answered = received >= 12 && answer[0] == query[0] && answer[1] == query[1];
    }
    close(handle);
    return answered;
}

static int query(const char *suffix, int count, int interval_ms, const char *named) {
    char address[64], name[256];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
    int answered = 0;
    if (named) snprintf(address, sizeof address, "%s", named);
    else if (first_server(address, sizeof address) < 0) return 2;
    if (inet_pton(AF_INET, address, &server.sin_addr) != 1) return 2;
    for (int number = 0; number < count; number++) {
        snprintf(name, sizeof name, "q%d.%s", number, suffix);
        answered += exchange(&server, 1000 + number, name);
        usleep(interval_ms * 1000);
    }
    printf("%d of %d answered by %s\n", answered, count, address);
    return answered == count ? 0 : 1;
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "pause")) wait_for_ever();
    if (count >= 5 && !strcmp(words[1], "query"))
        return query(words[2], atoi(words[3]), atoi(words[4]), count > 5 ? words[5] : NULL);
    fprintf(stderr, "usage: pod pause | pod query NAME COUNT INTERVAL [SERVER]\n");
    return 2;
}
