"""What the command line asks the stack's servers: whether they answer, what runs, what is due.

Plain HTTP: Prefect's own client takes seconds to import.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from storage.stack_state import StackState

Record = dict[str, Any]
POOL = "real"
"""Name of the work pool that the stack's worker serves."""

_TIMEOUT_S = 10.0
_HEALTH_TIMEOUT_S = 3.0
_UNFINISHED = ["RUNNING", "PENDING", "CANCELLING"]
_OF_POOL = {"work_pools": {"name": {"any_": [POOL]}}}


@dataclass(frozen=True)
class Servers:
    """Prefect's and MLflow's server, by their addresses.

    Attributes:
        prefect_url: address of Prefect's pages; its API is below ``/api``.
        mlflow_url: address of MLflow's.
        auth: ``user:password`` of both, None where they ask for none.
    """

    prefect_url: str
    mlflow_url: str
    auth: str | None = None

    @classmethod
    def of(cls, state: StackState) -> "Servers":
        """Return those of a stack."""
        return cls(state.prefect_url, state.mlflow_url, state.auth)

    def prefect_is_healthy(self) -> bool:
        """Return whether Prefect's API answers, and takes the password."""
        return self._answers(f"{self.prefect_url}/api/admin/version")

    def mlflow_is_healthy(self) -> bool:
        """Return whether MLflow's API answers, its database included, and takes the password."""
        query = "api/2.0/mlflow/experiments/search?max_results=1"
        return self._answers(f"{self.mlflow_url}/{query}")

    def runs_page(self, experiment: str) -> str:
        """Return the address of an experiment's runs in MLflow; of all of them without it."""
        query = f"{self.mlflow_url}/api/2.0/mlflow/experiments/get-by-name"
        with self._client() as client:
            found = client.get(query, params={"experiment_name": experiment})
        pages = f"{self.mlflow_url}/#/experiments"
        if not found.is_success:
            return pages
        return f"{pages}/{found.json()['experiment']['experiment_id']}/runs"

    def workers(self) -> list[Record]:
        """Return the workers of the pool; ``status`` is ONLINE for those that poll it."""
        return self._found(f"work_pools/{POOL}/workers", {})

    def unfinished_runs(self, of_pool: bool = True) -> list[Record]:
        """Return the flow runs that run, of the pool or all."""
        return self._runs(_UNFINISHED, **(_OF_POOL if of_pool else {}))

    def crashed_runs(self, since: datetime) -> list[Record]:
        """Return the flow runs of the pool that were set to Crashed after a time."""
        return self._runs(["CRASHED"], {"end_time": {"after_": since.isoformat()}}, **_OF_POOL)

    def scheduled_runs(self, limit: int) -> list[Record]:
        """Return the flow runs that are due next, the earliest first."""
        return self._runs(["SCHEDULED"], sort="EXPECTED_START_TIME_ASC", limit=limit)

    def run(self, run_id: str) -> Record:
        """Return a flow run."""
        found: Record = self._request("GET", f"flow_runs/{run_id}")
        return found

    def deployment_names(self) -> dict[str, str]:
        """Return the names of all deployments by their ids."""
        return {str(item["id"]): str(item["name"]) for item in self._found("deployments", {})}

    def set_run_state(self, run_id: str, kind: str, name: str, message: str) -> None:
        """Force a flow run into a state; a scheduled one is due at once."""
        state: Record = {"type": kind, "name": name, "message": message}
        if kind == "SCHEDULED":
            state["state_details"] = {"scheduled_time": datetime.now(UTC).isoformat()}
        forced = {"state": state, "force": True}
        self._request("POST", f"flow_runs/{run_id}/set_state", json=forced)

    def _runs(
        self, states: list[str], conditions: Record | None = None, **query: Any
    ) -> list[Record]:
        conditions = {"state": {"type": {"any_": states}}, **(conditions or {})}
        return self._found("flow_runs", {"flow_runs": conditions, **query})

    def _found(self, what: str, conditions: Record) -> list[Record]:
        found: list[Record] = self._request("POST", f"{what}/filter", json=conditions)
        return found

    def _request(self, verb: str, path: str, **options: Any) -> Any:
        with self._client() as client:
            answer = client.request(verb, f"{self.prefect_url}/api/{path}", **options)
        return answer.raise_for_status().json()

    def _answers(self, url: str) -> bool:
        try:
            with self._client() as client:
                return client.get(url, timeout=_HEALTH_TIMEOUT_S).is_success
        except httpx.HTTPError:
            return False

    def _client(self) -> httpx.Client:
        user, _, password = (self.auth or "").partition(":")
        auth = httpx.BasicAuth(user, password) if user else None
        # The servers are this machine's: no proxy of the environment is to be asked, and plain HTTP
        # has no certificates, which take 20 ms to read.
        return httpx.Client(auth=auth, timeout=_TIMEOUT_S, trust_env=False, verify=False)
