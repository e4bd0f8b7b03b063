"""The doors of this machine's servers: viewer, local cloud, API and SAM's S3, by raw requests and by real clients."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from structureflow.storage.local import LocalStorage
from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings
from structureflow_local import sam_build, sam_containers
from structureflow_local.cloud import LocalCloud
from structureflow_local.cloud.signature import Key, Keyring, sign
from structureflow_local.page_server import page_server
from structureflow_local.run import bucket_of
from tests.contract.api_routes import every_route

REPO = Path(__file__).resolve().parents[2]
SCRIPT = b"<html><script>fetch('/')</script></html>"


def raw(url: str, head: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send exactly these header lines; ``PORT`` stands for the server's port."""
    address = urlsplit(url)
    text = head.replace("PORT", str(address.port)) + f"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall(text.encode() + body)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    top, _, rest = data.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, rest


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(REPO / "template.yaml") as running:
        bucket_of(running).put("jobs/mine/report.html", SCRIPT, content_type="text/html")
        yield running


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The viewer as it is served, over a folder whose job holds what should never run."""
    storage = LocalStorage(tmp_path_factory.mktemp("bucket"))
    for name in ("report.html", "x.svg", "x.xhtml", "x.xml", "x.js", "x", "x.HTML", "x.mp4", "x.json", "x.png"):
        storage.put(f"jobs/mine/{name}", SCRIPT)
    server = page_server(storage, 0)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["viewer", "cloud", "api"])
def door(request: pytest.FixtureRequest) -> str:
    """The address of each server in turn."""
    if request.param == "viewer":
        return str(request.getfixturevalue("viewer"))
    running: LocalCloud = request.getfixturevalue("cloud")
    return running.endpoint_url if request.param == "cloud" else running.api_url


FOREIGN = {
    "another name": "GET / HTTP/1.1\r\nHost: evil.example",
    "another name with this port": "GET / HTTP/1.1\r\nHost: evil.example:PORT",
    "a name that begins like ours": "GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example:PORT",
    "a name that ends like ours": "GET / HTTP/1.1\r\nHost: evil-localhost",
    "an address of the network": "GET / HTTP/1.1\r\nHost: 192.0.2.7:PORT",
    "no name": "GET / HTTP/1.1\r\nHost: ",
    "no host": "GET / HTTP/1.0",
    "two hosts": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: evil.example",
    "a user before it": "GET / HTTP/1.1\r\nHost: 127.0.0.1@evil.example",
    "another name in the target": "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:PORT",
    "another origin": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: https://evil.example",
    "another port's origin": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:1",
    "a sandboxed page": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: null",
    "a form of another site": "POST / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\n"
    "Content-Type: text/plain",
    "a preflight": "OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\n"
    "Access-Control-Request-Method: DELETE",
    "a picture in another site": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\n"
    "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image",
    "a frame in another site": "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\n"
    "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe",
    "a form that navigates": "POST / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\n"
    "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document",
}


@pytest.mark.parametrize("head", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_callers_are_refused(door: str, head: str) -> None:
    status, headers, body = raw(door, head)
    assert status == 403
    assert re.search(rb"expected (a Host of this machine|no Origin or|a request of this server)", body)
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT", "LOCALHOST", "127.0.0.1"])
def test_this_machines_names_are_let_in(door: str, cloud: LocalCloud, host: str) -> None:
    """By what stands behind the doors: the viewer's page, S3's own denial, and the API's: its page is signed too."""
    status, headers, body = raw(door, f"GET / HTTP/1.1\r\nHost: {host}")
    expected = {cloud.endpoint_url: (403, b"MissingAuthenticationToken"), cloud.api_url: (403, b"Forbidden")}
    wanted, said = expected.get(door, (200, b"page/app.js"))
    assert status == wanted
    assert said in body
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in headers


def test_a_page_of_the_viewer_may_ask_and_a_link_may_lead_there(viewer: str) -> None:
    own = "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT\r\nSec-Fetch-Site: same-origin"
    assert raw(viewer, own)[0] == 200
    link = "GET / HTTP/1.1\r\nHost: localhost:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"
    assert raw(viewer, link + "Sec-Fetch-Dest: document")[0] == 200


# --- what lies in a job's folder -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.svg", "x.xhtml", "x.xml", "x.js", "x"])
def test_what_a_browser_might_run_is_a_download(viewer: str, name: str) -> None:
    _, headers, body = raw(viewer, f"GET /objects/jobs/mine/{name} HTTP/1.1\r\nHost: localhost:PORT")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment"
    assert headers["x-content-type-options"] == "nosniff"
    assert body == SCRIPT


@pytest.mark.parametrize("name", ["report.html", "x.HTML"])
def test_a_report_is_shown_without_scripts(viewer: str, name: str) -> None:
    _, headers, body = raw(viewer, f"GET /objects/jobs/mine/{name} HTTP/1.1\r\nHost: localhost:PORT")
    rules = [rule.strip() for rule in headers["content-security-policy"].split(";")]
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in rules
    (sandbox,) = [rule for rule in rules if rule.startswith("sandbox")]
    assert "allow-scripts" not in sandbox
    assert not [rule for rule in rules if rule.startswith("script-src")]
    assert body == SCRIPT


@pytest.mark.parametrize(("name", "kind"), [("x.mp4", "video/mp4"), ("x.json", "application/json"), ("x.png", "image")])
def test_other_files_are_never_taken_for_pages(viewer: str, name: str, kind: str) -> None:
    _, headers, _ = raw(viewer, f"GET /objects/jobs/mine/{name} HTTP/1.1\r\nHost: localhost:PORT")
    assert headers["content-type"].startswith(kind)
    assert headers["x-content-type-options"] == "nosniff"


def test_a_page_in_the_local_bucket_is_shown_without_scripts(cloud: LocalCloud) -> None:
    url = bucket_of(cloud).presigned_url("jobs/mine/report.html", expires_s=60)
    with urllib.request.urlopen(url) as reply:  # noqa: S310 - loopback
        assert reply.headers["Content-Security-Policy"].startswith("sandbox ")
        assert "allow-scripts" not in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Access-Control-Allow-Origin"] is None
        assert reply.read() == SCRIPT


@pytest.mark.parametrize(
    "path",
    ["/jobs?limit=" + "9" * 5000, "/timelines/none/frames/" + "9" * 5000, "/timelines/none/frames/x", "/jobs/"],
)
def test_numbers_without_end_are_no_pages(viewer: str, path: str) -> None:
    assert raw(viewer, f"GET {path} HTTP/1.1\r\nHost: localhost:PORT")[0] in {200, 400, 404}


def test_a_range_without_end_is_the_whole_file(viewer: str) -> None:
    head = f"GET /objects/jobs/mine/x.mp4 HTTP/1.1\r\nHost: localhost:PORT\r\nRange: bytes={'9' * 5000}-"
    assert raw(viewer, head)[::2] == (200, SCRIPT)
    assert raw(viewer, head.replace("9" * 5000, "9" * 17))[0] == 416


# --- back doors ----------------------------------------------------------------------------------------


BACK_DOORS = [
    "/moto-api/reset",
    "/moto-api/reset-auth",
    "/moto-api/",
    "/moto-api/data.json",
    "/moto-api/config",
    "/%6doto-api/reset",
    "//moto-api/reset",
    "/latest/meta-data/iam",
    "/latest/api/token",
]


@pytest.mark.parametrize("path", BACK_DOORS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_motos_back_doors_are_closed(cloud: LocalCloud, method: str, path: str) -> None:
    """Also to those who sign: nothing of AWS is there."""
    url = cloud.endpoint_url + path
    signed = sign(cloud.key, method=method, url=url, service="s3", region=cloud.region)
    for headers in ({}, signed):
        connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
        connection.request(method, path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        assert status in {403, 404}
    assert bucket_of(cloud).get("jobs/mine/report.html").data == SCRIPT


def test_sams_s3_has_the_same_doors() -> None:
    """It asks for no signature, for its callers have keys of their own; all else is closed."""
    with sam_containers.local_s3() as (port, storage):
        url = f"http://127.0.0.1:{port}"
        storage.put("a.txt", b"kept")
        assert storage.get("a.txt").data == b"kept"
        for name, head in FOREIGN.items():
            assert raw(url, head)[0] == 403, name
        for path in BACK_DOORS:
            assert raw(url, f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:PORT")[0] in {403, 404}, path
        # As a function in SAM's container asks: by Docker's name for the host, with keys of its own.
        asked = f"http://host.docker.internal:{port}/{sam_containers.BUCKET}/a.txt"
        signed = sign(Key("local", "local"), method="GET", url=asked, service="s3", region=sam_build.REGION)
        lines = "".join(f"\r\n{name}: {value}" for name, value in signed.items())
        page = raw(url, f"GET /{sam_containers.BUCKET}/a.txt HTTP/1.1\r\nHost: host.docker.internal:PORT{lines}")
        assert page[::2] == (200, b"kept")
        assert not [header for header in page[1] if header.startswith("access-control")]


# --- signatures ----------------------------------------------------------------------------------------


def client(cloud: LocalCloud, key: Key, service: str = "s3", **config: Any) -> Any:
    session: Any = boto3.Session(key.access_key, key.secret, region_name=cloud.region)
    return session.client(service, endpoint_url=cloud.endpoint_url, config=Config(**config))


def test_sdk_clients_work_whatever_they_sign(cloud: LocalCloud, tmp_path: Path) -> None:
    bucket = cloud.bucket("DataBucket")
    s3 = client(cloud, cloud.key)
    for name in ("plain", "a b/c+d", "ümlaut-✓", "per%20cent", "q?a=b&c", "semi;colon", "~tilde", "star*'()!"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"x", Metadata={"a": "b  c"})
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"x"
        assert name in {item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix=name[:3])["Contents"]}
    (tmp_path / "large").write_bytes(bytes(9_000_000))
    s3.upload_file(str(tmp_path / "large"), bucket, "large")
    assert s3.head_object(Bucket=bucket, Key="large")["ContentLength"] == 9_000_000
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "large"}]})
    machine = cloud.physical_id("SegmentsStateMachine")
    assert client(cloud, cloud.key, "stepfunctions").list_executions(stateMachineArn=machine)["executions"] == []
    queue = cloud.physical_id("EventsDeadLetterQueue")
    assert "Attributes" in client(cloud, cloud.key, "sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_signed_urls_open_until_they_end(cloud: LocalCloud, version: str) -> None:
    bucket = cloud.bucket("DataBucket")
    s3 = client(cloud, cloud.key, signature_version=version, s3={"addressing_style": "path"})
    bucket_of(cloud).put("a b.txt", b"signed")
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b.txt"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as reply:  # noqa: S310 - loopback
        assert reply.read() == b"signed"
    short = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b.txt"}, ExpiresIn=1)
    time.sleep(2.1)
    for bad in (short, url.replace("a%20b.txt", "plain"), url[:-4] + "AAAA", url.split("?")[0]):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(bad)  # noqa: S310 - loopback
    put = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "up"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(put, b"", method="PUT")) as reply:  # noqa: S310 - loopback
        assert reply.status == 200


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (Key("AKIAFOREIGN", "local"), "InvalidAccessKeyId"),
        (None, "SignatureDoesNotMatch"),
    ],
)
def test_other_keys_reach_nothing(cloud: LocalCloud, key: Key | None, code: str) -> None:
    """Another program of this machine that guesses the usual key, or knows ours without its secret."""
    other = key or Key(cloud.key.access_key, "local")
    with pytest.raises(ClientError, match=code):
        client(cloud, other).put_object(Bucket=cloud.bucket("DataBucket"), Key="x", Body=b"x")
    with pytest.raises(ClientError, match=code):
        client(cloud, other, "stepfunctions").list_state_machines()
    with pytest.raises(ClientError, match=code):
        client(cloud, other, "lambda").invoke(FunctionName=cloud.physical_id("FailJobFunction"), Payload=b"{}")
    assert not bucket_of(cloud).exists("x")


def test_the_storage_port_needs_a_key_of_the_cloud(cloud: LocalCloud) -> None:
    from structureflow.errors import StorageError

    settings = S3Settings(
        endpoint_url=cloud.endpoint_url, region=cloud.region, access_key_id="local", secret_access_key="local"
    )
    with pytest.raises(StorageError):
        S3Storage(cloud.bucket("DataBucket"), settings=settings).get("jobs/mine/report.html")


ROUTES = every_route()


def ask(cloud: LocalCloud, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any]:
    connection = HTTPConnection(urlsplit(cloud.api_url).netloc, timeout=60)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    try:
        return reply.status, json.loads(data)
    except ValueError:
        return reply.status, data


@pytest.mark.parametrize("method", ["PATCH", "HEAD", "TRACE"])
def test_a_method_without_a_route_reaches_no_function(cloud: LocalCloud, method: str) -> None:
    calls = len(cloud.invocations)
    url = f"{cloud.api_url}/jobs/mine"
    signed = sign(cloud.key, method=method, url=url, service="execute-api", region=cloud.region)
    for headers in ({}, signed):
        assert ask(cloud, method, "/jobs/mine", headers)[0] == 404
    assert len(cloud.invocations) == calls


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_of_the_api_asks_for_credentials(cloud: LocalCloud, method: str, path: str) -> None:
    url = cloud.api_url + path
    signing: dict[str, Any] = {"method": method, "url": url, "service": "execute-api", "region": cloud.region}
    good = sign(cloud.key, **signing)
    calls = len(cloud.invocations)
    forged = {**good, "Authorization": good["Authorization"][:-4] + "0000"}
    refused = [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "AWS4-HMAC-SHA256 nonsense"},
        forged,
        {**good, "X-Amz-Date": "20200101T000000Z"},
        sign(Key("AKIAFOREIGN", "local"), **signing),
        sign(Key(cloud.key.access_key, "local"), **signing),
        sign(cloud.key, **{**signing, "url": f"{url}/more"}),
        sign(cloud.key, **{**signing, "method": "PATCH"}),
    ]
    for headers in refused:
        assert ask(cloud, method, path, headers) == (403, {"message": "Forbidden"}), headers
    assert len(cloud.invocations) == calls, "a function was called for somebody without credentials"
    status, body = ask(cloud, method, path, good)
    # nothing of that name is there, and no body is a request
    assert status in {200, 400, 404}
    assert body != {"message": "Forbidden"}


def request_to_check(key: Key, body: bytes) -> dict[str, Any]:
    """A signed POST as a server sees it."""
    url = "http://127.0.0.1:1/x"
    headers = sign(key, method="POST", url=url, service="execute-api", region="us-east-1", body=body)
    return {
        "REQUEST_METHOD": "POST",
        "RAW_URI": "/x",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "127.0.0.1:1",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }


def test_a_body_that_the_signature_does_not_cover_is_refused() -> None:
    keyring = Keyring()
    key = keyring.issue()
    environ = request_to_check(key, b"{}")
    assert keyring.check(environ, lambda: b"{}") == key.access_key
    with pytest.raises(PermissionError, match="not the one"):
        keyring.check(environ, lambda: b"{ }")


def test_a_signature_of_another_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = Keyring()
    environ = request_to_check(keyring.issue(), b"")
    monkeypatch.setattr("structureflow_local.cloud.signature._CLOCK_SKEW", timedelta(seconds=1))
    time.sleep(2.1)
    with pytest.raises(PermissionError, match="is not now"):
        keyring.check(environ, lambda: b"")
