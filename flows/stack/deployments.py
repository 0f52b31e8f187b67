"""The deployments of ``deployments/prefect.yaml``, registered with a Prefect server.

What a person changed on the server stays: a deployment that was paused, a schedule that was
switched on, added or edited there is left as it is. The command ``prefect deploy --all
--prefect-file deployments/prefect.yaml`` on the other hand sets everything back to what the file
says.
"""

import asyncio
import importlib
from pathlib import Path
from typing import Any

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
from prefect.client.schemas.schedules import construct_schedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ConfigDict, ValidationError

from real_tasks.vocabulary.errors import UserInputError

FOLDER = Path(__file__).parents[2] / "deployments"
PREFECT_FILE = FOLDER / "prefect.yaml"
AUTOMATIONS = FOLDER / "automations"

_SETTABLE = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}


class ScheduleSpec(BaseModel):
    """A schedule of ``prefect.yaml``: cron, or an interval in seconds."""

    model_config = ConfigDict(extra="forbid")

    slug: str
    cron: str | None = None
    interval: int | None = None
    timezone: str | None = None
    active: bool = False
    parameters: dict[str, Any] = {}

    def wanted(self) -> DeploymentScheduleCreate:
        """Return it as Prefect takes it."""
        when = self.model_dump(include={"cron", "interval", "timezone"})
        return DeploymentScheduleCreate(
            schedule=construct_schedule(**when),
            **self.model_dump(include={"slug", "active", "parameters"}),
        )


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
    schedules: list[ScheduleSpec] = []


def register_all(pool: str) -> list[str]:
    """Register every deployment and automation of the project with the server of this process.

    The work pool is made, of the type process, where there is none of that name. Flow runs start
    in the folder where this is called, so that relative paths in a form count from there.

    Returns:
        The names of the deployments, as ``experiment/experiment``.

    Raises:
        UserInputError: ``prefect.yaml`` is missing or wrong, or an entrypoint cannot be imported.
    """
    specs = [(spec, flow_of(spec)) for spec in read_deployments()]
    automations = read_automations()
    return asyncio.run(_register(pool, specs, automations))


def read_deployments(path: Path = PREFECT_FILE) -> list[DeploymentSpec]:
    """Return the deployments that a ``prefect.yaml`` declares.

    Raises:
        UserInputError: there is no such file, or it is wrong.
    """
    tree = _read_yaml(path)
    try:
        return [DeploymentSpec.model_validate(one) for one in tree["deployments"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise UserInputError(f"{path} does not declare deployments: {error}") from error


def read_automations(folder: Path = AUTOMATIONS) -> list[AutomationCore]:
    """Return the automations of a folder, one a YAML file.

    Raises:
        UserInputError: a file is wrong.
    """
    found = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            found.append(AutomationCore.model_validate(_read_yaml(path)))
        except ValidationError as error:
            raise UserInputError(f"{path} is no automation: {error}") from error
    return found


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


async def deployment_of(
    spec: DeploymentSpec, flow: Flow[..., Any], pool: WorkPool
) -> RunnerDeployment:
    """Return Prefect's deployment, without its schedules."""
    deployment = await flow.ato_deployment(
        spec.name,
        concurrency_limit=spec.concurrency_limit,
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
    pool_name: str,
    specs: list[tuple[DeploymentSpec, Flow[..., Any]]],
    automations: list[AutomationCore],
) -> list[str]:
    async with get_client() as client:
        pool = await _pool(client, pool_name)
        names = []
        for spec, flow in specs:
            deployment = await deployment_of(spec, flow, pool)
            name = f"{flow.name}/{spec.name}"
            present = await _present(client, name)
            deployment.paused = present.paused if present else False
            deployment.schedules = _schedules(spec, present.schedules if present else [])
            await deployment.aapply()
            names.append(name)
        for automation in automations:
            if not await client.read_automations_by_name(automation.name):
                await client.create_automation(automation)
    return names


def _schedules(
    spec: DeploymentSpec, present: list[DeploymentSchedule]
) -> list[DeploymentScheduleCreate | DeploymentScheduleUpdate]:
    """Return those that are there, as they are, and those of the file that are not there yet.

    All are sent together: Prefect removes what is not among them.
    """
    slugs = {schedule.slug for schedule in present}
    kept = [
        DeploymentScheduleCreate.model_validate(one.model_dump(include=_SETTABLE))
        for one in present
    ]
    return [*kept, *(one.wanted() for one in spec.schedules if one.slug not in slugs)]


async def _present(client: PrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return await client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


async def _pool(client: PrefectClient, name: str) -> WorkPool:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        wanted = WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
        return await client.create_work_pool(wanted)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserInputError(
            f"{path} cannot be read ({error.strerror}); deployments are registered from a checkout "
            "of the project: install it with `pip install -e .`"
        ) from error
    except yaml.YAMLError as error:
        raise UserInputError(f"{path} is no YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserInputError(f"{path} holds a {type(tree).__name__}, expected a mapping")
    return tree
