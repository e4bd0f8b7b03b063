"""The HTTP API of the local cloud: routes, payload format 2.0, and every kind of answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import Any

import pytest

from structureflow_local.cloud import LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(FIXTURE / "template.yaml") as running:
        yield running


def request(
    cloud: LocalCloud, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, HTTPMessage, bytes]:
    """Send one request to the API."""
    connection = HTTPConnection(cloud.api_url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def event(cloud: LocalCloud, method: str, path: str, body: bytes | None = None, **headers: str) -> dict[str, Any]:
    """Send a request and return the event that the function got."""
    status, _, reply = request(cloud, method, path, body, **headers)
    assert status == 200
    seen: dict[str, Any] = json.loads(reply)
    return seen


def test_the_function_gets_payload_format_2(cloud: LocalCloud) -> None:
    got = event(cloud, "GET", "/things/a%20b?x=1&x=2&y=", X_Mine="yes", Cookie="one=1; two=2")
    assert (got["version"], got["routeKey"]) == ("2.0", "GET /things/{thing_id}")
    assert got["pathParameters"] == {"thing_id": "a b"}
    assert (got["rawPath"], got["rawQueryString"]) == ("/things/a b", "x=1&x=2&y=")
    assert got["queryStringParameters"] == {"x": "1,2", "y": ""}
    assert (got["headers"]["x-mine"], got["cookies"]) == ("yes", ["one=1", "two=2"])
    assert got["requestContext"]["http"]["method"] == "GET"
    assert got["requestContext"]["stage"] == "$default"
    assert "body" not in got


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/things/mine", "GET /things/mine"),
        ("GET", "/things/other", "GET /things/{thing_id}"),
        ("POST", "/things/a/files/b/c.txt", "ANY /things/{thing_id}/files/{path+}"),
    ],
)
def test_the_most_specific_route_wins(cloud: LocalCloud, method: str, path: str, key: str) -> None:
    assert event(cloud, method, path)["routeKey"] == key


def test_bodies_are_text_or_base64_by_their_type(cloud: LocalCloud) -> None:
    text = event(cloud, "POST", "/things/a/files/b", b'{"a": "\xc3\xa9"}', Content_Type="application/json")
    assert (text["body"], text["isBase64Encoded"]) == ('{"a": "é"}', False)
    binary = event(cloud, "PUT", "/things/a/files/b", b"\xff\x00", Content_Type="image/jpeg")
    assert (binary["body"], binary["isBase64Encoded"]) == ("/wA=", True)


def test_a_full_answer_keeps_status_headers_cookies_and_body(cloud: LocalCloud) -> None:
    status, headers, body = request(cloud, "GET", "/things/gone")
    assert (status, headers["X-Why"], body) == (404, "gone", b"no such thing")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_a_base64_answer_arrives_as_bytes(cloud: LocalCloud) -> None:
    status, headers, body = request(cloud, "GET", "/things/picture")
    assert (status, headers["Content-Type"], body) == (200, "image/png", b"\x89PNG\xff")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "Not Found"),
        ("DELETE", "/things/a", 404, "Not Found"),
        ("GET", "/things/broken", 500, "Internal Server Error"),
    ],
)
def test_errors_say_as_little_as_the_gateway_does(
    cloud: LocalCloud, method: str, path: str, status: int, message: str
) -> None:
    got, _, body = request(cloud, method, path)
    assert (got, json.loads(body)) == (status, {"message": message})
