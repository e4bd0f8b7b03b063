"""One HTTPS exchange under one deadline: a checked address, TLS for the name, and no read that may wait for ever.

`http.client` reads status lines, headers, ``100 Continue``, chunk lines and trailers as long as bytes trickle in;
a socket's timeout starts anew with each of them. Here every wait ends when the deadline does, whatever is read.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from structureflow.errors import StorageError, TransientStorageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Returns the addresses of a host name.
Resolver = Callable[[str, int], Sequence[str]]
#: Tells the time in seconds, as `time.monotonic`.
Clock = Callable[[], float]

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_UNICAST6: Final = ipaddress.ip_network("2000::/3")
#: Not global in use, though Python's tables call them so: 6to4 relays (RFC 7526), documentation (RFC 9637).
_UNUSED: Final = (ipaddress.ip_network("192.88.99.0/24"), ipaddress.ip_network("3fff::/20"))


def resolve(host: str, port: int) -> Sequence[str]:
    """Return all addresses of a host name, by the system's resolver."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: Address) -> bool:
    """Tell whether an address is a public unicast one, looking into IPv6 forms that carry an IPv4 address.

    Private, loopback, link-local (so also the metadata services of clouds), shared, reserved and multicast
    ranges are not (IANA special-purpose address registries).
    """
    if any(address.version == network.version and address in network for network in _UNUSED):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST6:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class Deadline:
    """The time by which an exchange must be over.

    Args:
        seconds: from now.
        clock: tells the time.
        what: names the exchange in errors.
    """

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic, what: str) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds
        self.what = what

    def remaining_s(self, most_s: float | None = None) -> float:
        """Return the seconds left, at most `most_s`.

        Raises:
            TransientStorageError: none are left.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise TransientStorageError(f"{self.what}: not finished after {self._seconds:g} s", key=self.what)
        return left if most_s is None else min(left, most_s)


def resolve_in_time(resolver: Resolver, host: str, port: int, deadline: Deadline) -> Sequence[str]:
    """Resolve a name; a resolver that hangs is left behind.

    Raises:
        OSError: the name has no address.
        TransientStorageError: the deadline is over.
    """
    answers: list[Sequence[str]] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(resolver(host, port))
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(deadline.remaining_s())
    if errors:
        raise errors[0]
    if not answers:
        deadline.remaining_s()
        raise TransientStorageError(f"{host}: the resolver gave no answer", host=host)
    return answers[0]


class _TimedReader(io.RawIOBase):
    """Reads from a socket, each time for no longer than the deadline and the allowed silence, and not for ever."""

    def __init__(self, connected: socket.socket, deadline: Deadline, silence_s: float, most_bytes: int) -> None:
        self._socket = connected
        self._deadline = deadline
        self._silence_s = silence_s
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(self._deadline.remaining_s(self._silence_s))
        try:
            count = self._socket.recv_into(buffer)
        except OSError as error:
            self._deadline.remaining_s()
            # Typed here: whoever writes a file meanwhile would take it for a failure of the disk.
            raise TransientStorageError(f"{self._deadline.what}: no whole answer: {error}") from error
        self._left -= count
        if self._left < 0:
            raise StorageError("the server sends more than its answer may have")
        return count


class _TimedSocket:
    """What `http.client` needs of a socket."""

    def __init__(self, connected: socket.socket, deadline: Deadline, silence_s: float, most_bytes: int) -> None:
        self._socket = connected
        self._deadline = deadline
        self._silence_s = silence_s
        self._most_bytes = most_bytes

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self._deadline.remaining_s(self._silence_s))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - always "rb"
        return io.BufferedReader(_TimedReader(self._socket, self._deadline, self._silence_s, self._most_bytes))

    def close(self) -> None:
        """Do nothing: `http.client` closes before it reads the body; `PinnedConnection.hang_up` is for good."""


class PinnedConnection(http.client.HTTPSConnection):
    """Speaks to the first of some addresses that answers, and checks the certificate of the name.

    Args:
        host, port: of the URL.
        addresses: checked ones, tried in order.
        context: for TLS.
        deadline: of the whole exchange.
        connect_timeout_s: of one address.
        silence_s: of one wait for bytes.
        most_bytes: that the server may send in all, headers and all.
    """

    def __init__(
        self,
        host: str,
        port: int,
        addresses: Sequence[str],
        context: ssl.SSLContext,
        deadline: Deadline,
        *,
        connect_timeout_s: float,
        silence_s: float,
        most_bytes: int,
    ) -> None:
        super().__init__(host, port, context=context)
        self._addresses = addresses
        self._tls = context
        self._deadline = deadline
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._most_bytes = most_bytes
        self._connected: socket.socket | None = None

    def hang_up(self) -> None:
        """Close the socket."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    def connect(self) -> None:
        """Connect to the first address that does, and shake hands for the name.

        Raises:
            OSError: none does; it is the last one's error.
            TransientStorageError: the deadline is over.
        """
        failure: OSError | None = None
        for address in self._addresses:
            try:
                self._connected = self._connect(address)
            except TransientStorageError:
                raise
            except OSError as error:
                failure = error
            else:
                # It has only what `http.client` calls.
                self.sock = _TimedSocket(self._connected, self._deadline, self._silence_s, self._most_bytes)
                return
        raise failure or OSError("no address to connect to")

    def _connect(self, address: str) -> ssl.SSLSocket:
        plain = socket.create_connection((address, self.port), self._deadline.remaining_s(self._connect_timeout_s))
        try:
            # A handshake ends with the timeout as a whole.
            plain.settimeout(self._deadline.remaining_s(self._silence_s))
            # Where nothing announces a length, a connection that just drops must not look like the end.
            return self._tls.wrap_socket(plain, server_hostname=self.host, suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise
