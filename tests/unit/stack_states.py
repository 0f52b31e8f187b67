"""A stack's state, made up."""

from datetime import UTC, datetime

from storage.stack_state import ProcessMark, StackState


def some_state() -> StackState:
    """Return the state of a stack that never was."""
    return StackState(
        supervisor=ProcessMark(name="supervisor", pid=1, birth="another time"),
        started_at=datetime(2026, 11, 21, 10, 0, tzinfo=UTC),
        prefect_url="http://127.0.0.1:4200",
        mlflow_url="http://127.0.0.1:5000",
        auth="ada:correct-horse",
    )
