"""The files under deployments/: each is looked at as far as it goes without what it is for."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.benchmarks import speed_table

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deployments"
COMPOSE = FOLDER / "compose.yaml"
SERVICE_KEYS = {
    *("image", "build", "command", "environment", "volumes", "ports", "depends_on"),
    *("healthcheck", "restart", "init", "deploy", "shm_size"),
}
"""Keys of https://github.com/compose-spec/compose-spec/blob/main/05-services.md that are used."""
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / "kubernetes/real.yaml").read_text()))


def dockerfile() -> list[str]:
    """Return the instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def ran(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_the_compose_file_parses_by_the_plug_in() -> None:
    if shutil.which("docker") is None or ran("docker", "compose", "version").returncode:
        pytest.skip("docker's compose plug-in is not installed")
    for files in ([COMPOSE], [COMPOSE, FOLDER / "compose.gpu.yaml"]):
        given = [part for file in files for part in ("-f", str(file))]
        found = ran("docker", "compose", *given, "config", "-q", POSTGRES_PASSWORD="x")
        assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_file_holds_services_of_known_keys_and_declared_volumes(name: str) -> None:
    tree = yaml.safe_load((FOLDER / name).read_text())
    assert {key for key in tree if not key.startswith("x-")} <= {"name", "services", "volumes"}
    volumes = set(compose()["volumes"])
    for service, body in tree["services"].items():
        assert set(body) <= SERVICE_KEYS, service
        for mounted in body.get("volumes", []):
            source = mounted.split(":")[0]
            assert source in volumes or (FOLDER / source).is_file(), mounted
        for published in body.get("ports", []):
            assert published.startswith("127.0.0.1:"), "without a password on this machine only"


def test_services_wait_for_services_that_can_say_that_they_are_healthy() -> None:
    services = compose()["services"]
    from_image = [line for line in dockerfile() if line.startswith("HEALTHCHECK")]
    for name, body in services.items():
        for other, wait in body.get("depends_on", {}).items():
            assert wait["condition"] in CONDITIONS
            if wait["condition"] == "service_healthy":
                checked = services[other].get("healthcheck") or (from_image and "build" in body)
                assert checked, f"{name} waits for {other}"
    assert services["prefect"]["environment"]["HEALTH_URL"].endswith(":4200/api/health")
    assert services["mlflow"]["environment"]["HEALTH_URL"].endswith(":5000/health")


def test_secrets_come_from_the_environment_and_its_example_names_them() -> None:
    text = COMPOSE.read_text()
    named = set(re.findall(r"\$\{([A-Z_]+)", text)) - {"REAL_IMAGE", "TORCH_INDEX_URL"}
    example = (FOLDER / "compose.env.example").read_text()
    assert named == set(re.findall(r"^([A-Z_]+)=", example, re.M))
    assert re.search(r"^POSTGRES_PASSWORD=$", example, re.M)
    for password in re.findall(r"(?:PASSWORD|TOKEN): (.*)", text):
        assert password.startswith("${"), password
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert ".env" in ignored
    assert "deployments/.env" in (FOLDER / "Dockerfile.dockerignore").read_text().split()


def test_both_databases_are_made_for_the_servers_that_connect_to_them() -> None:
    wanted = set(re.findall(r"postgres:5432/(\w+)", COMPOSE.read_text()))
    for sql in (
        (FOLDER / "postgres/databases.sql").read_text(),
        next(m for m in manifests() if m["metadata"]["name"] == "postgres-databases")["data"][
            "databases.sql"
        ],
    ):
        assert wanted == set(re.findall(r"CREATE DATABASE (\w+);", sql)) == {"prefect", "mlflow"}


def test_the_dockerfile_copies_what_is_there_and_lets_it_into_the_build() -> None:
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    copied = [line.split()[1:-1] for line in dockerfile() if line.startswith("COPY")]
    for source in (path for paths in copied for path in paths):
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in allowed, source
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package in packages["packages"]["find"]["include"]:
        assert [package.rstrip("*")] in copied


def test_the_dockerfile_uses_its_arguments_and_ends_as_a_user_without_rights() -> None:
    lines = dockerfile()
    for line in lines:
        if line.startswith("ARG"):
            name = line.split()[1].split("=")[0]
            assert any(f"${{{name}" in other for other in lines), name
    stages = [line.split()[-1] for line in lines if line.startswith("FROM")]
    assert {"cpu", "cuda"} <= set(stages)
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["real"]
    after = lines[lines.index("USER real") :]
    assert not any(line.startswith(("RUN", "COPY")) for line in after)
    installed = [line for line in lines if "pip install" in line]
    assert installed and all("-c deployments/constraints.txt" in line for line in installed)


def test_the_image_s_extras_are_those_of_the_project() -> None:
    (line,) = [line for line in dockerfile() if line.startswith("ARG EXTRAS")]
    extras = shlex.split(line)[1].partition("=")[2].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert {"ray", "postgres"} <= set(extras)


def test_the_health_check_of_the_image_is_a_program() -> None:
    (line,) = [line for line in dockerfile() if "CMD" in line and "HEALTHCHECK" in line]
    command = json.loads(line[line.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")


@pytest.mark.parametrize("name", ["single-node.sbatch", "ray.sbatch"])
def test_slurm_scripts_are_valid_bash_and_name_what_a_job_needs(name: str) -> None:
    script = FOLDER / "slurm" / name
    found = ran("bash", "-n", str(script))
    assert found.returncode == 0, found.stderr
    text = script.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.M))
    assert {"nodes", "cpus-per-task", "time", "output"} <= set(options)
    assert "set -euo pipefail" in text and "real run" in text and '"$@"' in text
    unset = ran("bash", str(script), REAL_HOME="")
    assert unset.returncode != 0 and "REAL_HOME" in unset.stderr


@pytest.mark.parametrize("name", ["single-node.sbatch", "ray.sbatch"])
def test_shellcheck_finds_nothing_in_slurm_scripts(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    found = ran("shellcheck", "--exclude=SC1091", str(FOLDER / "slurm" / name))
    assert found.returncode == 0, found.stdout


def called(calls: Path, awaited: str) -> list[str]:
    """The calls that were written down, one of which the script leaves in the background."""
    deadline = time.monotonic() + 20
    while awaited not in calls.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    return calls.read_text().splitlines()


def test_the_ray_script_gives_every_node_to_ray_and_ends_with_the_run(tmp_path: Path) -> None:
    """Run it with stand-ins for Slurm, Ray and Prefect, which write down what they are called."""
    calls = tmp_path / "calls"
    for name in ("srun", "ray", "prefect", "real", "python"):
        stand_in = tmp_path / "bin" / name
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {calls}\n')
        stand_in.chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text("")
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "REAL_HOME": str(tmp_path),
        "REAL_VENV": str(tmp_path / "venv"),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "4",
        "PREFECT_API_URL": "",
    }
    found = ran("bash", str(FOLDER / "slurm/ray.sbatch"), "my.yaml", **environment)
    assert found.returncode == 0, found.stderr
    lines = called(calls, "ray start --block --address")
    head = next(line for line in lines if "--head" in line)
    others = next(line for line in lines if "ray start --block --address" in line)
    assert "--nodes=1 " in head and "--num-gpus=4" in head and ":20041" not in head
    assert "--nodes=2 " in others and ":20041" in others
    assert any(line.startswith("prefect server start --host") for line in lines)
    (run,) = [line for line in lines if line.startswith("real ")]
    assert re.fullmatch(r"real run --runner ray --set execution.address=\S+:20041 my.yaml", run)


def test_manifests_belong_to_one_namespace_and_find_what_they_name() -> None:
    found = manifests()
    assert all(m["metadata"]["namespace"] == "real-steering" for m in found)
    by_kind: dict[str, set[str]] = {}
    for manifest in found:
        by_kind.setdefault(manifest["kind"], set()).add(manifest["metadata"]["name"])
    for workload in (m for m in found if m["kind"] in ("Deployment", "StatefulSet")):
        spec = workload["spec"]
        pod = spec["template"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        claims = {t["metadata"]["name"] for t in spec.get("volumeClaimTemplates", [])}
        for volume in pod.get("volumes", []):
            claims.add(volume["name"])
            if "persistentVolumeClaim" in volume:
                assert (
                    volume["persistentVolumeClaim"]["claimName"] in by_kind["PersistentVolumeClaim"]
                )
            if "configMap" in volume:
                assert volume["configMap"]["name"] in by_kind["ConfigMap"]
        for container in pod["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= claims
            assert "requests" in container["resources"] and "limits" in container["resources"]
            assert "readinessProbe" in container or "livenessProbe" in container
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in by_kind["ConfigMap"]
    for service in (m for m in found if m["kind"] == "Service"):
        assert service["metadata"]["name"] in by_kind["Deployment"] | by_kind["StatefulSet"]


def test_kubectl_takes_the_manifests() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ("kubectl", "create", "--dry-run=client", "--validate=false", "-o", "name")
    found = ran(*command, "-f", str(FOLDER / "kubernetes/real.yaml"))
    if "connection refused" in found.stderr or "unable to" in found.stderr.lower():
        pytest.skip("kubectl asks a cluster for its kinds even for a dry run, and there is none")
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.split()) == len(manifests())


def test_the_readme_names_files_that_exist() -> None:
    for readme in (FOLDER / "README.md", FOLDER / "kubernetes/README.md"):
        named = re.findall(r"deployments/[\w./-]+\w", readme.read_text())
        assert named
        for name in named:
            assert (ROOT / name).exists() or name.endswith("/.env"), name


def test_the_readme_shows_the_bold_rows_of_the_whole_table_of_speed() -> None:
    whole, rows = (speed_table.shown(page) for page in (speed_table.FULL, speed_table.SHORT))
    assert rows == speed_table.short(whole)
    assert len(rows) > len(speed_table.HEAD)
