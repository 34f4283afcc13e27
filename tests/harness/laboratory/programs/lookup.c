/* Looks names up by getaddrinfo, for A and AAAA, one after the other. The laboratory links it with musl,
   whose resolver differs from that of glibc. */

#include <netdb.h>
#include <stddef.h>
#include <sys/socket.h>

int main(int count, char **arguments)
{
	for (int at = 1; at < count; at++) {
		struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
		struct addrinfo *found;

		if (getaddrinfo(arguments[at], NULL, &hints, &found) == 0)
			freeaddrinfo(found);
	}
	return 0;
}
