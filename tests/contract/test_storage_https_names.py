"""Names and addresses that an HTTPS source does not follow."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from structureflow.errors import InputNotAllowedError
from structureflow.storage.http import HttpsSource, is_public
from structureflow.testing.tls import HOST, certificate
from tests.contract.hostile import OK, Hostile, Script, source, url


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def serve(pem: Path) -> Iterator[Callable[..., Hostile]]:
    servers: list[Hostile] = []

    def start(script: Script, **options: object) -> Hostile:
        servers.append(Hostile(pem, script, **options))  # type: ignore[arg-type]
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _read(reading: HttpsSource, method: str, asked: str, folder: Path) -> object:
    return reading.get_to_file(asked, folder / "x") if method == "get_to_file" else getattr(reading, method)(asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["get", "get_to_file", "head"])
def test_redirects_lead_nowhere(
    serve: Callable[..., Hostile], pem: Path, tmp_path: Path, status: int, method: str
) -> None:
    inside = serve(lambda secure, _: secure.sendall(OK + b"Content-Length: 6\r\n\r\nsecret"))

    def script(secure: ssl.SSLSocket, _: bytes) -> None:
        secure.sendall(
            b"HTTP/1.1 %d Elsewhere\r\nLocation: https://%s:%d/\r\nContent-Length: 0\r\n\r\n"
            % (status, HOST.encode(), inside.port)
        )

    server = serve(script)
    with pytest.raises(InputNotAllowedError, match="redirect"):
        _read(source(server, pem), method, url(server), tmp_path)
    assert inside.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:a9fe:a9fe",
        "169.254.169.254",
        "10.0.0.1",
        "fe80::1%lo",
        "0.0.0.0",  # noqa: S104 - refused, not bound to
    ],
)
def test_names_that_resolve_to_inner_addresses_are_refused_before_connecting(
    serve: Callable[..., Hostile], pem: Path, address: str
) -> None:
    server = serve(lambda secure, _: secure.sendall(OK + b"Content-Length: 6\r\n\r\nsecret"))
    reading = HttpsSource(
        [f"{HOST}:{server.port}"],
        max_bytes=1000,
        resolver=lambda host, port: ["93.184.215.14", address],  # noqa: ARG005 - the resolver's signature
        ssl_context=ssl.create_default_context(cafile=str(pem)),
    )
    with pytest.raises(InputNotAllowedError, match="not public"):
        reading.get(url(server))
    assert server.asked == []


def _good(secure: ssl.SSLSocket, _: bytes) -> None:
    secure.sendall(OK + b"Content-Length: 4\r\n\r\ngood")


def test_every_address_of_a_host_is_tried(serve: Callable[..., Hostile], pem: Path) -> None:
    """Nobody listens at the first two."""
    server = serve(_good, address="127.0.0.4")
    addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    reading = source(server, pem, resolver=lambda host, port: addresses, deadline_s=10.0)  # noqa: ARG005 - signature
    assert reading.get(url(server)).data == b"good"


def test_an_address_that_answers_and_breaks_off_does_not_hide_the_next(
    serve: Callable[..., Hostile], pem: Path
) -> None:
    good = serve(_good, address="127.0.0.3")
    bad = serve(lambda secure, _: secure.close(), address="127.0.0.2", port=good.port)
    addresses = ["127.0.0.2", "127.0.0.3"]
    reading = source(good, pem, resolver=lambda host, port: addresses, deadline_s=10.0)  # noqa: ARG005 - signature
    assert reading.get(url(good)).data == b"good"
    assert (len(bad.asked), len(good.asked)) == (1, 1)


def test_an_address_without_a_trusted_certificate_is_passed_over(
    serve: Callable[..., Hostile], pem: Path, tmp_path: Path
) -> None:
    good = serve(_good, address="127.0.0.3")
    stranger = Hostile(certificate(tmp_path), _good, address="127.0.0.2", port=good.port)
    try:
        reading = source(good, pem, resolver=lambda host, port: ["127.0.0.2", "127.0.0.3"], deadline_s=10.0)  # noqa: ARG005 - signature
        assert reading.get(url(good)).data == b"good"
        assert stranger.asked == []
    finally:
        stranger.close()


def test_the_checks_know_every_form_of_an_inner_address() -> None:
    for text in ("::ffff:7f00:1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "192.88.99.1"):
        assert not is_public(ipaddress.ip_address(text)), text
