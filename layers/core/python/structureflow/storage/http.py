"""Read-only access to ``https://`` URLs that a request names: as little trust as will do.

Only hosts of an allow-list are asked. The name is resolved here, every address it has must be public, and the
connection goes to the very address that was checked, so an answer that changes between check and connection
(DNS rebinding) changes nothing. Redirects are refused, sizes capped, and every download has a deadline.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from structureflow.errors import (
    InputNotAllowedError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    StorageError,
    TransientStorageError,
)
from structureflow.storage._files import CHUNK_BYTES, check_if_match, check_size, slice_range, writing
from structureflow.storage.base import ByteRange, ObjectInfo, StoredObject, Suffix

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Returns the addresses of a host name.
Resolver = Callable[[str, int], Sequence[str]]

_T = TypeVar("_T")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_ATTEMPTS: Final = 2
_MAX_URL_CHARS: Final = 2048
#: What servers answer to HEAD when they, or a signed URL, know only GET.
_NO_HEAD: Final = frozenset({400, 403, 405, 501})


def resolve(host: str, port: int) -> Sequence[str]:
    """Return all addresses of a host name, by the system's resolver."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: Address) -> bool:
    """Tell whether an address is a public unicast one, looking into IPv6 forms that carry an IPv4 address.

    Private, loopback, link-local (so also the metadata services of clouds), shared, reserved and multicast
    ranges are not (IANA special-purpose address registries).
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _PinnedConnection(http.client.HTTPSConnection):
    """Speaks to one address, and checks the certificate of the name."""

    def __init__(
        self,
        host: str,
        port: int,
        address: str,
        context: ssl.SSLContext,
        connect_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        super().__init__(host, port, context=context)
        self._address = address
        self._tls = context
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    def connect(self) -> None:
        """Connect to the address, and shake hands for the name."""
        plain = socket.create_connection((self._address, self.port), self._connect_timeout_s)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise
        self.sock.settimeout(self._read_timeout_s)


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    path: str
    identity: str


class HttpsSource:
    """Reads ``https://`` URLs of allowed hosts. Keys are whole URLs.

    Args:
        hosts: allowed host names, exact; ``*.example.com`` allows every name below, ``name:8443`` another port
            than 443.
        max_bytes: largest object.
        connect_timeout_s, read_timeout_s: of one connection, and of silence on it.
        deadline_s: of one request with its body.
        resolver, allows_address, ssl_context: replaced by tests, which have no public address.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        max_bytes: int,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 20.0,
        deadline_s: float = 600.0,
        resolver: Resolver = resolve,
        allows_address: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._deadline_s = deadline_s
        self._resolver = resolver
        self._allows_address = allows_address
        self._ssl_context = ssl_context

    def head(self, key: str) -> ObjectInfo:
        """Return size and ETag of a URL.

        The ETag also depends on host and path. A server that sends neither ``ETag`` nor ``Last-Modified`` gives
        no means to see a change: the ETag is then another one each time.

        Raises:
            InputNotAllowedError: scheme, host, port or address is not allowed, or the server redirects.
            ObjectNotFoundError: the server knows no such URL.
            StorageError: it refuses, or does not tell the size.
            TransientStorageError: it cannot be reached, or fails.
        """
        target = self._target(key)

        def ask() -> ObjectInfo | None:
            with self._request("HEAD", key, target, {}) as reply:
                if reply.status in _NO_HEAD or (reply.status < 300 and _length(reply) is None):
                    return None
                self._check(key, reply)
                return _info(key, target, reply, _length(reply) or 0)

        info = self._with_retry(ask)
        return info if info is not None else self._get(key, target, ByteRange(0, 1), None).info

    def get(
        self, key: str, *, byte_range: ByteRange | Suffix | None = None, if_match: str | None = None
    ) -> StoredObject:
        """Read a URL, or a part of it, into memory.

        Raises:
            InputNotAllowedError, ObjectNotFoundError, StorageError, TransientStorageError: as `head`.
            ObjectChangedError: `if_match` is given and the object's ETag is another one.
            RangeNotSatisfiableError: the range starts at or past the end.
        """
        return self._get(key, self._target(key), byte_range, if_match)

    def get_to_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> ObjectInfo:
        """Download a URL into the file `path` with bounded memory; no partial file stays behind.

        Raises:
            InputNotAllowedError, ObjectNotFoundError, StorageError, TransientStorageError: as `head`; also
                `StorageError` when it is larger than `max_bytes`, or than this source allows.
        """
        target = self._target(key)
        cap = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)

        def read() -> ObjectInfo:
            with self._request("GET", key, target, {}) as reply:
                self._check(key, reply)
                with writing(path) as file:
                    size = 0
                    for chunk in self._body(key, reply, cap):
                        file.write(chunk)
                        size += len(chunk)
                return _info(key, target, reply, size)

        return self._with_retry(read)

    def _get(
        self, key: str, target: _Target, byte_range: ByteRange | Suffix | None, if_match: str | None
    ) -> StoredObject:
        headers = {}
        if isinstance(byte_range, ByteRange):
            headers["Range"] = f"bytes={byte_range.start}-{byte_range.stop - 1}"
        elif isinstance(byte_range, Suffix):
            headers["Range"] = f"bytes=-{byte_range.length}"

        def read() -> StoredObject:
            with self._request("GET", key, target, headers) as reply:
                self._check(key, reply)
                if reply.status == 206 and byte_range is not None:
                    start, stop, size = _content_range(key, reply)
                    info = _info(key, target, reply, size)
                    check_if_match(info, if_match)
                    check_size(key, size, self._max_bytes)
                    data = b"".join(self._body(key, reply, stop - start))
                    if (start, stop) != slice_range(info, byte_range) or len(data) != stop - start:
                        raise StorageError(f"{key}: expected {byte_range}, got bytes {start}-{stop - 1}", key=key)
                    return StoredObject(data, info, start)
                whole = b"".join(self._body(key, reply, self._max_bytes))
                info = _info(key, target, reply, len(whole))
                check_if_match(info, if_match)
                start, stop = slice_range(info, byte_range)
                return StoredObject(whole[start:stop], info, start)

        return self._with_retry(read)

    # --- what may be asked ---------------------------------------------------------------------------

    def _target(self, url: str) -> _Target:
        if len(url) > _MAX_URL_CHARS or not url.isascii() or any(ord(letter) <= 32 for letter in url):
            raise InputNotAllowedError(f"expected a URL of up to {_MAX_URL_CHARS} plain characters, got {url!r:.100}")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or 443
        except ValueError as error:
            raise InputNotAllowedError(f"expected an https:// URL, got {url!r:.200}") from error
        if parts.scheme != "https" or not host or parts.username is not None or parts.password is not None:
            raise InputNotAllowedError(f"expected https://host/path without a user name, got {url!r:.200}")
        if not any(_matches(allowed, host, port) for allowed in self._hosts):
            raise InputNotAllowedError(
                f"host {host}:{port} is not allowed; allowed: {', '.join(self._hosts) or 'none'}", host=host
            )
        path = parts.path or "/"
        identity = hashlib.sha256(f"{host}:{port}{path}".encode()).hexdigest()[:16]
        return _Target(host, port, f"{path}?{parts.query}" if parts.query else path, identity)

    def _address(self, target: _Target) -> str:
        try:
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in self._resolver(target.host, target.port)]
        except OSError as error:
            raise TransientStorageError(f"{target.host}: cannot be resolved: {error}", host=target.host) from error
        if not found:
            raise TransientStorageError(f"{target.host}: has no address", host=target.host)
        for address in found:
            if not self._allows_address(address):
                raise InputNotAllowedError(
                    f"host {target.host} has the address {address}, which is not public", host=target.host
                )
        return str(found[0])

    # --- requests ------------------------------------------------------------------------------------

    @contextmanager
    def _request(
        self, method: str, key: str, target: _Target, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request to a checked address; the connection is closed with the block."""
        connection = _PinnedConnection(
            target.host,
            target.port,
            self._address(target),
            self._ssl_context or ssl.create_default_context(),
            self._connect_timeout_s,
            self._read_timeout_s,
        )
        try:
            sent = {"Accept-Encoding": "identity", "User-Agent": "structureflow", **headers}
            connection.request(method, target.path, headers=sent)
            with connection.getresponse() as reply:
                yield reply
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, StorageError | InputNotAllowedError):
                raise
            raise TransientStorageError(f"{key:.300}: no whole answer: {error}", key=key) from error
        finally:
            connection.close()

    def _body(self, key: str, reply: http.client.HTTPResponse, cap: int) -> Iterator[bytes]:
        length = _length(reply)
        check_size(key, length or 0, cap)
        deadline = time.monotonic() + self._deadline_s
        received = 0
        # What has arrived is taken at once, however little, so that a slow sender meets the deadline.
        while chunk := reply.read1(CHUNK_BYTES):
            received += len(chunk)
            check_size(key, received, cap)
            if time.monotonic() > deadline:
                raise TransientStorageError(f"{key:.300}: not finished after {self._deadline_s:g} s", key=key)
            yield chunk
        if length is not None and received != length:
            raise TransientStorageError(f"{key:.300}: expected {length} bytes, got {received}", key=key)

    @staticmethod
    def _check(key: str, reply: http.client.HTTPResponse) -> None:
        status = reply.status
        where = f"{key:.300}"
        if 300 <= status < 400:
            raise InputNotAllowedError(f"{where}: answers with a redirect ({status}), which is not followed", key=key)
        if status in (404, 410):
            raise ObjectNotFoundError(f"{where}: no such object ({status})", key=key)
        if status == 412:
            raise ObjectChangedError(f"{where}: has changed", key=key)
        if status == 416:
            raise RangeNotSatisfiableError(f"{where}: the range starts at or past the end", key=key)
        if status in (408, 425, 429) or status >= 500:
            raise TransientStorageError(f"{where}: the server answers {status}", key=key)
        if status not in (200, 206):
            raise StorageError(f"{where}: the server answers {status}", key=key)
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise StorageError(f"{where}: expected no Content-Encoding, got one", key=key)

    @staticmethod
    def _with_retry(action: Callable[[], _T]) -> _T:
        for _ in range(_ATTEMPTS - 1):
            try:
                return action()
            except TransientStorageError:
                time.sleep(0.2)
        return action()


def _matches(allowed: str, host: str, port: int) -> bool:
    name, _, wanted_port = allowed.partition(":")
    if port != int(wanted_port or 443):
        return False
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def _length(reply: http.client.HTTPResponse) -> int | None:
    value = reply.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _info(key: str, target: _Target, reply: http.client.HTTPResponse, size: int) -> ObjectInfo:
    modified = reply.headers.get("Last-Modified", "")
    validator = reply.headers.get("ETag", "") or (modified and f"{modified} {size}") or secrets.token_hex(16)
    try:
        moment = parsedate_to_datetime(modified)
    except ValueError:
        moment = None
    digest = hashlib.sha256(f"{target.identity} {validator}".encode()).hexdigest()[:32]
    return ObjectInfo(key, size, digest, moment)


def _content_range(key: str, reply: http.client.HTTPResponse) -> tuple[int, int, int]:
    """Return (start, stop, size) of ``bytes 0-9/100``, half-open."""
    value = reply.headers.get("Content-Range", "")
    try:
        span, size = value.removeprefix("bytes ").split("/")
        first, last = span.split("-")
        return int(first), int(last) + 1, int(size)
    except ValueError as error:
        raise StorageError(f"{key:.300}: expected a Content-Range like 'bytes 0-9/100', got {value!r:.80}") from error
