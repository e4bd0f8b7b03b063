"""Everything that is wrong with a job file, at once: its JSON, its fields, and what the files that it names hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from structureflow.errors import InvalidRequestError, MediaError
from structureflow.limits import MAX_VIDEO_FRAMES
from structureflow.models.bounds import check_request_bytes, check_shape, read_object
from structureflow.models.job import JobRequest
from structureflow.models.parts import Guide, StructureVideo, good_guides, good_sources
from structureflow.models.problems import Place, Problem, counted, nearest, problems_in
from structureflow.models.wishes import idle_wishes
from structureflow_local.client import fetched_input, local_file
from structureflow_local.material import ROLES, Film, Material, Role, look_at


@dataclass
class Findings:
    """What a look at a job file found.

    Attributes:
        document: its request; empty where it is none.
        problems: for which it cannot be run.
        warnings: what is asked for in vain, or was not looked at.
    """

    document: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The problems, a line each."""
        return list(dict.fromkeys(map(str, self.problems)))

    @property
    def remarks(self) -> list[str]:
        """The warnings, a line each."""
        return list(dict.fromkeys(map(str, self.warnings)))


def look_into(text: str, folder: Path, *, here: bool = False, changes: Mapping[str, Any] | None = None) -> Findings:
    """Look at the text of a job file, and into the files of this machine that it names.

    Args:
        text: its JSON, comments blanked out.
        folder: where relative paths in it start.
        here: whether it is to run on this machine, where names of no files lead nowhere; else they count as keys of a
            bucket, and are not looked at.
        changes: fields in place of the file's own.
    """
    found = Findings()
    try:
        check_request_bytes(len(text.encode()))
        document = read_object(text, "job file")
        document.pop("$schema", None)
        check_shape(document)
    except InvalidRequestError as error:
        lines = error.detail.get("problems", [error.message])
        found.problems = [Problem((), str(line).removeprefix("job file: ")) for line in lines]
        return found
    if not {"task_id", "orchestrator_task_id"} & set(document):
        document = {"task_id": "job", **document}
    found.document = document = document | dict(changes or {})
    request: JobRequest | None = None
    try:
        request = JobRequest.model_validate(document)
    except ValidationError as error:
        found.problems += problems_in(error)
    else:
        found.warnings += (_as_written(wish, document) for wish in idle_wishes(request))
    files = dict(_files(document, folder, found, here=here))
    material = look_at(dict.fromkeys(files.values()))
    told: set[tuple[Path, Role]] = set()
    for place, file in files.items():
        if file in material.refused and file not in told:
            told.add(file)
            found.problems.append(Problem(place, f"{_value_at(document, place)}: {material.refused[file]}"))
    _Ranges(document, files, material, found).check(request)
    return found


def _as_written(wish: Problem, document: dict[str, Any]) -> Problem:
    """Return what is said of a request with the place that it has in the document, whose sources may be unordered."""
    if wish.place[:1] == ("structure_videos",):
        sources = [source for _, source in good_sources(document)]
        order = sorted(range(len(sources)), key=lambda index: sources[index].start_frame)
        wish = Problem(("structure_videos", order[int(wish.place[1])], *wish.place[2:]), wish.sentence)
    return JobRequest.written(wish, document)


def _files(
    document: dict[str, Any], folder: Path, found: Findings, *, here: bool
) -> Iterator[tuple[Place, tuple[Path, Role]]]:
    """Iterate over the files that a document names, by their place; what leads nowhere is a problem."""
    for place, role, reference in references(document):
        if "://" in reference:
            if here and not reference.startswith("https://"):
                said = f"expected a file or an https:// URL, which a run on this machine can read, got {reference}"
                found.problems.append(Problem(place, said))
            continue
        path = folder / Path(reference).expanduser() if not reference.startswith("~") else _expanded(reference)
        if path is not None and path.is_dir():
            found.problems.append(Problem(place, f"expected a file, got the folder {reference}"))
            continue
        try:
            path = local_file(folder, reference) or fetched_input(folder, reference)
        except OSError:
            path, is_path = None, True
        else:
            is_path = here
        if path is not None:
            yield place, (path, role)
            continue
        near = near_file(folder, reference)
        if is_path or near:
            said = f"expected a file, got {reference}, which is not there{near}"
            found.problems.append(Problem(place, said))
        else:
            said = f"{reference} is no file of this machine; it counts as a key of the bucket and was not looked at"
            found.warnings.append(Problem(place, said))


def _expanded(reference: str) -> Path | None:
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path's own raises for users that there are not
    return None if str(path).startswith("~") else path


def references(node: Any, place: Place = (), name: str = "") -> Iterator[tuple[Place, Role, str]]:
    """Iterate over what a job file names that may be files, each with its place and what it should be."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from references(value, (*place, key), key)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from references(value, (*place, index), name)
    elif isinstance(node, str) and name in ROLES:
        yield place, ROLES[name], node


def near_file(folder: Path, reference: str) -> str:
    """Return a hint at a file whose name is near, in the folder where it would be."""
    path = folder / Path(reference)
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    # of a few letters, an extension alone would make any two names alike
    stems = {Path(name).stem: name for name in names if Path(name).suffix.lower() == path.suffix.lower()}
    near = nearest(path.stem, stems)
    return "" if near is None else f"; did you mean {stems[near]}?"


def _value_at(document: Any, place: Place) -> Any:
    for part in place:
        document = document[part]
    return document


class _Ranges:
    """Checks of what a document asks of its files against what they hold; each looks at its own fields alone."""

    def __init__(
        self,
        document: dict[str, Any],
        files: Mapping[Place, tuple[Path, Role]],
        material: Material,
        found: Findings,
    ) -> None:
        self._document = document
        self._files = files
        self._material = material
        self._found = found

    def check(self, request: JobRequest | None) -> None:
        """Check all; `request` is the document's, where it is one."""
        for place, guide in good_guides(self._document):
            self._check_guide(place, guide)
        for place, source in good_sources(self._document):
            self._check_source(place, source)
        video = self._film("structure_video", "structure_video_path")
        archive = self._archive()
        if archive is not None and video is not None:
            self._check_archive(*archive, video)
        if request is not None:
            self._check_size(request, video, archive)
            self._check_length(request, video, archive)

    def _check_guide(self, place: Place, guide: Guide) -> None:
        """Check that a guide's video has the frames that it shows."""
        film = self._film_at((*place, "video"))
        if film is None:
            return
        first, count = guide.from_frame, guide.last - guide.first + 1
        try:
            there = film.has(first + count)
        except MediaError as error:
            self._problem((*place, "video"), error.message)
            return
        if there < first + count:
            said = f"expected frames {first} to {first + count - 1}, as from and at say, got {counted(there, 'frame')}"
            self._problem((*place, "video"), f"{said} in all")

    def _check_source(self, place: Place, source: StructureVideo) -> None:
        """Check which part of a source is played."""
        film = self._film_at((*place, "path"))
        if film is None:
            return
        wanted = max(source.source_start_frame + 2, source.source_end_frame or 0)
        try:
            total = film.has(wanted)
        except MediaError as error:
            self._problem((*place, "path"), error.message)
            return
        if total < wanted:
            self._found.problems += [problem.below(*place) for problem in source.outside(total)]
            self._found.warnings += [problem.below(*place) for problem in source.cut_short(total)]

    def _check_archive(self, place: Place, meta: Any, film: Film) -> None:
        from structureflow.jobs.given_flows import check_fits

        try:
            frames = film.frames if film.frames == meta.total_flows + 1 else film.has(MAX_VIDEO_FRAMES)
            check_fits(meta, frames, film.info.width_px, film.info.height_px)
        except MediaError as error:
            self._problem(place, error.message)
        except InvalidRequestError as error:
            self._problem(place, error.message.removeprefix("flow_cache: "))

    def _check_size(self, request: JobRequest, video: Film | None, archive: tuple[Place, Any] | None) -> None:
        """Check the size of the output, and what must lie in it."""
        sources = [film for place, _ in good_sources(self._document) if (film := self._film_at((*place, "path")))]
        film = video or next(iter(sources), None)
        if film is not None:
            self._found.problems += request.problems_of_size(film.info.width_px, film.info.height_px)
        elif archive is not None:
            self._found.problems += request.problems_of_size(archive[1].original_width, archive[1].original_height)

    def _check_length(self, request: JobRequest, video: Film | None, archive: tuple[Place, Any] | None) -> None:
        """Warn of frames that the motion does not reach."""
        flows = None if video is None else video.frames - 1
        if archive is not None:
            flows = archive[1].total_flows
        if flows is None or request.treatment != "clip":
            return
        frames = [segment.unguided for segment in request.segments]
        played = sum(frames) if request.flow_span == "timeline" else max(frames)
        if played > flows:
            said = (
                f"clip plays {counted(flows, 'flow')}, and "
                f"{'all segments together have' if request.flow_span == 'timeline' else 'a segment has'} "
                f"{counted(played, 'unguided frame')}: {played - flows} stay without motion"
            )
            self._found.warnings.append(Problem(("treatment",), said))

    # --- where things are ------------------------------------------------------------------------------

    def _film(self, *names: str) -> Film | None:
        return next((film for name in names if (film := self._film_at((name,)))), None)

    def _film_at(self, place: Place) -> Film | None:
        file = self._files.get(place)
        return None if file is None else self._material.films.get(file)

    def _archive(self) -> tuple[Place, Any] | None:
        for name in ("flow_cache", "structure_flow_cache_url"):
            file = self._files.get((name,))
            if file is not None and file[0] in self._material.archives:
                return (name,), self._material.archives[file[0]]
        return None

    def _problem(self, place: Place, said: str) -> None:
        """Add a problem with the file that is named at a place."""
        self._found.problems.append(Problem(place, f"{_value_at(self._document, place)}: {said}"))
