"""What somebody else may do to a job's bucket at any moment: the user, a colleague, a bad disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from structureflow import keys
from structureflow.testing.deployment import Deployment
from tests.faults.scenes import IMAGES, JOBS, OTHER_VIDEO, VIDEO, document, inputs


def rot(data: bytes) -> bytes:
    """Return rotten bytes all over, of which an archive's tables at its end stay whole."""
    changed = bytearray(data)
    for position in range(len(data) // 20, len(data) * 3 // 4, 7):
        changed[position] ^= 0x55
    return bytes(changed)


#: What may become of an object; None: it is gone.
DAMAGE: Final[dict[str, Callable[[bytes], bytes | None]]] = {
    "gone": lambda _: None,
    "rotten": rot,
    "cut": lambda data: data[: len(data) // 2],
    "other": lambda _: b"something else",
}


@dataclass
class Meddler:
    """Does one of many things each time it is asked, and remembers what may no longer be expected.

    Attributes:
        tasks: the jobs, and the name of what each asks for now.
        deleted: jobs whose request is gone.
        headless: jobs whose status somebody took or spoiled.
        spoiled: jobs whose published results somebody touched.
        spoiled_caches: whether a shared archive, frame or manifest was touched.
        unrecorded: records of runs that somebody took away.
        forged: jobs of which somebody touched what a run left for its own later steps.
    """

    tasks: dict[str, str]
    deleted: set[str] = field(default_factory=set)
    headless: set[str] = field(default_factory=set)
    spoiled: set[str] = field(default_factory=set)
    spoiled_caches: bool = False
    forged: set[str] = field(default_factory=set)
    unrecorded: set[str] = field(default_factory=set)

    def __call__(self, deployment: Deployment, chance: float) -> None:
        """Do something; `chance`, from 0 to 1, says what."""
        acts = list(self._acts(deployment))
        name, act = acts[int(chance * len(acts))]
        deployment.note(f"    somebody: {name}")
        act()

    def restore(self, deployment: Deployment) -> None:
        """Put the inputs back as they were."""
        for key, data in inputs().items():
            if not deployment.bucket.exists(key) or deployment.bucket.get(key).data != data:
                deployment.bucket.put(key, data)

    def put(self, deployment: Deployment, task_id: str, job: str) -> None:
        """Put a job's request, the same again or another one."""
        self.tasks[task_id] = job
        self.deleted.discard(task_id)
        self.headless.discard(task_id)
        deployment.put_request(task_id, document(job, task_id))

    def _put_again(self, deployment: Deployment, task_id: str) -> None:
        self.put(deployment, task_id, self.tasks[task_id])

    def _put_other(self, deployment: Deployment, task_id: str, others: Sequence[str]) -> None:
        self.put(deployment, task_id, others[int(deployment.faults.chance("job", task_id) * len(others))])

    def _acts(self, deployment: Deployment) -> Iterator[tuple[str, Callable[[], None]]]:
        bucket = deployment.bucket
        for task_id in self.tasks:
            yield f"puts {task_id} again", partial(self._put_again, deployment, task_id)
            others = [job for job in JOBS if job not in ("gpu", self.tasks[task_id])]
            yield (
                f"puts another {task_id}",
                partial(self._put_other, deployment, task_id, others),
            )
            yield f"deletes the request of {task_id}", partial(self._delete_request, deployment, task_id)
            yield f"deletes job {task_id}", partial(self._delete_job, deployment, task_id)
        yield "replaces the video", lambda: self._replace(deployment, VIDEO, inputs()[OTHER_VIDEO])
        yield "replaces an image", lambda: self._replace(deployment, IMAGES[0], inputs()[IMAGES[1]])
        for key in (VIDEO, *IMAGES):
            for damage in DAMAGE:
                yield f"makes {key} {damage}", partial(self._damage, deployment, key, damage)
        for info in list(bucket.list("cache/")):
            for damage in DAMAGE:
                yield (
                    f"makes {info.key} {damage}",
                    partial(self._damage, deployment, info.key, damage),
                )
        for info in list(bucket.list("jobs/")):
            if info.key.endswith("/request.json"):
                continue
            for damage in DAMAGE:
                yield (
                    f"makes {info.key} {damage}",
                    partial(self._damage, deployment, info.key, damage),
                )

    def _delete_request(self, deployment: Deployment, task_id: str) -> None:
        self.deleted.add(task_id)
        deployment.bucket.delete([keys.job_request(task_id)])

    def _delete_job(self, deployment: Deployment, task_id: str) -> None:
        self.deleted.add(task_id)
        self.headless.add(task_id)
        deployment.bucket.delete([info.key for info in deployment.bucket.list(keys.job_prefix(task_id))])

    def _replace(self, deployment: Deployment, key: str, data: bytes) -> None:
        deployment.bucket.put(key, data)

    def _damage(self, deployment: Deployment, key: str, damage: str) -> None:
        bucket = deployment.bucket
        if not bucket.exists(key):
            return
        changed = DAMAGE[damage](bucket.get(key).data)
        task_id = keys.job_of(key)
        if key.startswith("cache/"):
            self.spoiled_caches = True
        elif task_id is not None and key == keys.job_status(task_id):
            self.headless.add(task_id)
            # Nobody knows any more whose results lie at the documented keys.
            self.spoiled.add(task_id)
        elif task_id is not None and key.startswith(keys.runs_prefix(task_id)):
            self.forged.add(task_id)
            if changed is None and key.endswith("/job.json"):
                self.unrecorded.add(key)
        elif task_id is not None and key != keys.job_flows(task_id):
            self.spoiled.add(task_id)
        if changed is None:
            bucket.delete([key])
        else:
            bucket.put(key, changed)
