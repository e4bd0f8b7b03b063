"""Ranges of objects on the local cloud: what S3 answers, and no more is read than is asked for."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from structureflow_local.cloud import LocalCloud

TEMPLATE = Path(__file__).resolve().parents[1] / "fixtures" / "local" / "template.yaml"
BODY = bytes(range(256)) * 4
LARGE_MB = 64


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[Any, str]]:
    with LocalCloud(TEMPLATE) as cloud:
        client = cloud.client("s3")
        client.create_bucket(Bucket="ranges")
        client.put_object(Bucket="ranges", Key="small", Body=BODY)
        client.put_object(Bucket="ranges", Key="empty", Body=b"")
        yield client, "ranges"


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=3-9", 3, 10),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-9999", 1000, 1024),
        ("bytes=-5", 1019, 1024),
        ("bytes=-9999", 0, 1024),
        ("bytes=0-1023", 0, 1024),
    ],
)
def test_a_range_is_what_s3_sends(s3: tuple[Any, str], wanted: str, start: int, stop: int) -> None:
    client, bucket = s3
    reply = client.get_object(Bucket=bucket, Key="small", Range=wanted)
    assert reply["Body"].read() == BODY[start:stop]
    assert reply["ContentLength"] == stop - start
    assert reply["ContentRange"] == f"bytes {start}-{stop - 1}/{len(BODY)}"


@pytest.mark.parametrize("wanted", ["bytes=9-3", "bytes=a-b", "bytes=0-1,5-6"])
def test_what_is_no_range_gets_the_whole(s3: tuple[Any, str], wanted: str) -> None:
    client, bucket = s3
    reply = client.get_object(Bucket=bucket, Key="small", Range=wanted)
    assert reply["Body"].read() == BODY


@pytest.mark.parametrize(("key", "wanted"), [("small", "bytes=1024-"), ("small", "bytes=-0"), ("empty", "bytes=0-0")])
def test_a_range_behind_the_end_is_refused(s3: tuple[Any, str], key: str, wanted: str) -> None:
    client, bucket = s3
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key=key, Range=wanted)
    assert refused.value.response["Error"]["Code"] == "InvalidRange"


def test_conditions_hold_for_ranges_too(s3: tuple[Any, str]) -> None:
    client, bucket = s3
    etag = client.head_object(Bucket=bucket, Key="small")["ETag"]
    assert client.get_object(Bucket=bucket, Key="small", Range="bytes=1-2", IfMatch=etag)["Body"].read() == BODY[1:3]
    with pytest.raises(ClientError) as refused:
        client.get_object(Bucket=bucket, Key="small", Range="bytes=1-2", IfMatch='"other"')
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


def test_ranges_of_a_large_object_are_read_and_copied_alone(s3: tuple[Any, str]) -> None:
    client, bucket = s3
    large = os.urandom(LARGE_MB << 20)
    client.put_object(Bucket=bucket, Key="large", Body=large)
    upload = client.create_multipart_upload(Bucket=bucket, Key="copy")["UploadId"]
    tracemalloc.start()
    try:
        read = client.get_object(Bucket=bucket, Key="large", Range="bytes=33554430-33554499")["Body"].read()
        spans = [(1 << 20, 7 << 20), (40 << 20, 41 << 20)]
        parts = []
        for number, (start, stop) in enumerate(spans, start=1):
            reply = client.upload_part_copy(
                Bucket=bucket,
                Key="copy",
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": bucket, "Key": "large"},
                CopySourceRange=f"bytes={start}-{stop - 1}",
            )
            parts.append({"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == large[33554430:33554500]
    assert most < LARGE_MB << 19, "half of the object was never held"
    client.complete_multipart_upload(Bucket=bucket, Key="copy", UploadId=upload, MultipartUpload={"Parts": parts})
    copied = client.get_object(Bucket=bucket, Key="copy")["Body"].read()
    assert copied == b"".join(large[start:stop] for start, stop in spans)
    # without a range, all of it
    upload = client.create_multipart_upload(Bucket=bucket, Key="whole")["UploadId"]
    source = {"Bucket": bucket, "Key": "large"}
    reply = client.upload_part_copy(Bucket=bucket, Key="whole", UploadId=upload, PartNumber=1, CopySource=source)
    parts = [{"PartNumber": 1, "ETag": reply["CopyPartResult"]["ETag"]}]
    client.complete_multipart_upload(Bucket=bucket, Key="whole", UploadId=upload, MultipartUpload={"Parts": parts})
    assert client.get_object(Bucket=bucket, Key="whole")["Body"].read() == large
