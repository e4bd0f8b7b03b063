"""How a bucket of Amazon S3, or of a store that speaks its protocol, is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from structureflow import arguments
from structureflow.arguments import check_fields, choice, number, optional, whole
from structureflow.extras import importing
from structureflow.limits import MAX_S3_PUT_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ChecksumMode = Literal["when_supported", "when_required"]


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How a bucket is reached. Nothing here is read from the environment.

    Attributes:
        endpoint_url: of an S3-compatible store; None for AWS.
        region: of the bucket; None leaves it to the SDK.
        addressing_style: None means ``path`` with an `endpoint_url`, else ``virtual``: ``auto`` signs URLs for the
            global host, which sends readers of other regions on to a host that the signature does not fit.
        request_checksums, response_checksums: None means ``when_required`` with an `endpoint_url` (many
            stores refuse checksum trailers, or answer ranges with the whole object's checksum), else
            ``when_supported``.
        access_key_id, secret_access_key, session_token: None leaves credentials to the SDK's own chain.
        max_connections: of the connection pool; callers get no more requests in flight than this.
        connect_timeout_s, read_timeout_s: of one try.
        max_attempts: tries of one request in all, by the SDK, with backoff.
        put_bytes: what is larger is written and copied in parts.
        part_bytes: of such a part, 5 MiB or more; four are held in memory at a time.
        conditional_writes: whether the store obeys ``If-None-Match``; ``auto`` believes AWS and tests others
            once, before the first conditional write.
    """

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] | None = None
    request_checksums: ChecksumMode | None = None
    response_checksums: ChecksumMode | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    max_connections: int = 64
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    max_attempts: int = 4
    put_bytes: int = MAX_S3_PUT_BYTES
    part_bytes: int = 64 * 1024**2
    conditional_writes: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what no client can be built with.

        Raises:
            InvalidArgumentError: a setting of another type, or out of its range.
        """
        check_fields(self, **_CHECKS)

    def build_client(self) -> S3Client:
        """Build a new client with these settings."""
        with importing("S3Storage"):
            import boto3
            from botocore.config import Config

        custom = self.endpoint_url is not None
        default_checksums: ChecksumMode = "when_required" if custom else "when_supported"
        config = Config(
            region_name=self.region,
            connect_timeout=self.connect_timeout_s,
            read_timeout=self.read_timeout_s,
            max_pool_connections=self.max_connections,
            retries={"mode": "standard", "total_max_attempts": self.max_attempts},
            signature_version="s3v4",
            s3={
                "addressing_style": self.addressing_style or ("path" if custom else "virtual"),
                "us_east_1_regional_endpoint": "regional",
            },
            request_checksum_calculation=self.request_checksums or default_checksums,
            response_checksum_validation=self.response_checksums or default_checksums,
        )
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=self.session_token,
            config=config,
        )


_CHECKS: Final = {
    **dict.fromkeys(
        ("endpoint_url", "region", "access_key_id", "secret_access_key", "session_token"), optional(arguments.text)
    ),
    "addressing_style": optional(choice("auto", "path", "virtual")),
    **dict.fromkeys(("request_checksums", "response_checksums"), optional(choice(*get_args(ChecksumMode)))),
    **dict.fromkeys(("max_connections", "max_attempts", "put_bytes", "part_bytes"), whole(1)),
    **dict.fromkeys(("connect_timeout_s", "read_timeout_s"), number(above=0)),
    "conditional_writes": choice("auto", "yes", "no"),
}
