"""The deployments of ``deployments/prefect.yaml``, registered with a Prefect server.

What a person changed on the server stays: a deployment that was paused, a schedule that was
switched on, added or edited there is left as it is. The command ``prefect deploy --all
--prefect-file deployments/prefect.yaml`` on the other hand sets everything back to what the file
says.
"""

import asyncio
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentScheduleUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, DeploymentSchedule, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ValidationError

from flows.stack.servers import POOL
from real_tasks.vocabulary.errors import UserInputError

FOLDER = Path(__file__).parents[2] / "deployments"
PREFECT_FILE = FOLDER / "prefect.yaml"
AUTOMATIONS = FOLDER / "automations"

_Model = TypeVar("_Model", bound=BaseModel)
_SETTABLE = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}


class PoolSpec(BaseModel):
    """The work pool of a deployment, and what its runs are started with."""

    name: str
    job_variables: dict[str, Any] = {}


class DeploymentSpec(BaseModel):
    """A deployment of ``prefect.yaml``."""

    name: str
    entrypoint: str
    description: str
    tags: list[str]
    parameters: dict[str, Any] = {}
    work_pool: PoolSpec
    concurrency_limit: ConcurrencyLimitConfig
    schedules: list[Schedule] = []


class PrefectFile(BaseModel):
    """What is read of a ``prefect.yaml``."""

    deployments: list[DeploymentSpec]


def register_all() -> list[str]:
    """Register every deployment and automation of the project with the server of this process.

    The stack's work pool is made, of the type process, where there is none. Flow runs start
    in the folder where this is called, so that relative paths in a form count from there.

    Returns:
        The names of the deployments, as ``experiment/experiment``.

    Raises:
        UserInputError: ``prefect.yaml`` is missing or wrong, or an entrypoint cannot be imported.
    """
    specs = [(spec, flow_of(spec)) for spec in read_deployments()]
    automations = read_automations()
    return asyncio.run(_register(specs, automations))


def read_deployments(path: Path = PREFECT_FILE) -> list[DeploymentSpec]:
    """Return the deployments that a ``prefect.yaml`` declares.

    Raises:
        UserInputError: there is no such file, or it is wrong.
    """
    return _read(path, PrefectFile, "does not declare deployments").deployments


def read_automations(folder: Path = AUTOMATIONS) -> list[AutomationCore]:
    """Return the automations of a folder, one a YAML file.

    Raises:
        UserInputError: a file is wrong.
    """
    paths = sorted(folder.glob("*.yaml"))
    return [_read(path, AutomationCore, "is no automation") for path in paths]


def flow_of(spec: DeploymentSpec) -> Flow[..., Any]:
    """Return the flow that a deployment names by ``package.module.function``.

    Raises:
        UserInputError: it cannot be imported, or is no flow.
    """
    module, _, name = spec.entrypoint.rpartition(".")
    try:
        flow = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserInputError(
            f"the deployment {spec.name!r} names {spec.entrypoint!r}, which cannot be imported "
            f"({error}); mend the entrypoint in {PREFECT_FILE}, or install what it needs"
        ) from error
    if not isinstance(flow, Flow):
        raise UserInputError(
            f"the deployment {spec.name!r} names {spec.entrypoint!r}, which is a "
            f"{type(flow).__name__}; expected a function under @flow"
        )
    return flow


async def _deployment(
    spec: DeploymentSpec, flow: Flow[..., Any], pool: WorkPool
) -> RunnerDeployment:
    deployment = await flow.ato_deployment(
        spec.name,
        concurrency_limit=spec.concurrency_limit,
        schedules=spec.schedules,
        parameters=spec.parameters,
        description=spec.description,
        tags=spec.tags,
        work_pool_name=pool.name,
        job_variables=spec.work_pool.job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    if pool.type == ProcessWorker.type:
        # Without a step of its own, a worker copies all of the folder where it was started.
        deployment.storage = LocalStorage(str(Path.cwd()))
    return deployment


async def _register(
    specs: list[tuple[DeploymentSpec, Flow[..., Any]]], automations: list[AutomationCore]
) -> list[str]:
    async with get_client() as client:
        pool = await _pool(client)
        names = []
        for spec, flow in specs:
            deployment = await _deployment(spec, flow, pool)
            names.append(deployment.full_name)
            if present := await _present(client, deployment.full_name):
                deployment.paused = present.paused
                deployment.schedules = _schedules(deployment.schedules or [], present.schedules)
            await deployment.aapply()
        for automation in automations:
            if not await client.read_automations_by_name(automation.name):
                await client.create_automation(automation)
    return names


def _schedules(
    declared: Iterable[DeploymentScheduleCreate | DeploymentScheduleUpdate],
    present: Iterable[DeploymentSchedule],
) -> list[DeploymentScheduleCreate | DeploymentScheduleUpdate]:
    """Return those that are there, as they are, and those of the file that are not there yet.

    All are sent together: Prefect removes what is not among them.
    """
    kept = [
        DeploymentScheduleCreate.model_validate(one.model_dump(include=_SETTABLE))
        for one in present
    ]
    slugs = {one.slug for one in kept}
    return [*kept, *(one for one in declared if one.slug not in slugs)]


async def _present(client: PrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


async def _pool(client: PrefectClient) -> WorkPool:
    try:
        return await client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        wanted = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
        return await client.create_work_pool(wanted)


def _read(path: Path, kind: type[_Model], fault: str) -> _Model:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserInputError(
            f"{path} cannot be read ({error.strerror}); deployments are registered from a checkout "
            "of the project: install it with `pip install -e .`"
        ) from error
    except yaml.YAMLError as error:
        raise UserInputError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        raise UserInputError(f"{path} {fault}: {error}") from error
