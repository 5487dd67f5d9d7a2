"""The command line as its users run it: keys, settings, a devnet, and errors on one line."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import typer

from market.chain.client import connect
from market.chain.deployment import read_deployment
from market.chain.devnet import get_account
from market.chain.structs import Role
from market.commands.accounts import parse_address, parse_amount
from market.commands.output import format_wei
from market.protocol.errors import (
    InvalidSignature,
    MarketError,
)
from tests.market.commands.conftest import run, run_json


def test_a_key_is_made_shown_and_never_replaced(home):
    created = run_json("key", "new", "--devnet", "1")
    before = (home / "key.json").read_bytes()

    assert created == {"path": str(home / "key.json"), "address": get_account(1).address}
    assert run_json("key", "show") == created
    with pytest.raises(MarketError, match="never overwritten"):
        run("key", "new")
    assert (home / "key.json").read_bytes() == before


@pytest.mark.usefixtures("key")
def test_a_command_without_a_passphrase_says_where_it_looked(monkeypatch):
    monkeypatch.delenv("TOUCHSTONE_PASSPHRASE")

    with pytest.raises(InvalidSignature, match="TOUCHSTONE_PASSPHRASE_FILE"):
        run("key", "show")


@pytest.mark.usefixtures("home")
def test_a_setting_that_makes_no_sense_is_named(monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_MAX_BLOB_BYTES", "many")

    with pytest.raises(MarketError, match="TOUCHSTONE_MAX_BLOB_BYTES"):
        run("job", "list")


@pytest.mark.parametrize(
    ("text", "wei"),
    [("0", 0), ("5000", 5000), ("3gwei", 3 * 10**9), ("1.5ether", 15 * 10**17), ("7 wei", 7)],
)
def test_an_amount_is_whole_wei(text, wei):
    assert parse_amount(text) == wei


@pytest.mark.parametrize("text", ["", "-1", "0.5", "1.5wei", "nan", "infinity", "ether", "1euro"])
def test_text_that_is_no_amount_is_refused(text):
    with pytest.raises(typer.BadParameter):
        parse_amount(text)


def test_wei_are_shown_exactly():
    assert format_wei(1) == "0.000000000000000001 ether"
    assert format_wei(3 * 10**18) == "3 ether"


def _find_free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def _run_devnet(environment: dict[str, str], *options: str) -> Iterator[None]:
    command = [sys.executable, "-m", "market.cli", "devnet", "--json", *options]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"{\n"
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_devnet_keeps_its_market_from_one_run_to_the_next(tmp_path, anvil):
    port = _find_free_port()
    url = f"http://127.0.0.1:{port}"
    here = {"TOUCHSTONE_DATA_DIR": str(tmp_path), "TOUCHSTONE_ANVIL": str(anvil)}
    environment = {**os.environ, **here}
    staker = get_account(1)

    with _run_devnet(environment, "--port", port):
        first = read_deployment(tmp_path / "deployment.json")
        with connect(url, first) as chain:
            chain.send(staker, chain.calls.register(staker.address))
            chain.send(staker, chain.calls.stake(1, 0, 5))
    with _run_devnet(environment, "--port", port, "--api", "--api-port", _find_free_port()):
        second = read_deployment(tmp_path / "deployment.json")
        with connect(url, second) as chain:
            assert chain.get_account(1, Role.PROVIDER, 0).staked == 5

    assert first == second


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    environment = {**os.environ, "TOUCHSTONE_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "market.cli", "job", "list"]

    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("touchstone: no deployment file")
    assert ended.stderr.count("\n") == 1


def test_the_market_never_imports_torch():
    program = (
        "import sys, market.cli; print(sorted({'torch', 'numpy', 'numba'} & set(sys.modules)))"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ended.stdout == "[]\n"


def _run_without_web_stack(program: str) -> subprocess.CompletedProcess[str]:
    block = "import sys; sys.modules.update(dict.fromkeys(['fastapi', 'starlette', 'uvicorn']))"
    command = [sys.executable, "-c", f"{block}; {program}"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_all_but_serving_works_without_the_web_stack():
    ended = _run_without_web_stack(
        "import market.cli, market.api.client\n"
        "market.cli.build_app()\n"
        "try: market.cli.service.run_devnet(serve=True)\n"
        "except market.cli.MarketError as error: print(error)"
    )

    assert "install touchstone-market[api]" in ended.stdout


@pytest.mark.parametrize("address", ["", "0x12", "alice.eth"])
def test_text_that_is_no_address_is_refused(address):
    with pytest.raises(typer.BadParameter):
        parse_address(address)


def test_an_address_gets_its_checksum():
    address = get_account(1).address

    assert parse_address(address.lower()) == parse_address(address) == address
