"""A job is made of the bytes that it looked up, or of none; and shows no query of a URL."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structureflow import keys
from structureflow.errors import InputChangedError, InputNotAllowedError, ObjectNotFoundError
from structureflow.jobs.documents import load_record
from structureflow.jobs.inputs import Inputs
from structureflow.models.results import JobRecord, SegmentResult
from structureflow.references import Reference
from structureflow.storage.adapters import check_if_match, check_size
from structureflow.storage.base import Checksum, ObjectInfo, Storage, StoredObject
from structureflow.storage.memory import MemoryStorage
from structureflow.testing.jobs import BUCKET, JobRunner, png, put_pan_clip
from structureflow.testing.storage import Fault, FaultStorage, OpaqueStorage, WrapperStorage
from structureflow.testing.videos import texture

HEIGHT, WIDTH = 96, 160


class Meddling(WrapperStorage):
    """Does something the first time a key is downloaded or read, just before."""

    def __init__(self, inner: Storage, key: str, meddle: Callable[[], None]) -> None:
        super().__init__(inner)
        self._key = key
        self._meddle: Callable[[], None] | None = meddle

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        self._now(key)
        return super().get_to_file(key, path, max_bytes=max_bytes, if_match=if_match)

    def get(self, key: str, **options: Any) -> StoredObject:
        self._now(key)
        return super().get(key, **options)

    def _now(self, key: str) -> None:
        if key == self._key and self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            meddle()


def other_clip(storage: Storage, folder: Path) -> None:
    """Put another video in place of the first, of about the same size."""
    put_pan_clip(storage, "videos/pan.mp4", folder, height=HEIGHT, width=WIDTH, dx=-3)


def flip(data: bytes) -> bytes:
    """Flip one bit in the middle."""
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def record_of(runner: JobRunner, task_id: str = "t1") -> JobRecord:
    return load_record(runner.storage, task_id)


def test_a_video_overwritten_between_look_up_and_download_is_not_used(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    inner = runner.storage
    storage = Meddling(inner, "videos/pan.mp4", lambda: other_clip(inner, tmp_path))
    status = JobRunner(storage, tmp_path).run("t1", request_document)
    assert status.error is not None
    assert status.error.code == "InputChangedError"
    assert "videos/pan.mp4" in status.error.message
    assert runner.keys("cache/") == []
    # The next job looks it up anew, and takes what lies there now.
    assert runner.run("t1", request_document).state == "done"


@pytest.mark.parametrize(("opaque", "by"), [(True, "two reads"), (False, "etag")])
@pytest.mark.parametrize("flips", [0, 1])
def test_a_flipped_bit_in_a_download_never_reaches_the_cache(
    tmp_path: Path, runner: JobRunner, request_document: dict[str, Any], *, opaque: bool, by: str, flips: int
) -> None:
    inner = runner.storage
    expected = JobRunner(inner, tmp_path)
    assert expected.run("t1", request_document).state == "done"
    flows = inner.get(record_of(expected).flow_cache_key or "").data
    inner.delete(info.key for info in list(inner.list("cache/")))

    store = FaultStorage(OpaqueStorage(inner) if opaque else inner)
    if flips:
        store.add(Fault("get_to_file", "videos/pan.mp4", change=flip))
    struck = JobRunner(store, tmp_path)
    assert struck.run("t1", request_document).state == "done"
    source = record_of(struck).source
    assert source.sha256 == hashlib.sha256(inner.get("videos/pan.mp4").data).hexdigest()
    assert source.verified_by == by
    assert flow_arrays(inner.get(record_of(struck).flow_cache_key or "").data) == flow_arrays(flows)


def flow_arrays(archive: bytes) -> bytes:
    import numpy as np

    with np.load(io.BytesIO(archive)) as arrays:
        return bytes(arrays["flows"].tobytes() + arrays["flows_backward"].tobytes())


def without_flows_and_frames(runner: JobRunner, task_id: str = "t1") -> None:
    """Leave a segment nothing but the video."""
    runner.storage.delete([keys.job_flows(task_id)])
    runner.storage.delete(info.key for info in list(runner.storage.list("cache/")))


def test_the_fallback_to_the_video_reads_that_very_video(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    runner.put_request("t1", request_document)
    runner.orchestrate("t1")
    without_flows_and_frames(runner)
    other_clip(runner.storage, tmp_path)
    status = runner.segments("t1")
    assert status.error is not None
    assert status.error.code == "InputChangedError"
    assert "segment 0: videos/pan.mp4" in status.error.message


def test_the_fallback_to_the_video_reads_it_once_and_checks_the_recorded_digest(
    runner: JobRunner, request_document: dict[str, Any], tmp_path: Path
) -> None:
    store = FaultStorage(OpaqueStorage(runner.storage))
    struck = JobRunner(store, tmp_path)
    struck.put_request("t1", request_document)
    struck.orchestrate("t1")
    without_flows_and_frames(struck)
    store.add(Fault("get_to_file", "videos/pan.mp4", change=flip))
    assert struck.segments("t1").state == "done"
    found = SegmentResult.model_validate_json(struck.storage.get(keys.segment_file("t1", 0, "result.json")).data)
    assert found.flow_source == "video"


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_guide_that_changes_while_the_job_runs_is_not_used(runner: JobRunner, tmp_path: Path, kind: str) -> None:
    reference = "images/a.png" if kind == "image" else "guides/pan.mp4"
    put_pan_clip(runner.storage, "guides/pan.mp4", tmp_path, height=HEIGHT, width=WIDTH)
    guides = [{"at": [0, 3], kind: reference}]
    runner.put_request(
        "t1", {"task_id": "t1", "structure_video": "videos/pan.mp4", "segments": [{"frames": 9, "guides": guides}]}
    )
    assert runner.orchestrate("t1").state == "running"
    runner.storage.put(reference, png(texture(HEIGHT, WIDTH, seed=9)))
    status = runner.segments("t1")
    assert status.error is not None
    assert status.error.code == "InputChangedError"
    assert reference in status.error.message


def test_an_image_beyond_the_bound_is_refused_unread(runner: JobRunner, request_document: dict[str, Any]) -> None:
    source = runner.services.inputs.find(Reference("images/a.png"))
    with pytest.raises(Exception, match="expected at most 10 bytes") as caught:
        source.read(max_bytes=10)
    assert type(caught.value).__name__ == "MediaLimitError"


def test_a_pin_of_another_store_is_a_change(runner: JobRunner) -> None:
    pin = runner.services.inputs.find(Reference("images/a.png")).pin()
    elsewhere = Inputs(runner.storage, BUCKET, buckets={"other": lambda _: runner.storage}, max_bytes=10**8)
    with pytest.raises(InputChangedError):
        elsewhere.known(Reference("s3://other/images/a.png"), pin)
    assert elsewhere.known(Reference("images/a.png"), pin).read(max_bytes=10**7)[0]


# --- signed URLs -------------------------------------------------------------------------------------


class Web:
    """Serves objects of a store to whoever has the signature."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.asked: list[str] = []

    def head(self, key: str) -> ObjectInfo:
        return self._storage.head(self._key(key))

    def get(self, key: str, *, if_match: str | None = None, max_bytes: int | None = None) -> StoredObject:
        found = self._storage.get(self._key(key), if_match=if_match)
        check_size(key, found.info.size_bytes, max_bytes)
        return found

    def get_to_file(
        self, key: str, path: Path, *, max_bytes: int | None = None, if_match: str | None = None
    ) -> ObjectInfo:
        check_if_match(self.head(key), if_match)
        return self._storage.get_to_file(self._key(key), path, max_bytes=max_bytes)

    def checksums(self, info: ObjectInfo) -> Sequence[Checksum]:
        return info.checksums

    def _key(self, url: str) -> str:
        self.asked.append(url)
        path, _, query = url.removeprefix("https://media.example.com/").partition("?")
        if "sig=SECRET" not in query:
            raise ObjectNotFoundError(f"{url}: no such object", key=url)
        return path


@pytest.fixture
def signed(runner: JobRunner, tmp_path: Path) -> JobRunner:
    """A job whose inputs all lie behind signed URLs, in a store of their own."""
    library = MemoryStorage("library")
    for info in list(runner.storage.list("")):
        runner.storage.get_to_file(info.key, tmp_path / "moved")
        library.put_file(info.key, tmp_path / "moved")
        runner.storage.delete([info.key])
    archive = io.BytesIO()
    np.savez(archive, flows=np.ones((8, 48, 80, 2), np.float32))
    library.put("flows.npz", archive.getvalue())
    return JobRunner(runner.storage, tmp_path, inputs=Inputs(runner.storage, BUCKET, web=Web(library), max_bytes=10**8))


def url(key: str, extra: str = "") -> str:
    return f"https://media.example.com/{key}?sig=SECRET{extra}"


def signed_request() -> dict[str, Any]:
    # Two references that differ in nothing but the query.
    return {
        "task_id": "t1",
        "structure_video": url("videos/pan.mp4"),
        "images": [url("images/a.png"), url("images/b.png"), url("images/b.png", "&n=2")],
        "frames": 12,
        "overlap": 3,
        "fade": 2,
    }


def assert_no_secret(runner: JobRunner, said: str) -> None:
    assert "SECRET" not in said
    for info in runner.storage.list(""):
        if info.key != keys.job_request("t1"):
            assert b"SECRET" not in runner.storage.get(info.key).data, info.key


@pytest.mark.parametrize("fallback", [False, True])
def test_no_query_of_a_url_is_kept_or_said(
    signed: JobRunner, caplog: pytest.LogCaptureFixture, *, fallback: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    signed.put_request("t1", signed_request())
    assert signed.orchestrate("t1").state == "running"
    if fallback:
        without_flows_and_frames(signed)
    assert signed.segments("t1").state == "done"
    record = record_of(signed)
    assert record.source.reference == "https://media.example.com/videos/pan.mp4?redacted"
    assert len(record.guides) == 3
    assert b"videos/pan.mp4?redacted" in signed.storage.get(keys.job_report("t1")).data
    assert_no_secret(signed, caplog.text)


@pytest.mark.parametrize("fallback", [False, True])
def test_no_query_of_an_archives_url_is_kept_or_said(
    signed: JobRunner, caplog: pytest.LogCaptureFixture, *, fallback: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    request = {**signed_request(), "flow_cache": url("flows.npz")}
    del request["structure_video"]
    signed.put_request("t1", request)
    assert signed.orchestrate("t1").state == "running"
    if fallback:
        signed.storage.delete([keys.job_flows("t1"), str(record_of(signed).flow_cache_key)])
    assert signed.segments("t1").state == "done"
    pinned = record_of(signed).flow_cache
    assert pinned is not None
    assert pinned.reference == "https://media.example.com/flows.npz?redacted"
    assert_no_secret(signed, caplog.text)


@pytest.mark.parametrize(
    "field", ["structure_video", "images", "unknown", "too_long", "not_json", "not_allowed", "with_a_user"]
)
def test_no_query_of_a_url_is_said_by_a_failure(
    signed: JobRunner, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    caplog.set_level(logging.DEBUG)
    request: Any = signed_request()
    match field:
        case "structure_video":
            request["structure_video"] = url("videos/none.mp4")
        case "images":
            request["images"][1] = url("videos/pan.mp4")
        case "unknown":
            request["structure"] = url("videos/none.mp4")
        case "too_long":
            request["structure_video"] = url("videos/none.mp4", "&x=" + "SECRET" * 400)
        case "not_json":
            request = b'{"structure_video": "' + url("v").encode() + b'", '
        case "not_allowed":
            request["structure_video"] = "http://other.example.com/a.mp4?sig=SECRET"
        case "with_a_user":
            request["structure_video"] = "https://me:SECRET@media.example.com/a.mp4"
    status = signed.run("t1", request)
    assert status.state == "failed"
    assert_no_secret(signed, caplog.text)
    if field not in ("not_json", "unknown", "too_long"):
        assert status.error is not None
        assert "example.com" in status.error.message


def test_a_segment_of_a_superseded_run_opens_no_url_of_the_newer_one(signed: JobRunner) -> None:
    signed.put_request("t1", signed_request())
    signed.orchestrate("t1")
    plan = signed.plan("t1")
    signed.put_request("t1", {**signed_request(), "structure_video": url("videos/other.mp4")})
    from structureflow.jobs.render_segment import RenderSegmentInput, render_segment

    with pytest.raises(Exception, match="started again") as caught:
        render_segment(RenderSegmentInput(task_id="t1", run_id=plan.run_id, index=0), signed.services)
    assert type(caught.value).__name__ == "SupersededRunError"


def test_a_reference_without_its_query_opens_nothing(signed: JobRunner) -> None:
    with pytest.raises(InputNotAllowedError, match="without its query"):
        signed.services.inputs.find(Reference("https://media.example.com/videos/pan.mp4?redacted"))
