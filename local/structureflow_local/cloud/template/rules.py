"""EventBridge rules of a template: of their own, and among the events of functions and state machines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from structureflow_local.cloud.errors import TemplateError
from structureflow_local.cloud.template.resources import Resources
from structureflow_local.cloud.template.specs import RuleSpec
from structureflow_local.cloud.template.values import integer, refuse_unknown

_RULE_EVENT_ACTIVE: Final = frozenset(
    {"DeadLetterConfig", "Input", "InputPath", "Pattern", "RetryPolicy", "RuleName", "State"}
)
_RULE_EVENT_PASSIVE: Final = frozenset({"Target"})
_RULE_ACTIVE: Final = frozenset({"EventPattern", "Name", "State", "Targets"})
_RULE_PASSIVE: Final = frozenset({"Description", "Tags"})
_TARGET_ACTIVE: Final = frozenset({"Arn", "DeadLetterConfig", "Input", "InputPath", "RetryPolicy"})
_TARGET_PASSIVE: Final = frozenset({"Id", "RoleArn"})


class Rules:
    """Collects rules while resources are read."""

    def __init__(self, resources: Resources) -> None:
        self._stack = resources
        self.found: list[RuleSpec] = []

    def event(self, event: Any, logical_id: str, name: str, target_arn: str, place: str) -> None:
        """Read the rule that an event of a function or a state machine is; one that is off is none."""
        if isinstance(event, dict) and event.get("Type") == "Schedule":
            # Time does not pass here: who wants to see what a schedule does invokes its function.
            return
        if not isinstance(event, dict) or event.get("Type") not in {"EventBridgeRule", "CloudWatchEvent"}:
            kind = event.get("Type") if isinstance(event, dict) else event
            raise TemplateError(f"{place}: the local cloud does not know the event type {kind!r}")
        properties = event.get("Properties") or {}
        place = f"{place}.Properties"
        refuse_unknown(properties, _RULE_EVENT_ACTIVE | _RULE_EVENT_PASSIVE, place)
        if self._stack.value(properties, "State", place, "ENABLED") != "ENABLED":
            return
        rule_name = self._stack.value(properties, "RuleName", place, f"{self._stack.stack_name}-{logical_id}{name}")
        self.found.append(
            self._rule(properties, rule_name, properties.get("Pattern"), target_arn, f"{place}.Pattern", place)
        )

    def resource(self, logical_id: str, resource: dict[str, Any]) -> None:
        """Read a rule that is a resource of its own, once per target."""
        place = f"Resources.{logical_id}.Properties"
        properties = self._stack.properties(logical_id, resource, _RULE_ACTIVE | _RULE_PASSIVE)
        if self._stack.value(properties, "State", place, "ENABLED") != "ENABLED":
            return
        for index, target in enumerate(properties.get("Targets") or []):
            where = f"{place}.Targets[{index}]"
            refuse_unknown(target, _TARGET_ACTIVE | _TARGET_PASSIVE, where)
            self.found.append(
                self._rule(
                    target,
                    self._stack.own_name(logical_id, resource),
                    properties.get("EventPattern"),
                    str(self._stack.value(target, "Arn", where)),
                    f"{place}.EventPattern",
                    where,
                )
            )

    def _rule(
        self, properties: Mapping[str, Any], name: str, pattern: Any, target_arn: str, pattern_place: str, place: str
    ) -> RuleSpec:
        resolved = self._stack.resolve(pattern, pattern_place)
        _check_pattern(resolved, pattern_place)
        retry = self._stack.value(properties, "RetryPolicy", place, {})
        input_text = self._stack.value(properties, "Input", place)
        if input_text is not None:
            try:
                json.loads(input_text)
            except (TypeError, ValueError) as error:
                raise TemplateError(f"{place}.Input: expected JSON text, got {input_text!r:.80}") from error
        input_path = self._stack.value(properties, "InputPath", place)
        if input_path is not None and not re.fullmatch(r"\$(\.[A-Za-z0-9_-]+)*", str(input_path)):
            raise TemplateError(f"{place}.InputPath: only plain paths like $.detail are understood")
        return RuleSpec(
            place=place,
            name=name,
            pattern=resolved,
            target_arn=target_arn,
            input_text=input_text,
            input_path=input_path,
            max_attempts=integer(
                retry.get("MaximumRetryAttempts", 185), f"{place}.RetryPolicy.MaximumRetryAttempts", 0, 185
            ),
            dead_letter_arn=self._stack.value(properties, "DeadLetterConfig", place, {}).get("Arn"),
        )


def _check_pattern(pattern: Any, place: str) -> None:
    if not isinstance(pattern, dict) or not pattern:
        raise TemplateError(f"{place}: expected an event pattern, got {pattern!r:.80}")
    for name, value in pattern.items():
        if isinstance(value, dict):
            _check_pattern(value, f"{place}.{name}")
        elif not isinstance(value, list) or not value:
            raise TemplateError(f"{place}.{name}: expected a list of values, got {value!r:.80}")
