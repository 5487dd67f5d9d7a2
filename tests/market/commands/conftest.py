"""A requester at the command line, with a market and an API to talk to."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from market.api.app import create_app
from market.chain.client import Chain
from market.chain.deployment import DEVNET, write_deployment
from market.chain.devnet import get_account
from market.cli import build_app
from market.protocol.manifest import Manifest, RecordEntry, ShardRecords
from market.storage.blobs import BlobStore
from market.storage.cid import digest_of_cid
from tests.market.chain.synthetic import attest_lease, commit_lease, make_claims
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


@pytest.fixture
def finished_job(key, served, spec_file, devnet, chain, provider, auditor, claim_shards):
    """A job of one shard that was posted by command and played to its end; its last state."""
    run("job", "post", str(spec_file))
    devnet.mine(DEVNET.draw_distance)
    provider.send(chain.calls.draw_seed(1, chain.get_header_rlp(chain.get_job(1).seed_block)))
    lease_id = claim_shards(1)
    assert chain.get_job(1).requester == key
    state, claims = served.put(b"the last state"), make_claims()
    entries = tuple(RecordEntry(**asdict(claim), state=state) for claim in claims)
    shard = ShardRecords(records=entries, metrics=served.put(b"metrics"))
    manifest = served.put(Manifest(shards=(shard,)).document)
    commit_lease(devnet, provider, lease_id, [claims], digest_of_cid(manifest))
    attest_lease(auditor, lease_id, [claims])
    devnet.advance_time(DEVNET.challenge_window + 1)
    provider.send(chain.calls.settle(lease_id))
    return served, state
