"""Models of what comes from outside that say everything that is wrong, not only the first thing.

Pydantic looks at all fields of an object, but a rule that joins several of them is not even asked once a single field
is bad. Here each rule is asked of those fields that are good, so that whoever wrote the document mends it in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from structureflow.limits import MAX_PROBLEMS
from structureflow.models.problems import Problem, problems_in, refused, shown

#: Good fields of the object that is looked at, by their names.
_good: Final[ContextVar[dict[str, Any]]] = ContextVar("_good")


class RequestModel(BaseModel):
    """Base of all parts of a request: frozen, unknown fields refused, everything that is wrong said at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=False)

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem], frozenset[str]]:
        """Return the object as its fields are read, before they are.

        Returns:
            The object; what is wrong with it already; names of fields that nothing more is to be said of.
        """
        return data, [], frozenset()

    @classmethod
    def rules(cls, good: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Problem]:  # noqa: ARG003
        """Iterate over what several fields together are refused for.

        Args:
            good: values of the fields that are good, defaults included. Of a list of `items_of`, items that are bad
                are None.
            said: the object as it came, prepared.
        """
        return iter(())

    @classmethod
    def known_names(cls) -> list[str]:
        """Return the names of all fields as a document is meant to write them."""
        return [field.serialization_alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def written(cls, problem: Problem, data: Mapping[str, Any]) -> Problem:
        """Return a problem with its place as the document, `data`, calls it."""
        first = problem.place[0] if problem.place else None
        if not isinstance(first, str) or first in data or first not in cls.model_fields:
            return problem
        name = next((one for one in _names_of(cls, first) if one in data), _names_of(cls, first)[0])
        return Problem((name, *problem.place[1:]), problem.sentence)

    @field_validator("*", mode="after")
    @classmethod
    def _keep(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name is not None:
            _good.get()[info.field_name] = value
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, cls):
            return handler(data)
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, got {shown(data)}")
        said, problems, settled = cls.prepared(data)
        token = _good.set({})
        try:
            model = handler(said)
            good: Mapping[str, Any] = model.__dict__
        except ValidationError as error:
            found = _problems_of_fields(cls, error, said)
            problems += [problem for problem in found if not settled.intersection(problem.place[:1])]
            good = _with_defaults(cls, _good.get(), said)
        finally:
            _good.reset(token)
        if settled:
            good = {name: value for name, value in good.items() if name not in settled}
        problems += cls.rules(good, said)
        if problems:
            raise refused(cls.__name__, dict.fromkeys(cls.written(problem, data) for problem in problems))
        return model


def items_of(model: type[RequestModel], most: int) -> BeforeValidator:
    """Look at a list of objects one by one; once `MAX_PROBLEMS` of them are bad, no further.

    A list of thousands of bad objects takes a kilobyte for each of their fields.

    Args:
        model: of the objects.
        most: a longer list is refused before any of them is looked at.
    """

    def check(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"expected a list, got {shown(value)}")
        if len(value) > most:
            raise ValueError(f"expected at most {most} items, got {len(value)}")
        items: list[RequestModel | None] = []
        problems: list[Problem] = []
        for index, item in enumerate(value):
            try:
                items.append(model.model_validate(item))
            except ValidationError as error:
                items.append(None)
                problems += [problem.below(index) for problem in problems_in(error)]
                if items.count(None) == MAX_PROBLEMS:
                    items += [None] * (len(value) - len(items))
                    break
        if problems:
            if info.field_name is not None:
                _good.get()[info.field_name] = tuple(items)
            raise refused(model.__name__, problems)
        return tuple(items)

    return BeforeValidator(check)


def is_said(said: Mapping[str, Any], model: type[RequestModel], name: str) -> bool:
    """Tell whether an object has a field, good or bad, under any of its names; null counts as none."""
    return any(said.get(one) is not None for one in _names_of(model, name))


@cache
def _names_of(model: type[RequestModel], name: str) -> Sequence[str]:
    alias = model.model_fields[name].validation_alias
    others = [one for one in alias.choices if isinstance(one, str)] if isinstance(alias, AliasChoices) else []
    return list(dict.fromkeys([*others, name]))


def _problems_of_fields(
    model: type[RequestModel], error: ValidationError, said: Mapping[str, Any]
) -> Iterator[Problem]:
    """Iterate over the bad fields; a field that is there under two of its names is no unknown one."""
    twins = {one: names for name in model.model_fields for names in [_names_of(model, name)] for one in names}
    for problem in problems_in(error, model.known_names()):
        first = problem.place[0] if problem.place else None
        both = [name for name in twins.get(str(first), ()) if name in said]
        if problem.sentence.startswith("unknown field") and len(problem.place) == 1 and len(both) > 1:
            yield Problem(problem.place, f"expected one of {' and '.join(both)}, which mean the same, got both")
        else:
            yield problem


def _with_defaults(model: type[RequestModel], good: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the good fields with the defaults of those that are not there."""
    found = dict(good)
    for name, field in model.model_fields.items():
        if name not in found and not field.is_required() and not any(one in said for one in _names_of(model, name)):
            found[name] = field.get_default(call_default_factory=True, validated_data={})
    return found
