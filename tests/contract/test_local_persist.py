"""Caches outlive a local cloud: the objects, their metadata, and nothing else; no events on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from structureflow_local.cloud import LocalCloud

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "local"
TEMPLATE = FIXTURE / "template.yaml"


def test_objects_below_the_prefixes_come_back_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    big = bytes(range(256)) * 40_000
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        s3.put_object(Bucket=bucket, Key="cache/flows/ab.npz", Body=big, ContentType="application/zip")
        s3.put_object(Bucket=bucket, Key="timelines/t/chunks/000.mp4", Body=b"chunk", Metadata={"origin": "here"})
        s3.put_object(Bucket=bucket, Key="jobs/j/result.json", Body=b"{}")
        first = s3.head_object(Bucket=bucket, Key="cache/flows/ab.npz")
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert keys == ["cache/flows/ab.npz", "timelines/t/chunks/000.mp4"]
        again = s3.get_object(Bucket=bucket, Key="cache/flows/ab.npz")
        assert again["Body"].read() == big
        for name in ("ETag", "ContentLength", "ContentType", "LastModified"):
            assert again[name] == first[name]
        part = s3.get_object(Bucket=bucket, Key="cache/flows/ab.npz", Range="bytes=255-257", IfMatch=first["ETag"])
        assert part["Body"].read() == b"\xff\x00\x01"
        assert s3.get_object(Bucket=bucket, Key="timelines/t/chunks/000.mp4")["Metadata"] == {"origin": "here"}
        cloud.wait_idle(5)
        assert cloud.invocations == []
        assert cloud.executions("StepsStateMachine") == []


def test_changes_and_deletions_are_kept_too(tmp_path: Path) -> None:
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        for name in ("gone", "changed", "copied"):
            s3.put_object(Bucket=bucket, Key=f"cache/{name}", Body=name.encode())
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        s3.delete_object(Bucket=bucket, Key="cache/gone")
        s3.put_object(Bucket=bucket, Key="cache/changed", Body=b"other")
        s3.copy_object(Bucket=bucket, Key="cache/copy", CopySource={"Bucket": bucket, "Key": "cache/copied"})
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="cache/copied", Body=b"x", IfNoneMatch="*")
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        bodies = {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in listed}
    assert bodies == {"cache/changed": b"other", "cache/copied": b"copied", "cache/copy": b"copied"}


@pytest.mark.parametrize("damage", ["index", "bytes"])
def test_a_damaged_archive_is_an_empty_cache(tmp_path: Path, damage: str) -> None:
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        cloud.client("s3").put_object(Bucket=cloud.bucket("DataBucket"), Key="cache/one", Body=b"one")
    index = tmp_path / "DataBucket" / "index.json"
    if damage == "index":
        index.write_text('{"format": 1, "obj')
    else:
        (stored,) = (tmp_path / "DataBucket" / "objects").glob("*/*")
        stored.write_bytes(b"o")
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
        s3.put_object(Bucket=bucket, Key="cache/one", Body=b"one")
    with LocalCloud(TEMPLATE, persist=tmp_path) as cloud:
        s3, bucket = cloud.client("s3"), cloud.bucket("DataBucket")
        assert s3.get_object(Bucket=bucket, Key="cache/one")["Body"].read() == b"one"
