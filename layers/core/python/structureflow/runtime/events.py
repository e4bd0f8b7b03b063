"""Events as AWS delivers them, parsed into the inputs of the job steps."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.parser.models import S3EventNotificationEventBridgeModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from structureflow.errors import InvalidRequestError


class CreatedObject(BaseModel):
    """Bucket and key of an S3 "Object Created" event, the key as it is (EventBridge does not quote it)."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str


class _RequestContext(BaseModel):
    condition: str


class _FailurePayload(BaseModel):
    error_type: str = Field(alias="errorType", default="")
    error_message: str = Field(alias="errorMessage", default="")


class FailedInvocation(BaseModel):
    """What Lambda hands an on-failure destination: the event of the function that died, and its last words."""

    context: _RequestContext = Field(alias="requestContext")
    request: dict[str, Any] = Field(alias="requestPayload")
    response: _FailurePayload | None = Field(alias="responsePayload", default=None)

    @property
    def error_type(self) -> str:
        """The error's name, or Lambda's own condition where there is none."""
        return (self.response.error_type if self.response else "") or self.context.condition

    @property
    def error_message(self) -> str:
        """The error's message, or Lambda's own condition where there is none."""
        return (self.response.error_message if self.response else "") or self.context.condition


def parse_created_object(event: dict[str, Any]) -> CreatedObject:
    """Parse an S3 "Object Created" event of EventBridge.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        detail = S3EventNotificationEventBridgeModel.model_validate(event).detail
    except ValidationError as error:
        raise InvalidRequestError(f"expected an S3 Object Created event of EventBridge: {error}") from error
    return CreatedObject(bucket=detail.bucket.name, key=detail.object.key)
