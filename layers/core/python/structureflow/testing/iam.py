"""Reads the S3 statements of a SAM template's functions, and decides requests as IAM does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

#: What each S3 operation needs (Amazon S3 User Guide, "Required permissions for Amazon S3 API operations").
_ACTIONS: Final = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a role: actions and ARNs may hold ``*``; bucket ARNs hold the bucket's logical id."""

    sid: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]]

    def covers(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """Tell whether the statement speaks of a request."""
        return (
            any(_like(action.lower(), pattern.lower()) for pattern in self.actions)
            and any(_like(resource, pattern) for pattern in self.resources)
            and all(_holds(operator, block, context) for operator, block in self.conditions.items())
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What IAM is asked: an action on an ARN, with the prefix of a listing as context."""

    action: str
    resource: str
    prefix: str | None = None

    @property
    def context(self) -> dict[str, str]:
        """Condition keys that the request carries."""
        return {} if self.prefix is None else {"s3:prefix": self.prefix}


def requests_of(operation: str, bucket: str, key: str | None, status: int) -> Iterator[Request]:
    """Yield what an S3 call asks of IAM.

    A read that is answered by 404 needs ``s3:ListBucket`` too, else the answer is 403 (Amazon S3 API
    Reference, GetObject); that check takes the key for the prefix.

    Raises:
        ValueError: the operation is not known here.
    """
    action = _ACTIONS.get(operation)
    if action is None:
        raise ValueError(f"expected one of {', '.join(_ACTIONS)}, got {operation!r}")
    arn = f"arn:aws:s3:::{bucket}"
    if action == "s3:ListBucket":
        yield Request(action, arn, key or "")
        return
    yield Request(action, f"{arn}/{key}")
    if action == "s3:GetObject" and status == 404:
        yield Request("s3:ListBucket", arn, key)


def allows(statements: Iterator[Statement] | tuple[Statement, ...], request: Request) -> bool:
    """Decide a request: an explicit Deny wins, then an Allow is needed (IAM User Guide, "Policy evaluation logic")."""
    speaking = [one for one in statements if one.covers(request.action, request.resource, request.context)]
    effects = {one.effect for one in speaking}
    return "Deny" not in effects and "Allow" in effects


def unused(
    statements: Iterable[Statement], requests: Sequence[Request], bucket: str
) -> Iterator[tuple[Statement, str, str]]:
    """Yield what is allowed in `bucket` and no request needed: the statement, and of it the action and the resource."""
    for statement in statements:
        if statement.effect == "Deny" or not any(bucket in resource for resource in statement.resources):
            continue
        for action in statement.actions:
            for resource in statement.resources:
                one = replace(statement, actions=(action,), resources=(resource,))
                if not any(one.covers(asked.action, asked.resource, asked.context) for asked in requests):
                    yield statement, action, resource


def function_statements(template: Mapping[str, Any], logical_id: str) -> tuple[Statement, ...]:
    """Return the inline policy statements of a function or role; of ``Fn::If`` the branch that gives more.

    Args:
        template: as `samtranslator.yaml_helper.yaml_parse` reads it, intrinsics in their long form.
    """
    policies = template["Resources"][logical_id]["Properties"].get("Policies", [])
    return tuple(
        Statement(
            sid=statement["Sid"],
            effect=statement["Effect"],
            actions=tuple(_listed(statement["Action"])),
            resources=tuple(_arn(one) for one in _listed(statement["Resource"])),
            conditions={
                operator: {key: tuple(_listed(value)) for key, value in block.items()}
                for operator, block in statement.get("Condition", {}).items()
            },
        )
        for policy in policies
        for statement in _branch(policy)["Statement"]
    )


def _branch(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    if "Fn::If" in policy:
        _, then, otherwise = policy["Fn::If"]
        return _branch(otherwise if set(then) == {"Ref"} else then)
    return policy.get("PolicyDocument", policy)  # type: ignore[no-any-return]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _arn(value: Any) -> str:
    """Turn an ARN's intrinsics into text: a bucket is named by its logical id, anything else stays recognisable."""
    if isinstance(value, str):
        return value
    ((intrinsic, argument),) = value.items()
    if intrinsic == "Fn::GetAtt":
        name = argument.split(".")[0] if isinstance(argument, str) else argument[0]
        return f"arn:aws:s3:::{name}" if name.endswith("Bucket") else f"arn:of:{name}"
    if intrinsic == "Fn::Sub" and isinstance(argument, str):
        return re.sub(r"\$\{(\w*Bucket)\.Arn\}", r"arn:aws:s3:::\1", argument)
    return f"{intrinsic}:{argument}"


def _like(value: str, pattern: str) -> bool:
    """Match as IAM does: ``*`` is any text, slashes included, ``?`` one character."""
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def _holds(operator: str, block: Mapping[str, tuple[str, ...]], context: Mapping[str, str]) -> bool:
    if operator == "Null":
        return all((key not in context) == (values == ("true",)) for key, values in block.items())
    if operator == "StringNotLike":
        # A condition that says no holds where the key is absent (IAM User Guide, "Condition operators").
        return not any(
            key in context and _like(context[key], pattern) for key, values in block.items() for pattern in values
        )
    if operator not in {"StringLike", "StringLikeIfExists"}:
        raise ValueError(f"expected Null, StringLike, StringLikeIfExists or StringNotLike, got {operator!r}")
    if_exists = operator.endswith("IfExists")
    return all(
        any(_like(context[key], pattern) for pattern in values) if key in context else if_exists
        for key, values in block.items()
    )
