"""Which URLs and addresses the source of https URLs accepts; nothing is connected to."""

from __future__ import annotations

import ipaddress

import pytest

from structureflow.errors import InputNotAllowedError, TransientStorageError
from structureflow.storage.http import HttpsSource, is_public


class _ResolvedError(Exception):
    """The URL passed all rules and its host was looked up."""


def _resolve(host: str, port: int) -> list[str]:
    raise _ResolvedError(host, port)


@pytest.mark.parametrize(
    "url",
    [
        "http://media.example.com/a.mp4",
        "ftp://media.example.com/a.mp4",
        "file:///etc/passwd",
        "https:///a.mp4",
        "https://other.example.com/a.mp4",
        "https://media.example.com.evil.com/a.mp4",
        "https://evil.com/https://media.example.com/a.mp4",
        "https://media.example.com:8443/a.mp4",
        "https://media.example.com:notaport/a.mp4",
        "https://user@media.example.com/a.mp4",
        "https://user:secret@media.example.com/a.mp4",
        "https://media.example.com@evil.com/a.mp4",
        "https://127.0.0.1/a.mp4",
        "https://[::1]/a.mp4",
        "https://2130706433/a.mp4",
        "https://media.example.com/a b.mp4",
        "https://media.example.com/a\r\nX-Header: 1",
        "https://médiа.example.com/a.mp4",
        "https://media.example.com/" + "a" * 2100,
        "https://cdn.example.org/a.mp4",
        "https://evilcdn.example.org/a.mp4",
        "",
    ],
)
def test_refused_urls(url: str) -> None:
    source = HttpsSource(["media.example.com", "*.cdn.example.org"], max_bytes=1, resolver=_resolve)
    for call in (source.get, source.head):
        with pytest.raises(InputNotAllowedError):
            call(url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://media.example.com/a.mp4", "media.example.com", 443),
        ("https://MEDIA.Example.com:443/a.mp4?x=1#part", "media.example.com", 443),
        ("https://media.example.com./a.mp4", "media.example.com", 443),
        ("https://a.cdn.example.org/a.mp4", "a.cdn.example.org", 443),
        ("https://b.a.cdn.example.org/a.mp4", "b.a.cdn.example.org", 443),
        ("https://files.example.net:8443/", "files.example.net", 8443),
    ],
)
def test_accepted_urls(url: str, host: str, port: int) -> None:
    hosts = ["Media.example.com", "*.cdn.example.org", "files.example.net:8443"]
    with pytest.raises(_ResolvedError) as caught:
        HttpsSource(hosts, max_bytes=1, resolver=_resolve).get(url)
    assert caught.value.args == (host, port)


def test_names_that_do_not_resolve_are_transient() -> None:
    def fail(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(TransientStorageError, match="no such name"):
        HttpsSource(["a.example.com"], max_bytes=1, resolver=fail).get("https://a.example.com/x")


PRIVATE = [
    "0.0.0.0",  # noqa: S104 - refused, not bound to
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "::127.0.0.1",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "52.216.1.1", "2606:4700::1111", "2a05:d018::1", "64:ff9b::808:808"])
def test_public_addresses(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))
