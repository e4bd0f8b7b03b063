"""Settings: typed, complete, and an error that names the variable."""

from __future__ import annotations

import pytest

from structureflow.errors import SettingsError
from structureflow.runtime.settings import Settings

COMPLETE = {
    "DATA_BUCKET": "data",
    "ALLOWED_BUCKETS": "a, b,",
    "ALLOWED_HOSTS": "",
    "MAX_VIDEO_FRAMES": "6000",
    "MAX_VIDEO_MEGABYTES": "1024",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3008",
    "AWS_ENDPOINT_URL_S3": "",
}


def test_complete_environment() -> None:
    settings = Settings.from_environment(COMPLETE)
    assert settings.allowed_buckets == ("a", "b")
    assert settings.allowed_hosts == ()
    assert settings.s3_endpoint_url is None
    assert settings.max_video_bytes == 1_024_000_000


@pytest.mark.parametrize(("memory_mb", "workers"), [(128, 1), (1769, 1), (1770, 2), (3008, 2), (3538, 2), (10240, 6)])
def test_workers_are_the_vcpus_that_memory_begins(memory_mb: int, workers: int) -> None:
    settings = Settings.from_environment({**COMPLETE, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb)})
    assert settings.workers == workers
    assert settings.workers - 1 < settings.vcpus <= settings.workers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_BUCKET", None),
        ("DATA_BUCKET", " "),
        ("MAX_VIDEO_FRAMES", "many"),
        ("MAX_VIDEO_FRAMES", "0"),
        ("MAX_VIDEO_FRAMES", "100002"),
        ("MAX_VIDEO_MEGABYTES", "1" * 5000),
        ("MAX_VIDEO_MEGABYTES", ""),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", None),
        ("S3_ADDRESSING_STYLE", "sideways"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str | None) -> None:
    environment = {key: text for key, text in {**COMPLETE, name: value}.items() if text is not None}
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment(environment)
