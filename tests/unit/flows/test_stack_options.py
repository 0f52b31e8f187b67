"""What may be asked of a stack, and what is refused."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.stack.options import AUTH_VARIABLE, StackOptions, read_auth, stack_options
from flows.terminal.environment import is_loopback
from real_tasks.vocabulary.errors import UserInputError

PASSWORD = "ada:correct%horse-12"


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTH_VARIABLE, raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "machine.example"])
def test_an_address_that_others_reach_is_refused_without_a_password(host: str) -> None:
    with pytest.raises(UserInputError, match=r"lets other machines reach.*--auth-file"):
        stack_options(host, (0, 0), 1, None, [])


def test_an_address_that_others_reach_is_taken_with_a_password_for_both_servers(
    tmp_path: Path,
) -> None:
    (tmp_path / "auth").write_text(f"{PASSWORD}\n")
    options = stack_options("0.0.0.0", (0, 0), 2, tmp_path / "auth", ["gpu.example"])
    assert options.auth == PASSWORD
    assert options.prefect_url.startswith("http://127.0.0.1:")
    assert {"localhost", "gpu.example", socket.gethostname()} <= set(options.host_names())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_addresses_of_this_machine_alone_need_no_password(host: str) -> None:
    assert is_loopback(host)


def test_the_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_VARIABLE, PASSWORD)
    assert stack_options("127.0.0.1", (0, 0), 1, None, []).auth == PASSWORD


@pytest.mark.parametrize("text", ["ada", "ada:short", ":correct-horse-12", "a:b\nc:correct-horse"])
def test_a_password_of_another_form_is_refused_without_being_shown(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "auth").write_text(text)
    with pytest.raises(UserInputError, match="one line user:password") as refusal:
        read_auth(tmp_path / "auth")
    assert "horse" not in str(refusal.value)


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"nowhere cannot be read"):
        read_auth(tmp_path / "nowhere")


def test_a_taken_port_is_refused_with_the_option_that_changes_it(taken: int) -> None:
    with pytest.raises(UserInputError, match=rf"port {taken} of 127\.0\.0\.1.*--mlflow-port 0"):
        stack_options("127.0.0.1", (0, taken), 1, None, [])


def test_port_zero_is_any_free_port_and_another_for_each_server() -> None:
    options = stack_options("127.0.0.1", (0, 0), 1, None, [])
    assert options.prefect_port != options.mlflow_port
    for port in (options.prefect_port, options.mlflow_port):
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(UserInputError, match="expected 0"):
        stack_options("127.0.0.1", (port, 0), 1, None, [])


def test_both_servers_on_one_port_are_refused() -> None:
    with pytest.raises(UserInputError, match="cannot both listen on 4321"):
        stack_options("127.0.0.1", (4321, 4321), 1, None, [])


def test_an_address_that_is_not_this_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_VARIABLE, PASSWORD)
    with pytest.raises(UserInputError, match=r"cannot listen.*203\.0\.113\.9|203\.0\.113\.9"):
        stack_options("203.0.113.9", (0, 0), 1, None, [])


def test_an_address_with_colons_stands_in_brackets_in_urls() -> None:
    options = StackOptions("::", 4200, 5000)
    assert options.prefect_url == "http://[::1]:4200"
    assert options.mlflow_url == "http://[::1]:5000"
