from __future__ import annotations

import socket
from pathlib import Path

import pytest

from components.errors import InputError
from deploy.serving import bento_command, check_address, serve_bundle


def test_port_in_use_is_refused_by_number_with_a_next_step() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} .*in use") as refusal:
            check_address("127.0.0.1", port, None)
    assert "--port" in str(refusal.value)
    assert refusal.value.exit_status == 2


def test_port_zero_picks_a_free_one() -> None:
    host, port = check_address("localhost", 0, None)
    assert host == "127.0.0.1"
    assert 1024 <= port <= 65535


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_reachable_address_needs_a_token(host: str) -> None:
    with pytest.raises(InputError, match="no token") as refusal:
        check_address(host, 0, None)
    assert "TUNEWRIGHT_TOKEN" in str(refusal.value)
    with pytest.raises(InputError, match="no token"):
        check_address(host, 0, "")


def test_any_address_of_this_machine_will_do_with_a_token() -> None:
    assert check_address("0.0.0.0", 0, "secret")[0] == "0.0.0.0"


@pytest.mark.parametrize(("host", "port"), [("example.org", 0), ("127.0.0.1", 70000), ("192.0.2.1", 0)])
def test_address_that_is_none_of_this_machine_is_refused(host: str, port: int) -> None:
    with pytest.raises(InputError):
        check_address(host, port, "secret")


def test_token_is_never_part_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_TOKEN", "inherited")
    command, environment = bento_command(Path("/home/bentos/name/version"), "127.0.0.1", 3000)
    assert "TUNEWRIGHT_TOKEN" not in environment
    assert environment["BENTOML_HOME"] == "/home"
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert not any("inherited" in part for part in command)


def test_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle"), serve_bundle(tmp_path):
        pass
