"""References to inputs that show themselves without what may be secret.

Whoever holds a signed URL can read the object: its query is the signature. It must stand in no record, archive,
report, error or log, so a reference is no string: its text is had through `reveal` alone, by those who open it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from structureflow.limits import MAX_REFERENCE_CHARS

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

#: Stands where a query was.
_REDACTED: Final = "?redacted"

#: The query, or the fragment, of a URL up to where the text around it goes on.
_QUERY: Final = re.compile(r"(https?://[^\s?#\"<>]*)[?#][^\s\"<>]*?(?=[:;,.'\")\]}]*(?:[\s\"<>]|$))", re.IGNORECASE)
_USER: Final = re.compile(r"(https?://)[^\s/?#\"<>@]*@", re.IGNORECASE)


def without_queries(text: str) -> str:
    """Return a text for people in which no URL has a query, a fragment or a user."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1{_REDACTED}", _USER.sub(r"\1", text))


class Reference:
    """A key in the job's bucket, an ``s3://`` URI in an allowed bucket, or an ``https://`` URL on an allowed host.

    Text, JSON and reports show it without the query of a URL. Two references are equal when their whole texts are,
    and a reference equals the string of its whole text.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the whole text, for opening the input and for nothing else."""
        return self._text

    @property
    def is_redacted(self) -> bool:
        """Whether the query is missing: the reference was read from a document that shows it to people."""
        return self._text.endswith(_REDACTED)

    @property
    def is_secret(self) -> bool:
        """Whether it shows itself otherwise than it is."""
        return str(self) != self._text

    def __str__(self) -> str:
        return without_queries(self._text)

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Reference):
            return self._text == other._text
        return self._text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Validate from a string of 1 to `MAX_REFERENCE_CHARS`; written as shown."""
        from pydantic_core import core_schema

        def check(value: Any) -> Reference:
            if isinstance(value, cls):
                return value
            expected = f"the name of a file: a key, s3:// or https:// of 1 to {MAX_REFERENCE_CHARS} characters"
            if not isinstance(value, str):
                kinds = {dict: "an object", list: "a list", type(None): "null", bool: str(value).lower()}
                raise ValueError(f"expected {expected}, got {kinds.get(type(value), f'{value!r:.60}')}")
            if not 1 <= len(value) <= MAX_REFERENCE_CHARS:
                raise ValueError(f"expected {expected}, got {len(value)}")
            return cls(value)

        text = core_schema.str_schema(min_length=1, max_length=MAX_REFERENCE_CHARS)
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, text),
            python_schema=core_schema.no_info_plain_validator_function(check),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )
