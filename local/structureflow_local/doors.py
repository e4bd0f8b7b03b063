"""Who may knock: the servers of this machine answer nobody but programs and pages of this machine.

A page on the web can send requests to loopback, by its own name made to point there (DNS rebinding) or across
origins; a browser then says so in ``Host``, ``Origin`` and ``Sec-Fetch-Site`` (Fetch Standard; Fetch Metadata Request
Headers). SDKs send neither of the last two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

from structureflow.limits import MAX_DIGITS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Names that lead to this machine alone, whatever a name server says (RFC 6761, section 6.3).
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: By which containers reach their host; ``.internal`` is no public domain.
DOCKER_HOST: Final = "host.docker.internal"
#: Of stored objects: a page among them shows, with its pictures and videos, but nothing in it runs.
OBJECT_POLICY: Final = "sandbox allow-same-origin allow-downloads"

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(?::[0-9]{1,5})?")


class Doors:
    """A WSGI application that refuses foreign callers before `app` sees them, and says how its answers are to be taken.

    Args:
        app: what is behind the door.
        hosts: names and addresses beside those of loopback by which it may be called, without ports.
        policy: its Content-Security-Policy, where an answer has none of its own.
        subdomains: whether ``anything.localhost`` is one of its names too, as S3's virtual-host addressing has it.
        origins: of pages that may knock too; `app` tells their browsers so (CORS).
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        hosts: Collection[str] = (),
        policy: str,
        subdomains: bool = False,
        origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}
        self._subdomains = subdomains
        self._headers = {
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request: 403 to a foreign one."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            may = environ.get("HTTP_ORIGIN") in self._origins
            given = [(name, value) for name, value in headers if may or not name.lower().startswith("access-control-")]
            names = {name.lower() for name, _ in given}
            given += [(name, value) for name, value in self._headers.items() if name.lower() not in names]
            return start_response(status, given, exc_info)

        refusal = self._refusal(environ)
        if refusal is None:
            return self._app(environ, start)
        body = f"{refusal}\n".encode()
        # The request's body stays unread, so nothing else can come over this connection.
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start("403 Forbidden", [*headers, ("Connection", "close")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _refusal(self, environ: WSGIEnvironment) -> str | None:
        host = str(environ.get("HTTP_HOST", "")).lower()
        match = _HOST.fullmatch(host)
        if match is None or not self._is_ours(match[1]):
            return f"expected a Host of this machine, got {host!r:.80}"
        origin = environ.get("HTTP_ORIGIN")
        if origin in self._origins:
            return None
        if origin is not None and origin.lower() != f"{environ['wsgi.url_scheme']}://{host}":
            return f"expected no Origin or this server's own, got {origin!r:.80}"
        site = environ.get("HTTP_SEC_FETCH_SITE", "none").lower()
        if site not in {"none", "same-origin"} and not _follows_a_link(environ):
            return f"expected a request of this server's own pages, got Sec-Fetch-Site {site!r:.80}"
        return None

    def _is_ours(self, name: str) -> bool:
        return name in self._hosts or (self._subdomains and name.endswith(".localhost"))


def _follows_a_link(environ: WSGIEnvironment) -> bool:
    """Tell whether a person opens a page from elsewhere: its content stays out of that page's reach."""
    return (
        environ["REQUEST_METHOD"] in {"GET", "HEAD"}
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    )


def content_length(environ: WSGIEnvironment) -> int:
    """Return how many bytes a request's body says that it has; 0 where it says nothing, or nothing sensible."""
    text = str(environ.get("CONTENT_LENGTH") or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0
