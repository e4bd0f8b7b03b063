"""Every public name, given what it cannot use: a typed error that names the argument, and nothing is left behind."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import structureflow as sf
from structureflow import compat
from tests.contract.bad_arguments import Bad, bad_values
from tests.contract.client_calls import client_calls
from tests.contract.compat_calls import TOLD, compat_calls, original_places
from tests.contract.public_calls import Call, library_calls, make_places
from tests.contract.store_calls import cache_calls, store_calls

CALLS = library_calls() | store_calls() | cache_calls() | client_calls()
COMPAT_CALLS = compat_calls()
#: What callers implement or are given: no function of its own.
NO_CALLS = {"FlowArchive", "FlowSource", "Storage"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    make_places(folder)
    return folder


@pytest.fixture
def here(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(places)
    return places


@pytest.fixture(autouse=True)
def _original_places() -> Iterator[None]:
    with original_places():
        yield


def functions_of(module: Any) -> dict[str, Any]:
    """Return every public function of a module, with the constructors and methods of its classes."""
    found: dict[str, Any] = {}
    for name in module.__all__:
        thing = getattr(module, name)
        if name in NO_CALLS - {"FlowArchive"} or not callable(thing):
            continue
        if name not in NO_CALLS:
            found[name] = thing
        if inspect.isclass(thing):
            methods = inspect.getmembers(thing, inspect.isroutine)
            found |= {
                f"{name}.{method}": value
                for method, value in methods
                if method[0] != "_" and not hasattr(Exception, method)
            }
    return found


def seen(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        for path in sorted(folder.rglob("*"))
    }


def call(function: Any, arguments: dict[str, Any]) -> Any:
    result = function(**arguments)
    if isinstance(result, Iterator):
        return list(result)
    if isinstance(result, sf.VideoReader):
        with result:
            return len(list(result))
    return result


def test_every_public_name_is_called() -> None:
    assert set(CALLS) == set(functions_of(sf))
    ours = {name for name in functions_of(compat) if name.partition(".")[0] != "GuidanceTracker"}
    assert set(COMPAT_CALLS) == ours, "GuidanceTracker is the library's own"


def every_call() -> list[Any]:
    return [
        pytest.param(module, name, each, id=f"{module.__name__}-{name}")
        for module, calls in ((sf, CALLS), (compat, COMPAT_CALLS))
        for name, each in calls.items()
    ]


@pytest.mark.parametrize(("module", "name", "each"), every_call())
def test_every_parameter_has_values_that_it_cannot_be(module: Any, name: str, each: Call) -> None:
    parameters = inspect.signature(functions_of(module)[name]).parameters
    assert set(parameters) - {"self"} == {*each.kinds, *each.free}


@pytest.mark.parametrize(("module", "name", "each"), every_call())
@pytest.mark.usefixtures("here")
def test_the_call_itself_works(module: Any, name: str, each: Call) -> None:
    if not each.works:
        pytest.skip("needs more than is here")
    function, arguments = each.make()
    assert call(function, arguments) is not None or name not in TOLD


def cases(calls: dict[str, Call], *, told: bool) -> list[Any]:
    return [
        pytest.param(each, parameter, bad, id=f"{name}-{parameter}-{bad.name}")
        for name, each in calls.items()
        for parameter, kind in each.kinds.items()
        for bad in bad_values(kind)
        if (parameter in TOLD.get(name, ())) == told
    ]


@pytest.mark.parametrize(("each", "parameter", "bad"), [*cases(CALLS, told=False), *cases(COMPAT_CALLS, told=False)])
def test_what_cannot_be_used_is_a_typed_error(here: Path, each: Call, parameter: str, bad: Bad) -> None:
    function, arguments = each.make()
    before = seen(here)
    with pytest.raises(sf.StructureFlowError) as raised:
        call(function, arguments | {parameter: bad.value})
    assert seen(here) == before
    said = str(raised.value)
    assert any(word in said for word in (parameter, *bad.words)), said


@pytest.mark.parametrize(("each", "parameter", "bad"), cases(COMPAT_CALLS, told=True))
def test_what_the_original_told_of_is_none(here: Path, each: Call, parameter: str, bad: Bad) -> None:
    function, arguments = each.make()
    before = seen(here)
    said: list[str] = []
    assert call(function, arguments | {parameter: bad.value, "dprint": said.append}) is None
    assert seen(here) == before
    assert said[-1].startswith("[ERROR]")
    assert any(word in said[-1] for word in (parameter, *bad.words)), said
