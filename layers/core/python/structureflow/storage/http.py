"""Read-only access to ``https://`` URLs that a request names: as little trust as will do.

Only hosts of an allow-list are asked. The name is resolved here, every address it has must be public, and the
connection goes to the very addresses that were checked, so an answer that changes between check and connection
(DNS rebinding) changes nothing. Redirects are refused, sizes capped, and one deadline covers everything from the
look-up of the name to the last byte. The query of a URL may be a signature: nothing here shows it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from structureflow.errors import (
    InputNotAllowedError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from structureflow.limits import MAX_REFERENCE_CHARS
from structureflow.references import without_queries
from structureflow.storage._https_wire import (
    Address,
    Clock,
    Deadline,
    PinnedConnection,
    Resolver,
    is_public,
    resolve,
    resolve_in_time,
)
from structureflow.storage.adapters import CHUNK_BYTES, check_if_match, check_size, etag_checksums, writing
from structureflow.storage.base import Checksum, ObjectInfo, StoredObject

__all__ = ["Address", "HttpsSource", "is_public"]

_T = TypeVar("_T")
_ATTEMPTS: Final = 2
_PAUSE_S: Final = 0.2
#: What a server may send beside the body: headers, chunk lines, trailers.
_OVERHEAD_BYTES: Final = 4 << 20
#: What servers answer to HEAD when they, or a signed URL, know only GET.
_NO_HEAD: Final = frozenset({400, 403, 405, 501})


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    path: str
    identity: str
    shown: str


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One call: whom it is about, where to ask, and until when."""

    target: _Target
    addresses: Sequence[str]
    deadline: Deadline
    cap: int


class HttpsSource:
    """Reads ``https://`` URLs of allowed hosts. Keys are whole URLs.

    Args:
        hosts: allowed host names, exact; ``*.example.com`` allows every name below, ``name:8443`` another port
            than 443.
        max_bytes: largest object.
        connect_timeout_s, read_timeout_s: of one connection, and of silence on it.
        deadline_s: of one call, from the look-up of the name to the last byte, with all its tries.
        clock, sleep, resolver, allows_address, ssl_context: replaced by tests, which have no public address.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        max_bytes: int,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 20.0,
        deadline_s: float = 600.0,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        resolver: Resolver = resolve,
        allows_address: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._deadline_s = deadline_s
        self._clock = clock
        self._sleep = sleep
        self._resolver = resolver
        self._allows_address = allows_address
        self._ssl_context = ssl_context

    def head(self, key: str) -> ObjectInfo:
        """Return size and ETag of a URL.

        The ETag also depends on host and path, not on the query. Where HEAD is not answered, GET is, and its body is
        left unread unless its length can be had no other way; it is then counted, not kept.

        Raises:
            InputNotAllowedError: scheme, host, port or address is not allowed, or the server redirects.
            ObjectNotFoundError: the server knows no such URL.
            StorageError: it refuses, sends more than allowed, or gives neither ``ETag`` nor ``Last-Modified``, so
                that the bytes could change unseen.
            TransientStorageError: it cannot be reached, fails, or is too slow.
        """

        def ask(exchange: _Exchange) -> ObjectInfo:
            with self._request("HEAD", exchange) as reply:
                length = _length(reply)
                if reply.status not in _NO_HEAD and (reply.status >= 300 or length is not None):
                    _check(exchange.target, reply)
                    return _info(exchange.target, reply, length or 0)
            with self._request("GET", exchange) as reply:
                _check(exchange.target, reply)
                length = _length(reply)
                if length is None:
                    length = sum(len(chunk) for chunk in self._body(exchange, reply))
                return _info(exchange.target, reply, length)

        return self._call(key, self._max_bytes, ask)

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> StoredObject:
        """Read a URL into memory.

        Raises:
            InputNotAllowedError, ObjectNotFoundError, StorageError, TransientStorageError: as `head`; also
                `StorageError` when it is larger than `max_bytes`, or than this source allows.
            ObjectChangedError: `if_match` is given and the object's ETag is another one.
        """

        def read(exchange: _Exchange) -> StoredObject:
            with self._request("GET", exchange) as reply:
                self._begin(exchange, reply, if_match)
                data = b"".join(self._body(exchange, reply))
                return StoredObject(data, _end(exchange, reply, len(data), if_match))

        return self._call(key, self._cap(max_bytes), read)

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        """Download a URL into the file `path` with bounded memory; no partial file stays behind. Errors as `get`."""

        def read(exchange: _Exchange) -> ObjectInfo:
            with self._request("GET", exchange) as reply:
                self._begin(exchange, reply, if_match)
                with writing(path) as file:
                    size = 0
                    for chunk in self._body(exchange, reply):
                        file.write(chunk)
                        size += len(chunk)
                    return _end(exchange, reply, size, if_match)

        return self._call(key, self._cap(max_bytes), read)

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        """Return the checksums that came with the bytes."""
        return info.checksums

    def _cap(self, max_bytes: int | None) -> int:
        return self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)

    # --- what may be asked ---------------------------------------------------------------------------

    def _target(self, url: str) -> _Target:
        shown = without_queries(url)
        if len(url) > MAX_REFERENCE_CHARS or not url.isascii() or any(ord(letter) <= 32 for letter in url):
            raise InputNotAllowedError(
                f"expected a URL of up to {MAX_REFERENCE_CHARS} plain characters, got {shown!r:.100}"
            )
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or 443
        except ValueError as error:
            raise InputNotAllowedError(f"expected an https:// URL, got {shown!r:.200}") from error
        if parts.scheme != "https" or not host or parts.username is not None or parts.password is not None:
            raise InputNotAllowedError(f"expected https://host/path without a user name, got {shown!r:.200}")
        if not any(_matches(allowed, host, port) for allowed in self._hosts):
            raise InputNotAllowedError(
                f"host {host}:{port} is not allowed; allowed: {', '.join(self._hosts) or 'none'}", host=host
            )
        path = parts.path or "/"
        identity = hashlib.sha256(f"{host}:{port}{path}".encode()).hexdigest()[:16]
        return _Target(host, port, f"{path}?{parts.query}" if parts.query else path, identity, f"{shown:.300}")

    def _addresses(self, target: _Target, deadline: Deadline) -> Sequence[str]:
        try:
            texts = resolve_in_time(self._resolver, target.host, target.port, deadline)
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
        except TransientStorageError:
            raise
        except OSError as error:
            raise TransientStorageError(f"{target.host}: cannot be resolved: {error}", host=target.host) from error
        if not found:
            raise TransientStorageError(f"{target.host}: has no address", host=target.host)
        for address in found:
            if not self._allows_address(address):
                raise InputNotAllowedError(
                    f"host {target.host} has the address {address}, which is not public", host=target.host
                )
        return [str(address) for address in dict.fromkeys(found)]

    # --- requests ------------------------------------------------------------------------------------

    def _call(self, url: str, cap: int, action: Callable[[_Exchange], _T]) -> _T:
        """Look the name up once, check every address, and try the action twice, all under one deadline."""
        target = self._target(url)
        deadline = Deadline(self._deadline_s, clock=self._clock, what=target.shown)
        addresses = self._addresses(target, deadline)
        for _ in range(_ATTEMPTS - 1):
            try:
                return action(_Exchange(target, addresses, deadline, cap))
            except TransientStorageError:
                self._sleep(deadline.remaining_s(_PAUSE_S))
                # One that answers and breaks off must not hide the others.
                addresses = [*addresses[1:], *addresses[:1]]
        return action(_Exchange(target, addresses, deadline, cap))

    @contextmanager
    def _request(self, method: str, exchange: _Exchange) -> Iterator[http.client.HTTPResponse]:
        """Send one request; the connection is closed with the block."""
        target = exchange.target
        connection = PinnedConnection(
            target.host,
            target.port,
            exchange.addresses,
            self._ssl_context or ssl.create_default_context(),
            exchange.deadline,
            connect_timeout_s=self._connect_timeout_s,
            silence_s=self._read_timeout_s,
            most_bytes=exchange.cap + _OVERHEAD_BYTES,
        )
        try:
            connection.request(
                method, target.path, headers={"Accept-Encoding": "identity", "User-Agent": "structureflow"}
            )
            with connection.getresponse() as reply:
                yield reply
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, StorageError | InputNotAllowedError):
                raise
            raise TransientStorageError(f"{target.shown}: no whole answer: {error}", key=target.shown) from error
        finally:
            connection.close()
            connection.hang_up()

    def _begin(self, exchange: _Exchange, reply: http.client.HTTPResponse, if_match: str | None) -> None:
        """Look at the head of an answer, before its body is read."""
        _check(exchange.target, reply)
        length = _length(reply)
        # An ETag made of a time knows the size too, which a chunked answer tells at its end.
        if reply.headers.get("ETag") or length is not None:
            check_if_match(_info(exchange.target, reply, length or 0), if_match)

    @staticmethod
    def _body(exchange: _Exchange, reply: http.client.HTTPResponse) -> Iterator[bytes]:
        shown = exchange.target.shown
        length = _length(reply)
        check_size(shown, length or 0, exchange.cap)
        received = 0
        while chunk := reply.read1(CHUNK_BYTES):
            received += len(chunk)
            check_size(shown, received, exchange.cap)
            yield chunk
        if length is not None and received != length:
            raise TransientStorageError(f"{shown}: expected {length} bytes, got {received}", key=shown)


def _end(exchange: _Exchange, reply: http.client.HTTPResponse, size: int, if_match: str | None) -> ObjectInfo:
    info = _info(exchange.target, reply, size)
    check_if_match(info, if_match)
    return info


def _check(target: _Target, reply: http.client.HTTPResponse) -> None:
    status, where = reply.status, target.shown
    if 300 <= status < 400:
        raise InputNotAllowedError(f"{where}: answers with a redirect ({status}), which is not followed", key=where)
    if status in (404, 410):
        raise ObjectNotFoundError(f"{where}: no such object ({status})", key=where)
    if status == 412:
        raise ObjectChangedError(f"{where}: has changed", key=where)
    if status in (408, 425, 429) or status >= 500:
        raise TransientStorageError(f"{where}: the server answers {status}", key=where)
    if status != 200:
        raise StorageError(f"{where}: the server answers {status}", key=where)
    if reply.headers.get("Content-Encoding", "identity") != "identity":
        raise StorageError(f"{where}: expected no Content-Encoding, got one", key=where)


def _matches(allowed: str, host: str, port: int) -> bool:
    name, _, wanted_port = allowed.partition(":")
    if port != int(wanted_port or 443):
        return False
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def _length(reply: http.client.HTTPResponse) -> int | None:
    value = reply.headers.get("Content-Length")
    if value is None or reply.chunked:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise StorageError(f"expected a Content-Length in bytes, got {value!r:.60}")
    return int(value)


def _info(target: _Target, reply: http.client.HTTPResponse, size: int) -> ObjectInfo:
    modified = reply.headers.get("Last-Modified", "")
    etag = reply.headers.get("ETag", "")
    validator = etag or (modified and f"{modified} {size}")
    if not validator:
        raise StorageError(
            f"{target.shown}: expected an ETag or Last-Modified, got neither: its bytes could change unseen",
            key=target.shown,
            missing="ETag",
        )
    try:
        moment = parsedate_to_datetime(modified)
    except ValueError:
        moment = None
    digest = hashlib.sha256(f"{target.identity} {validator}".encode()).hexdigest()[:32]
    checksums = (*_checksums(reply), *etag_checksums(etag.strip('"')))
    return ObjectInfo(target.shown, size, digest, moment, checksums)


def _checksums(reply: http.client.HTTPResponse) -> Iterator[Checksum]:
    """Yield what the server says of the bytes: ``Repr-Digest`` (RFC 9530), Google's and the older ``Content-MD5``.

    What is no base64 of the right length is no checksum of ours.
    """
    for field in reply.headers.get("Repr-Digest", "").split(","):
        name, _, value = field.strip().partition("=")
        if name == "sha-256":
            yield from _checksum("sha256", value.strip(":"))
    for field in ",".join(reply.headers.get_all("X-Goog-Hash", [])).split(","):
        name, _, value = field.strip().partition("=")
        if name == "md5":
            yield from _checksum("md5", value)
    yield from _checksum("md5", reply.headers.get("Content-MD5", ""))


def _checksum(algorithm: Literal["md5", "sha256"], value: str) -> Iterator[Checksum]:
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        return
    if len(digest) == {"md5": 16, "sha256": 32}[algorithm]:
        yield Checksum(algorithm, digest.hex())
