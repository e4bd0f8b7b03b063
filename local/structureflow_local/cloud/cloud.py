"""The local cloud: the real template, run on this machine. See `LocalCloud`."""

from __future__ import annotations

import atexit
import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from structureflow.errors import InvalidRequestError
from structureflow_local.cloud import patches as moto_patches
from structureflow_local.cloud.activity import Activity
from structureflow_local.cloud.containers import check_commands, serve_containers
from structureflow_local.cloud.errors import LocalCloudError, UnknownResourceError
from structureflow_local.cloud.events import EventBus
from structureflow_local.cloud.function_pool import Invocation, InvocationResult
from structureflow_local.cloud.functions import DeadLetter, Functions
from structureflow_local.cloud.gateway import Call, Gateway
from structureflow_local.cloud.http_api import HttpApi
from structureflow_local.cloud.map_runs import run_distributed_maps
from structureflow_local.cloud.moto_services import Execution, MotoServices, execution_detail, object_event
from structureflow_local.cloud.processes import Spawner
from structureflow_local.cloud.queues import Queues
from structureflow_local.cloud.servers import Servers
from structureflow_local.cloud.signature import Keyring
from structureflow_local.cloud.template import BucketSpec, Template, load_template
from structureflow_local.cloud.tokens import Tokens
from structureflow_local.doors import DOCKER_HOST, OBJECT_POLICY, Doors

_API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"

_one_at_a_time = threading.Lock()


class LocalCloud:
    """Runs a SAM template on this machine: a context manager.

    S3, Step Functions, SQS, ECS and Batch are one server in this process, on loopback; functions are processes under
    AWS's runtime interface emulator; events find their targets by the template's own rules. There is one at a
    time per process, because moto keeps its state in the process.

    Args:
        template: path of the template; it is read here, so that its errors show before anything is started.
        state_dir: for logs and scratch files; default a temporary folder that is removed at the end.
        parameters: values of template parameters.
        persist: a folder that keeps the objects below `PERSISTED_PREFIXES` from one cloud to the next.
        extra_hosts: further addresses of this machine to listen on, on the same port.
        duplicate_events: deliver each event twice, as EventBridge sometimes does.
        task_commands: program and arguments that an ECS task or a Batch job runs here, by logical id of its definition;
            one without a command gets no capacity.
        async_retry_delays_s: pauses before the second and third try of an asynchronous call (AWS: 60 and 120 s), and
            of a message whose call failed (AWS: what its function set, or the queue's visibility timeout).
        concurrency: functions that run at the same time; more calls are throttled, as in an account with that quota.
            None lets calls wait for a process instead.
        token_keys: public keys (a JSON Web Key Set) of the issuer whose tokens the template's API takes.

    Raises:
        TemplateError: the template has something that cannot be run here.
    """

    def __init__(
        self,
        template: Path,
        *,
        state_dir: Path | None = None,
        parameters: Mapping[str, str] | None = None,
        persist: Path | None = None,
        extra_hosts: Sequence[str] = (),
        duplicate_events: bool = False,
        task_commands: Mapping[str, Sequence[str]] | None = None,
        async_retry_delays_s: Sequence[float] = (0.5, 1.0),
        concurrency: int | None = None,
        token_keys: Mapping[str, Any] | None = None,
    ) -> None:
        self.template: Template = load_template(template, parameters)
        self._wanted_state_dir = state_dir
        if persist is not None and persist.exists() and not persist.is_dir():
            raise InvalidRequestError(f"{persist}: expected a folder, got a file")
        self._persist = persist
        self._extra_hosts = tuple(extra_hosts)
        self._duplicate_events = duplicate_events
        self._retry_delays_s = tuple(async_retry_delays_s)
        self._concurrency = concurrency
        self._tokens = None if token_keys is None else Tokens(token_keys)
        self._task_commands = dict(task_commands or {})
        check_commands(self._task_commands, self.template)
        self._activity = Activity()
        self._execution_tokens: dict[str, int] = {}
        self._stack: contextlib.ExitStack | None = None
        self._functions: Functions
        self._gateway: Gateway
        self._bus: EventBus
        self._moto: MotoServices
        self._queues: Queues
        self._servers: Servers
        self._api_server: Servers | None = None
        self._client_lock = threading.Lock()
        self._keyring = Keyring()
        #: What `environment` hands out; of this cloud alone, so that nobody else on the machine can sign.
        self.key = self._keyring.issue()
        self.state_dir = Path()
        self.dead_letters: list[DeadLetter] = []

    # --- life ----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start everything; nothing is left behind when that fails.

        Raises:
            LocalCloudError: another local cloud runs in this process, or an address cannot be bound.
        """
        if not _one_at_a_time.acquire(blocking=False):
            raise LocalCloudError("another local cloud runs in this process; close it first")
        stack = contextlib.ExitStack()
        stack.callback(_one_at_a_time.release)
        try:
            self._start(stack)
        except BaseException:
            stack.close()
            raise
        self._stack = stack
        atexit.register(self.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything and wait until no process is left; does nothing the second time."""
        stack, self._stack = self._stack, None
        if stack is not None:
            atexit.unregister(self.close)
            stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        if self._wanted_state_dir is None:
            self.state_dir = Path(tempfile.mkdtemp(prefix="structureflow-"))
            stack.callback(shutil.rmtree, self.state_dir, ignore_errors=True)
        else:
            self.state_dir = self._wanted_state_dir.resolve()
            self.state_dir.mkdir(parents=True, exist_ok=True)
        # Before moto is imported: its import takes a second, in which the processes start.
        self._servers = Servers(["127.0.0.1", *self._extra_hosts], self.state_dir / "server.log")
        stack.callback(self._servers.close)
        spawner = Spawner(
            self.state_dir / "spawner.log", remove_at_end=None if self._wanted_state_dir else self.state_dir
        )
        prewarm = threading.Thread(target=lambda: self._functions.prewarm(), name="prewarm", daemon=True)
        stack.callback(lambda: prewarm.join() if prewarm.ident is not None else None)
        stack.callback(spawner.close)
        self._functions = Functions(
            self.template.functions,
            spawner=spawner,
            keyring=self._keyring,
            activity=self._activity,
            endpoint_url=self.endpoint_url,
            region=self.region,
            state_dir=self.state_dir,
            retry_delays_s=self._retry_delays_s,
            deliver=self._deliver,
            dead_letters=self.dead_letters,
            concurrency=self._concurrency,
        )
        stack.callback(self._functions.close)
        prewarm.start()
        self._start_moto(stack, spawner)
        if self._functions.with_routes:
            self._api_server = Servers(["127.0.0.1"], self.state_dir / "server.log")
            stack.callback(self._api_server.close)
            cors = self.template.cors
            api = HttpApi(self._functions.with_routes, self._functions, self._keyring, tokens=self._tokens, cors=cors)
            self._api_server.start(Doors(api, policy=_API_POLICY, origins=cors.origins if cors else ()))

    def _start_moto(self, stack: contextlib.ExitStack, spawner: Spawner) -> None:
        self._moto = MotoServices(self.template, stack, self.state_dir / "moto.log")
        self._gateway = Gateway(self._moto.app, self._functions, self._keyring)
        self._bus = EventBus(
            self.template.rules,
            activity=self._activity,
            region=self.region,
            account_id=self.template.account_id,
            deliver=self._deliver,
            dead_letters=self.dead_letters,
            duplicate=self._duplicate_events,
        )
        stack.callback(self._bus.close)
        serve_containers(
            self._gateway,
            self.template,
            commands=self._task_commands,
            spawner=spawner,
            keyring=self._keyring,
            activity=self._activity,
            environment={name: value for name, value in self.environment().items() if "KEY" not in name},
            state_dir=self.state_dir,
            publish=self._bus.publish,
        )
        patches = moto_patches.Patches()
        stack.callback(patches.undo)
        moto_patches.remember_modules(patches)
        moto_patches.route_s3_notifications(patches, self._on_object_change)
        moto_patches.read_only_ranges(patches)
        moto_patches.route_lambda_tasks(patches, self._functions)
        moto_patches.route_service_tasks(patches, self.endpoint_url, self._keyring.issue())
        moto_patches.mend_task_tokens(patches)
        moto_patches.name_executions(patches)
        moto_patches.allow_passing_on_errors(patches)
        run_distributed_maps(patches)
        moto_patches.watch_executions(patches, self._on_execution_start, self._on_execution_end)

        self._moto.create(stack, self._persist)
        self._queues = Queues(
            self.template.event_sources,
            self.template.queues,
            backend=self._moto.queues,
            functions=self._functions,
            activity=self._activity,
            region=self.region,
            retry_delays_s=self._retry_delays_s,
        )
        stack.callback(self._queues.close)
        # Containers reach the further addresses by Docker's name for their host.
        names = (*self._extra_hosts, DOCKER_HOST) if self._extra_hosts else ()
        self._queues.start()
        self._servers.start(Doors(self._gateway, hosts=names, policy=OBJECT_POLICY, subdomains=True))

    # --- what there is -------------------------------------------------------------------------------

    @property
    def endpoint_url(self) -> str:
        """Where all AWS services are."""
        return f"http://127.0.0.1:{self._servers.port}"

    @property
    def api_url(self) -> str:
        """Where the HTTP API of the template is.

        Raises:
            UnknownResourceError: no function has an HttpApi event.
        """
        if self._api_server is None:
            raise UnknownResourceError("the template has no HTTP API")
        return f"http://127.0.0.1:{self._api_server.port}"

    @property
    def region(self) -> str:
        """The region that all resources are in."""
        return self.template.region

    @property
    def invocations(self) -> list[Invocation]:
        """Every call of a function so far, in order of their ends; a copy."""
        return list(self._functions.invocations)

    @property
    def throttles(self) -> int:
        """Calls of functions that were refused for want of `concurrency`."""
        return self._functions.throttles

    @property
    def calls(self) -> list[Call]:
        """Every request to the services so far, with the function that made it; a copy."""
        return list(self._gateway.calls)

    def environment(self) -> dict[str, str]:
        """Return the variables with which any AWS SDK or CLI in another process finds this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.key.access_key,
            "AWS_SECRET_ACCESS_KEY": self.key.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """Return a new boto3 client of `service` for this cloud."""
        import boto3
        from botocore.config import Config

        # Sessions make clients one at a time (boto3 guide, "Multithreading"); no proxy stands before loopback.
        with self._client_lock:
            return boto3.Session(
                aws_access_key_id=self.key.access_key,
                aws_secret_access_key=self.key.secret,
                region_name=self.region,
            ).client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.endpoint_url,
                config=Config(proxies={}, read_timeout=960, retries={"mode": "standard"}),
            )

    def bucket(self, logical_id: str) -> str:
        """Return the name of a bucket.

        Raises:
            UnknownResourceError: no bucket has that logical id.
        """
        if logical_id not in self.template.buckets:
            raise UnknownResourceError(f"no bucket {logical_id!r}; there are {', '.join(self.template.buckets)}")
        return self.template.buckets[logical_id].name

    def physical_id(self, logical_id: str) -> str:
        """Return what ``Ref`` of a resource gives.

        Raises:
            UnknownResourceError: no resource has that logical id (or its condition does not hold).
        """
        if logical_id not in self.template.physical_ids:
            raise UnknownResourceError(f"no resource {logical_id!r} in {self.template.path}")
        return self.template.physical_ids[logical_id]

    def executions(self, logical_id: str) -> list[Execution]:
        """Return the runs of a state machine, oldest first.

        Raises:
            UnknownResourceError: no state machine has that logical id.
        """
        spec = self.template.state_machines.get(logical_id)
        if spec is None:
            raise UnknownResourceError(
                f"no state machine {logical_id!r}; there are {', '.join(self.template.state_machines)}"
            )
        return self._moto.executions(spec.arn)

    # --- what can be done ----------------------------------------------------------------------------

    def invoke(self, function_logical_id: str, payload: Mapping[str, Any]) -> InvocationResult:
        """Call a function and wait for its result; an error of the function is in the result, not raised.

        Raises:
            UnknownResourceError: no function has that logical id.
            FunctionProcessError: its process cannot be started.
        """
        return self._functions.invoke(function_logical_id, json.dumps(payload).encode())

    def wait_idle(self, timeout_s: float) -> None:
        """Wait until no event, call, execution or task is under way.

        Raises:
            IdleTimeoutError: something still is after `timeout_s`; the message says what.
        """
        self._activity.wait_idle(timeout_s)

    # --- events --------------------------------------------------------------------------------------

    def _on_object_change(self, event_name: str, bucket: Any, key: Any) -> None:
        spec = self._event_bucket(bucket.name)
        if spec is None:
            return
        event = object_event(event_name, bucket, key, versioned=spec.versioned)
        if event is not None:
            detail_type, detail = event
            announce = self._bus.announce("aws.s3", detail_type, [f"arn:aws:s3:::{bucket.name}"], detail)
            self._gateway.after_answer(announce)

    def _event_bucket(self, name: str) -> BucketSpec | None:
        return next((spec for spec in self.template.buckets.values() if spec.name == name and spec.event_bridge), None)

    def _on_execution_start(self, execution: Any) -> None:
        self._execution_tokens[execution.exec_arn] = self._activity.begin(f"execution {execution.name}")

    def _on_execution_end(self, execution: Any) -> None:
        token = self._execution_tokens.pop(execution.exec_arn, None)
        detail = execution_detail(execution)
        self._bus.publish("aws.states", "Step Functions Execution Status Change", [execution.exec_arn], detail)
        if token is not None:
            self._activity.end(token)

    def _deliver(self, target_arn: str, event: Any) -> None:
        """Hand an event to a function, state machine or queue.

        Raises:
            LocalCloudError: it does not take it.
        """
        body = json.dumps(event)
        service = target_arn.split(":")[2]
        if service == "lambda":
            self._functions.invoke_async(target_arn, body.encode())
        elif service == "states":
            self._moto.start_execution(target_arn, body)
        elif service == "sqs":
            self._queues.send(target_arn, body)
        else:
            raise LocalCloudError(f"nothing here takes events for {target_arn}")
