"""Who signed a request: the keys that a local cloud hands out, and AWS's signatures made with them.

Signatures are computed by botocore's own signers, the same that clients use, over what arrived.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from structureflow.errors import StructureFlowError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: How far the clocks of the two sides may differ (Signature Version 4, "Elements of a request signature").
_CLOCK_SKEW: Final = timedelta(minutes=15)
_DATE: Final = "%Y%m%dT%H%M%SZ"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class SignatureError(StructureFlowError, PermissionError):
    """A request is not signed, or not with a key of this cloud; `aws_code` is AWS's name for how."""

    def __init__(self, aws_code: str, message: str) -> None:
        super().__init__(message, aws_code=aws_code)
        self.aws_code = aws_code


@dataclass(frozen=True, slots=True)
class Key:
    """An access key and its secret."""

    access_key: str
    secret: str


class Keyring:
    """Hands keys out, and remembers them; nobody who was given none can sign."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self._lock = threading.Lock()

    def issue(self) -> Key:
        """Return a new key, of the form of a session's."""
        key = Key(f"ASIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
        with self._lock:
            self._secrets[key.access_key] = key.secret
        return key

    def check(self, environ: WSGIEnvironment, body: Callable[[], bytes]) -> str:
        """Return the access key that signed a request.

        Args:
            environ: of WSGI, with the ``RAW_URI`` that werkzeug keeps.
            body: reads the request's body, and leaves it to be read again; called where the signature covers it.

        Raises:
            SignatureError: no signature, an unknown key, another signature than the key makes, or an expired one.
        """
        query = dict(parse_qsl(urlsplit(_uri(environ)).query, keep_blank_values=True))
        authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
        if authorization.startswith(_ALGORITHM):
            return self._check_header(environ, authorization, body)
        if "X-Amz-Signature" in query:
            return self._check_query(environ, query)
        if "AWSAccessKeyId" in query and "Signature" in query:
            return self._check_old_query(environ, query)
        raise SignatureError("MissingAuthenticationToken", "expected a request signed with Signature Version 4")

    def _secret(self, access_key: str) -> str:
        secret = self._secrets.get(access_key)
        if secret is None:
            raise SignatureError("InvalidAccessKeyId", f"this cloud has no access key {access_key!r:.40}")
        return secret

    def _check_header(self, environ: WSGIEnvironment, authorization: str, body: Callable[[], bytes]) -> str:
        fields = dict(
            part.strip().partition("=")[::2] for part in authorization.removeprefix(_ALGORITHM).strip().split(",")
        )
        moment = str(environ.get("HTTP_X_AMZ_DATE", ""))
        if abs(datetime.now(UTC) - _parsed(moment)) > _CLOCK_SKEW:
            raise SignatureError("RequestTimeTooSkewed", f"signed at {moment}, which is not now")
        names = fields.get("SignedHeaders", "").split(";")
        return self._compare(environ, fields.get("Credential", ""), moment, names, fields.get("Signature", ""), body)

    def _check_query(self, environ: WSGIEnvironment, query: dict[str, str]) -> str:
        moment = query.get("X-Amz-Date", "")
        seconds = query.get("X-Amz-Expires", "0")
        valid = timedelta(seconds=int(seconds)) if seconds.isdecimal() and len(seconds) < 8 else timedelta()
        if not -_CLOCK_SKEW <= datetime.now(UTC) - _parsed(moment) <= valid:
            raise SignatureError("AccessDenied", "Request has expired")
        names = query.get("X-Amz-SignedHeaders", "").split(";")
        return self._compare(
            environ, query.get("X-Amz-Credential", ""), moment, names, query["X-Amz-Signature"], lambda: b""
        )

    def _compare(
        self,
        environ: WSGIEnvironment,
        credential: str,
        moment: str,
        names: list[str],
        signature: str,
        body: Callable[[], bytes],
    ) -> str:
        from botocore.auth import S3SigV4Auth, SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        access_key, _, scope = credential.partition("/")
        secret = self._secret(access_key)
        parts = scope.split("/")
        if len(parts) != 4 or parts[3] != "aws4_request" or parts[0] != moment[:8] or "host" not in names:
            raise SignatureError("IncompleteSignature", f"expected a credential scope, got {credential!r:.120}")
        _, region, service, _ = parts
        in_query = "HTTP_AUTHORIZATION" not in environ
        request = AWSRequest(environ["REQUEST_METHOD"], _url(environ, drop="X-Amz-Signature=" if in_query else None))
        for name in names:
            request.headers[name] = _header(environ, name)
        signer: Any = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(access_key, secret), service, region)
        if in_query and service == "s3":
            request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
            signer.headers_to_sign = lambda _: _only(request.headers, names)
        elif "x-amz-content-sha256" not in names:
            request.data = body()
        request.context["timestamp"] = moment
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        if not hmac.compare_digest(expected, signature):
            raise SignatureError("SignatureDoesNotMatch", "the signature is not the one that this key makes")
        return access_key

    def _check_old_query(self, environ: WSGIEnvironment, query: dict[str, str]) -> str:
        """Check a URL signed with Signature Version 2, as boto3 still makes them where nothing else is asked for."""
        from botocore.auth import HmacV1QueryAuth
        from botocore.compat import HTTPHeaders
        from botocore.credentials import Credentials

        access_key, expires = query["AWSAccessKeyId"], query.get("Expires", "")
        secret = self._secret(access_key)
        if not expires.isdecimal() or len(expires) > 11 or int(expires) < datetime.now(UTC).timestamp():
            raise SignatureError("AccessDenied", "Request has expired")
        signer: Any = HmacV1QueryAuth(Credentials(access_key, secret))
        # In the place of the date stands the end; headers that were signed travel in the query.
        signer._get_date = lambda: expires  # noqa: SLF001 - the signer takes the time of now otherwise
        headers = HTTPHeaders()
        for name, value in query.items():
            if name.lower() in {"content-md5", "content-type"} or name.lower().startswith("x-amz-"):
                headers[name] = value
        text = signer.canonical_string(environ["REQUEST_METHOD"], urlsplit(_url(environ)), headers)
        if not hmac.compare_digest(signer.sign_string(text), query["Signature"]):
            raise SignatureError("SignatureDoesNotMatch", "the signature is not the one that this key makes")
        return access_key


def sign(key: Key, *, method: str, url: str, service: str, region: str, body: bytes = b"") -> dict[str, str]:
    """Return the headers that sign a request, for clients that are no SDK."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method, url, data=body)
    signer: Any = SigV4Auth(Credentials(key.access_key, key.secret), service, region)
    signer.add_auth(request)
    return dict(request.headers.items())


def _uri(environ: WSGIEnvironment) -> str:
    """Return path and query as they were sent, still quoted."""
    raw = str(environ.get("RAW_URI", ""))
    return raw if raw.startswith("/") else "/" + raw.partition("://")[2].partition("/")[2]


def _url(environ: WSGIEnvironment, drop: str | None = None) -> str:
    path, _, query = _uri(environ).partition("?")
    if drop is not None:
        query = "&".join(part for part in query.split("&") if not part.startswith(drop))
    return f"{environ['wsgi.url_scheme']}://{environ.get('HTTP_HOST', '')}{path}" + (f"?{query}" if query else "")


def _variable(name: str) -> str:
    plain = name.upper().replace("-", "_")
    return plain if plain in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{plain}"


def _header(environ: WSGIEnvironment, name: str) -> str:
    return str(environ.get(_variable(name), "")).encode("latin-1").decode("utf-8", "replace")


def _only(headers: Any, names: list[str]) -> Any:
    from botocore.compat import HTTPHeaders

    kept = HTTPHeaders()
    for name in names:
        kept[name] = headers[name]
    return kept


def _parsed(moment: str) -> datetime:
    try:
        return datetime.strptime(moment, _DATE).replace(tzinfo=UTC)
    except ValueError as error:
        raise SignatureError("IncompleteSignature", f"expected X-Amz-Date, got {moment!r:.40}") from error
