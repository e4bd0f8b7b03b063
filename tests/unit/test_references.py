"""References and errors show no query of a URL, however they are shown."""

from __future__ import annotations

import json
import logging
import pickle

import pytest
from pydantic import BaseModel, ValidationError

from structureflow.errors import StorageError
from structureflow.references import Reference, without_queries

SIGNED = "https://media.example.com/a/clip.mp4?X-Amz-Signature=SECRET&X-Amz-Date=1"


class _Document(BaseModel):
    source: Reference
    pair: tuple[Reference, Reference] | None = None


def test_a_reference_shows_itself_without_its_query() -> None:
    reference = Reference(SIGNED)
    shown = "https://media.example.com/a/clip.mp4?redacted"
    assert str(reference) == f"{reference}" == "%s" % reference == shown  # noqa: UP031 - one more way to show it
    assert "SECRET" not in repr(reference)
    assert "SECRET" not in repr([reference])
    assert reference.reveal() == SIGNED
    assert Reference(shown).is_redacted
    assert not reference.is_redacted


@pytest.mark.parametrize("text", ["videos/a.mp4", "s3://bucket/a?b.mp4", "videos/what?.mp4", "https://h/p"])
def test_what_has_no_query_is_shown_whole(text: str) -> None:
    assert str(Reference(text)) == text
    assert not Reference(text).is_redacted


def test_references_are_equal_by_their_whole_text() -> None:
    assert Reference(SIGNED) == Reference(SIGNED) == SIGNED
    assert Reference(SIGNED) != Reference(SIGNED + "2")
    assert {Reference("a"): 1}["a"] == 1  # type: ignore[index]
    assert Reference("a") != 1


def test_documents_are_written_without_queries_and_read_with_them() -> None:
    document = _Document.model_validate_json(json.dumps({"source": SIGNED, "pair": [SIGNED, "b.png"]}))
    assert document.source == SIGNED
    for written in (document.model_dump_json(), str(document.model_dump(mode="json")), str(document.model_dump())):
        assert "SECRET" not in written
    assert _Document.model_validate_json(document.model_dump_json()).source.is_redacted
    assert _Document(source=Reference("x")).source == "x"
    for bad in ("", "x" * 2049, 5, None):
        with pytest.raises(ValidationError):
            _Document(source=bad)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"{SIGNED}: no such object", "https://media.example.com/a/clip.mp4?redacted: no such object"),
        (f"got '{SIGNED}', not b", "got 'https://media.example.com/a/clip.mp4?redacted', not b"),
        ("see (https://h/p?a=1).", "see (https://h/p?redacted)."),
        ("two https://h/p?a=SECRET https://h/q#SECRET", "two https://h/p?redacted https://h/q?redacted"),
        ("https://user:SECRET@h/p", "https://h/p"),
        ("HTTPS://H/p?a='SECRET'&b=c", "HTTPS://H/p?redacted"),
        ("https://h?SECRET", "https://h?redacted"),
        ("a key? yes", "a key? yes"),
    ],
)
def test_texts_lose_queries(text: str, shown: str) -> None:
    assert without_queries(text) == shown
    assert without_queries(shown) == shown


def test_errors_never_carry_a_query(caplog: pytest.LogCaptureFixture) -> None:
    error = StorageError(f"{SIGNED}: refused", key=SIGNED, size_bytes=5)
    again = error.within(f"segment 3 of {SIGNED}")
    with caplog.at_level(logging.ERROR):
        try:
            raise again from error
        except StorageError:
            logging.getLogger("test").exception("failed: %s", again)
    for shown in (str(error), repr(error), error.message, json.dumps(again.as_dict()), str(again.args), caplog.text):
        assert "SECRET" not in shown
    assert error.detail == {"key": "https://media.example.com/a/clip.mp4?redacted", "size_bytes": 5}


def test_a_reference_can_cross_to_a_process() -> None:
    assert pickle.loads(pickle.dumps(Reference(SIGNED))) == SIGNED  # noqa: S301 - made here
