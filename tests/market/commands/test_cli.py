"""The command line as its users run it: a devnet that it starts, and jobs through a real API."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import typer
from fastapi import FastAPI, Request, Response
from typer.testing import CliRunner

from market.api.app import create_app
from market.chain.client import Chain, connect
from market.chain.deployment import DEVNET, read_deployment, write_deployment
from market.chain.devnet import get_account
from market.cli import build_app
from market.commands.accounts import parse_address, parse_amount
from market.commands.output import format_wei
from market.protocol.errors import (
    InvalidSignature,
    InvalidTransition,
    MarketError,
    NotFound,
    ProtocolError,
)
from market.protocol.manifest import Manifest, RecordEntry
from market.protocol.records import StateClaim
from market.protocol.spec import parse_spec
from market.storage.blobs import BlobStore
from market.storage.cid import digest_of_cid
from tests.market.chain.synthetic import audit_shard, commit_shard, make_claims
from tests.market.storage.programs import make_job

LIMIT = 2**20


def run(*arguments: str) -> str:
    """Run a command in this process; return what it printed, raise what it raised."""
    result = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def home(tmp_path, monkeypatch, devnet, chain: Chain) -> Path:
    """A requester's data directory, with a key and the deployment of ``chain``."""
    for name in [name for name in os.environ if name.startswith("TOUCHSTONE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("TOUCHSTONE_RPC_URL", devnet.url)
    monkeypatch.setenv("TOUCHSTONE_PASSPHRASE", "a passphrase")
    write_deployment(tmp_path / "home/deployment.json", chain.deployment)
    return tmp_path / "home"


@pytest.fixture
def key(home) -> str:
    """The address of the requester's key, a funded account's; its scrypt is a quick one."""
    account = get_account(1)
    (home / "key.json").write_text(json.dumps(account.encrypt("a passphrase", iterations=2)))
    return account.address


@pytest.fixture
def served(serve, chain, tmp_path, monkeypatch) -> BlobStore:
    """The store of a running API, which the requester's commands use."""
    store = BlobStore(tmp_path / "served", LIMIT)
    api = serve(create_app(chain, store))
    monkeypatch.setenv("TOUCHSTONE_API_URL", str(api.base_url))
    return store


@pytest.fixture
def spec_file(home, chain, tmp_path) -> Path:
    """A spec whose blobs are in the requester's store."""
    spec = make_job(BlobStore(home / "blobs", LIMIT), chain.get_time() + 1000)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec.model_dump(mode="json"), indent=2))
    return path


def test_a_posted_job_is_on_chain_with_its_blobs_at_the_api(key, served, spec_file, chain):
    posted = run_json("job", "post", str(spec_file))

    job = chain.get_job(posted["job_id"])
    assert job.requester == key
    assert posted["spec_hash"] == "0x" + job.spec_hash.hex()
    assert served.has(posted["document"])
    assert run_json("job", "list")["jobs"][0]["id"] == posted["job_id"]
    assert run_json("job", "show", "1")["spec"]["name"] == "smallest"
    assert "JobCreated" in run("job", "show", "1")
    assert "funded" in run("job", "list")


@pytest.mark.usefixtures("key")
def test_a_transaction_that_is_not_the_specs_is_not_signed(
    serve, served, spec_file, chain, monkeypatch
):
    honest = create_app(chain, served)
    cheat = FastAPI()

    @cheat.middleware("http")
    async def redirect(request: Request, call_next) -> Response:
        response = await call_next(request)
        body = b"".join([piece async for piece in response.body_iterator])
        body = body.replace(chain.deployment.market.encode(), get_account(9).address.encode())
        return Response(body, response.status_code)

    cheat.mount("/", honest)
    monkeypatch.setenv("TOUCHSTONE_API_URL", str(serve(cheat).base_url))

    with pytest.raises(ProtocolError, match="asks to sign another transaction"):
        run("job", "post", str(spec_file))
    with pytest.raises(NotFound):
        chain.get_job(1)


@pytest.mark.usefixtures("key", "served")
def test_a_spec_that_disagrees_with_its_blobs_is_not_posted(spec_file):
    fields = json.loads(spec_file.read_text())
    fields["dataset"]["root"] = "0x" + "11" * 32
    spec_file.write_text(json.dumps(fields))

    with pytest.raises(MarketError, match="the spec says 0x1111"):
        run("job", "post", str(spec_file))


@pytest.mark.usefixtures("key", "served")
def test_a_job_without_a_result_says_so(spec_file, tmp_path):
    run("job", "post", str(spec_file))

    with pytest.raises(InvalidTransition, match="no round with all shards attested"):
        run("job", "fetch", "1", "--out", str(tmp_path / "out"))


@pytest.fixture
def finished_job(key, served, spec_file, devnet, chain, provider, auditor, claim_shard):
    """A job of one shard that was posted by command and played to its end; its last state."""
    run("job", "post", str(spec_file))
    devnet.mine(DEVNET.draw_distance)
    provider.send(chain.calls.draw_seed(1, chain.get_header_rlp(chain.get_job(1).seed_block)))
    lease_id = claim_shard(1)
    state, job = served.put(b"the last state"), chain.get_job(1)
    assert job.requester == key
    claims = [StateClaim(job.base_root, job.slot_root), *make_claims()[1:]]
    entries = [RecordEntry(**asdict(claim), state=state) for claim in claims]
    manifest = Manifest(records=tuple(entries), metrics=served.put(b"metrics"))
    digest = digest_of_cid(served.put(manifest.document))
    root, _ = commit_shard(devnet, provider, lease_id, claims, digest)
    audit_shard(provider, auditor, lease_id, claims, root)
    devnet.advance_time(DEVNET.challenge_window + 1)
    provider.send(chain.calls.settle(lease_id))
    return served, state


@pytest.mark.usefixtures("finished_job")
def test_a_finished_job_is_watched_to_its_end():
    lines = [json.loads(line) for line in run("job", "watch", "1", "--json").splitlines()]

    assert [line["name"] for line in lines][::8] == ["JobCreated", "LeaseSettled"]
    assert "lease 1: LeaseSettled" in run("job", "watch", "1")


@pytest.mark.usefixtures("finished_job")
def test_what_a_job_made_is_fetched(tmp_path, spec_file):
    fetched = run_json("job", "fetch", "1", "--out", str(tmp_path / "out"))

    names = ["spec.json", "slot-0.manifest.json", "slot-0.metrics", "slot-0.state"]
    assert [Path(file).name for file in fetched["files"]] == names
    assert (tmp_path / "out/slot-0.state").read_bytes() == b"the last state"
    spec = json.loads((tmp_path / "out/spec.json").read_bytes())
    assert spec == json.loads(spec_file.read_text())


def test_a_result_that_the_api_changed_is_refused(finished_job, tmp_path):
    _, state = finished_job
    (tmp_path / "served" / state).write_bytes(b"another state")

    with pytest.raises(ProtocolError, match=f"bytes kept as {state}"):
        run("job", "fetch", "1", "--out", str(tmp_path / "out"))


def test_stake_tickets_and_account_agree(key, chain):
    sent = run_json("stake", "1.5ether")
    run("tickets", "buy", "2")
    run("unstake", "1ether")
    account = run_json("account")

    assert (sent["function"], sent["gas_used"] > 21_000) == ("stake", True)
    assert account["provider"] == {"staked": str(5 * 10**17), "locked": "0"}
    assert account["auditor"]["staked"] == str(2 * DEVNET.ticket_stake)
    assert account["credit"] == str(10**18)
    assert "0.5 ether" in run("account", key)
    assert run_json("withdraw")["function"] == "withdraw"
    assert chain.get_credit(key) == 0


def test_a_retired_ticket_gives_its_stake_back(key, chain):
    run("tickets", "buy", "2")

    retired = run_json("tickets", "retire", "1")

    assert retired["function"] == "retireTicket"
    assert chain.get_ticket(1).leaving
    assert chain.get_credit(key) == DEVNET.ticket_stake


def test_an_ended_job_gives_its_escrow_back_and_its_watch_ends(
    key, served, spec_file, chain, devnet
):
    posted = run_json("job", "post", str(spec_file))
    devnet.mine(300)  # nobody drew its seed while the chain knew the block

    closed = run_json("job", "close", str(posted["job_id"]))

    assert served.has(posted["document"])
    assert closed["function"] == "closeJob"
    assert chain.get_credit(key) == parse_spec(spec_file.read_bytes()).escrow
    assert "JobClosed" in run("job", "watch", str(posted["job_id"]))


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
            chain.send(staker, chain.calls.stake(5))
    with _run_devnet(environment, "--port", port, "--api", "--api-port", _find_free_port()):
        second = read_deployment(tmp_path / "deployment.json")
        with connect(url, second) as chain:
            assert chain.get_provider_stake(staker.address).staked == 5

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
