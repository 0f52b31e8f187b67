"""Help comes at once: what is imported before a command is known."""

import subprocess
import sys


def test_the_command_line_starts_without_the_libraries_that_only_commands_need() -> None:
    heavy = {"torch", "numpy", "sqlalchemy", "transformers", "prefect", "mlflow", "duckdb"}
    heavy |= {"matplotlib", "pandas"}
    program = f"import sys, flows.cli; print({heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
