"""A store that can be none is refused by every command, before it does anything."""

from pathlib import Path

import pytest

from flows.cli import main

COMMANDS = (
    ("run",),
    ("sql", "--tables"),
    ("status",),
    ("config",),
    ("plan",),
    ("report",),
    ("down",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "store",
    ["file", "file/below", "", "\0", "\ud800", "x" * 300, "y/" * 600, "ftp://a/b", "s3://", "://"],
)
def test_a_store_that_can_be_none_is_one_error(
    store: str,
    command: tuple[str, ...],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REAL_STORE", raising=False)
    Path("file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["--store", store, *command])
    assert ended.value.code == 2
    assert "store" in capsys.readouterr().err
    assert not home.exists()
