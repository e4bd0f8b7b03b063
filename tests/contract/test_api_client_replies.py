"""The API's client, and a server that answers as no API of ours does: a typed error, and no file of this machine."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import structureflow as sf
from structureflow import errors


class _Answers(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes, and hangs up."""

    daemon_threads = True
    answer = b""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        assert isinstance(self.server, _Answers)
        self.wfile.write(self.server.answer)


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], sf.ApiClient]]:
    server = _Answers(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def client(answer: bytes) -> sf.ApiClient:
        server.answer = answer
        return sf.ApiClient(f"http://127.0.0.1:{server.server_address[1]}", timeout_s=5)

    yield client
    server.shutdown()
    server.server_close()
    thread.join()


def reply(body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (size, body)


@pytest.mark.parametrize(
    "answer",
    [b"", b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 two hundred\r\n\r\n", reply(b"{", length=100)],
    ids=["nothing", "another protocol", "no status", "half of it"],
)
def test_what_is_no_whole_answer_is_no_answer(answering: Callable[[bytes], sf.ApiClient], answer: bytes) -> None:
    with pytest.raises(errors.ApiUnreachableError, match=r"GET http://127\.0\.0\.1"):
        answering(answer).about()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"\xff"])
def test_what_is_no_reply_of_ours_is_said(answering: Callable[[bytes], sf.ApiClient], body: bytes) -> None:
    with pytest.raises(errors.ApiReplyError, match="expected About"):
        answering(reply(body)).about()


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/x", "FILE:/etc/hosts"])
def test_a_ticket_names_no_file_of_this_machine(
    answering: Callable[[bytes], sf.ApiClient], tmp_path: Path, url: str
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")
    ticket = {"key": "inputs/t1/a.png", "url": url, "method": "PUT", "headers": {}, "expires_s": 60}
    client = answering(reply(json.dumps(ticket).encode()))
    with pytest.raises(errors.InvalidRequestError, match="url: expected one that begins with http"):
        client.upload("t1", picture)
    with pytest.raises(errors.InvalidRequestError, match="url: expected one that begins with http"):
        client.fetch(url)
