"""The command ``viewer``: the web page over a store, on the loopback address, until it is interrupted."""

from __future__ import annotations

from structureflow.storage.base import Storage
from structureflow_local.output import Output
from structureflow_local.page_server import page_server


def serve_viewer(storage: Storage, *, port: int, output: Output) -> None:
    """Serve the page on the loopback address until the process is interrupted; port 0 takes a free one."""
    server = page_server(storage, port)
    url = f"http://127.0.0.1:{server.server_port}/"
    output.give(url=url)
    output.say(f"{url}  (until Ctrl-C)")
    output.finish()
    try:
        server.serve_forever()
    finally:
        server.server_close()
