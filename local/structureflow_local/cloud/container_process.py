"""A container's process: started with a key, a log and a scratch folder of its own, and ended in time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from structureflow_local.cloud.processes import Spawner
from structureflow_local.cloud.signature import Key, Keyring
from structureflow_local.cloud.template import ContainerSpec


class ContainerProcesses:
    """Starts and ends the processes of containers, and knows whose key is whose.

    Args:
        keyring: gives every process a key of its own.
        environment: what a process needs to find the local AWS services, without credentials.
        state_dir: logs go to ``logs/{logical id}/`` below it, scratch folders to ``tmp/``.
    """

    def __init__(self, *, spawner: Spawner, keyring: Keyring, environment: Mapping[str, str], state_dir: Path) -> None:
        self._spawner = spawner
        self._keyring = keyring
        self._environment = environment
        self._state_dir = state_dir
        self._owners: dict[str, str] = {}

    def owner_of(self, access_key: str) -> str | None:
        """Return the logical id of the definition whose process signs with `access_key`."""
        return self._owners.get(access_key)

    def start(
        self,
        logical_id: str,
        container: ContainerSpec,
        overrides: Mapping[str, Any],
        program: Sequence[str],
        *,
        scratch: str,
        log: str,
        own: Mapping[str, str],
        on_exit: Callable[[int], None],
    ) -> int:
        """Start a process; return its id.

        Args:
            logical_id: of the definition.
            container: of the definition.
            overrides: of the start: ``environment`` and ``command``.
            program: what runs in place of the image; the container's command follows it.
            scratch, log: names of its folder and its log, without suffix.
            own: variables of this start.
            on_exit: called once with the exit code: as ECS reports it, 128 + the number of a signal that ended it.

        Raises:
            FunctionProcessError: it cannot be started.
        """
        folder = self._state_dir / "tmp" / scratch
        log_dir = self._state_dir / "logs" / logical_id
        folder.mkdir(parents=True)
        log_dir.mkdir(parents=True, exist_ok=True)
        key = self._keyring.issue()
        self._owners[key.access_key] = logical_id
        return self._spawner.spawn(
            [*program, *map(str, overrides.get("command", container.command))],
            env={**self._environment_of(container, overrides, folder, key), **own},
            cwd=folder,
            log_path=log_dir / f"{log}.log",
            on_exit=lambda code: on_exit(code if code >= 0 else 128 - code),
        )

    def stop(self, pid: int, within_s: float, has_ended: Callable[[], bool]) -> None:
        """Ask a process to end, in a thread of its own; end it when it does not in time."""

        def stop() -> None:
            self._spawner.send_signal(pid, signal.SIGTERM)
            deadline = time.monotonic() + within_s
            while time.monotonic() < deadline:
                if has_ended():
                    return
                time.sleep(0.02)
            self._spawner.kill(pid)

        threading.Thread(target=stop, name=f"stop-{pid}", daemon=True).start()

    def _environment_of(
        self, container: ContainerSpec, overrides: Mapping[str, Any], scratch: Path, key: Key
    ) -> dict[str, str]:
        """Return the whole environment: the container's own, what its start overrides, the local endpoint."""
        return {
            "HOME": str(scratch),
            "LANG": "en_US.UTF-8",
            "PATH": os.defpath,
            "TMPDIR": str(scratch),
            "PYTHONUNBUFFERED": "1",
            **container.environment,
            **{str(item["name"]): str(item["value"]) for item in overrides.get("environment", ())},
            **self._environment,
            "AWS_ACCESS_KEY_ID": key.access_key,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_SESSION_TOKEN": "local",
        }
