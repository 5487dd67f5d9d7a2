"""Jobs by command: posted through a real API, watched, fetched, given up."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from market.api.app import create_app
from market.chain.devnet import get_account
from market.chain.structs import JobStatus
from market.protocol.errors import (
    InvalidTransition,
    MarketError,
    NotFound,
    ProtocolError,
)
from market.protocol.manifest import Manifest, RecordEntry, ShardRecords
from market.protocol.spec import parse_spec
from market.storage.blobs import BlobStore
from market.storage.cid import digest_of_cid
from tests.market.chain.synthetic import attest_lease, commit_lease, make_claims
from tests.market.commands.conftest import LIMIT, run, run_json
from tests.market.storage.programs import make_job


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

    with pytest.raises(InvalidTransition, match="has no closed round"):
        run("job", "fetch", "1", "--out", str(tmp_path / "out"))


@pytest.mark.usefixtures("finished_job")
def test_a_finished_job_is_watched_to_its_end():
    lines = [json.loads(line) for line in run("job", "watch", "1", "--json").splitlines()]

    assert [line["name"] for line in lines][::7] == ["JobCreated", "LeaseSettled"]
    assert "lease 1000001: LeaseSettled" in run("job", "watch", "1")


@pytest.mark.usefixtures("finished_job")
def test_what_a_job_made_is_fetched(tmp_path, spec_file):
    fetched = run_json("job", "fetch", "1", "--out", str(tmp_path / "out"))

    names = ["spec.json", "slot-0.manifest.json", "slot-0.metrics", "slot-0.state"]
    assert [Path(file).name for file in fetched["files"]] == names
    assert (tmp_path / "out/slot-0.state").read_bytes() == b"the last state"
    spec = json.loads((tmp_path / "out/spec.json").read_bytes())
    assert spec == json.loads(spec_file.read_text())


@pytest.fixture
def partial_job(home, served, devnet, chain, provider, auditor, post_job, claim_shards):
    """A job whose round of three slots closed by time without the last; the end states of the others."""
    spec = make_job(BlobStore(home / "blobs", LIMIT), chain.get_time() + 10_000)
    terms = spec.terms.model_copy(update={"quorum": 2, "round_time_s": 400})
    spec = spec.model_copy(update={"slots": 3, "terms": terms})
    served.put(spec.document)
    lease_id = claim_shards(post_job(spec), 2)
    states, traces = [served.put(f"state {i}".encode()) for i in range(2)], [make_claims()] * 2
    shards = tuple(
        ShardRecords(
            records=tuple(RecordEntry(**asdict(claim), state=state) for claim in make_claims()),
            metrics=served.put(b"metrics"),
        )
        for state in states
    )
    manifest = served.put(Manifest(shards=shards).document)
    commit_lease(devnet, provider, lease_id, traces, digest_of_cid(manifest))
    attest_lease(auditor, lease_id, traces)
    devnet.advance_time(401)
    provider.send(chain.calls.close_round(1))


@pytest.mark.usefixtures("key", "partial_job")
def test_of_a_lease_of_several_slots_each_gets_its_own_files_and_a_missing_slot_none(tmp_path):
    fetched = run_json("job", "fetch", "1", "--out", str(tmp_path / "out"))

    states = [tmp_path / "out" / f"slot-{slot}.state" for slot in range(3)]
    assert [path.read_bytes() for path in states[:2]] == [b"state 0", b"state 1"]
    assert not states[2].exists()
    assert len(fetched["files"]) == 7
    assert "0 to 1" in run("job", "show", "1")


def test_a_result_that_the_api_changed_is_refused(finished_job, tmp_path):
    _, state = finished_job
    (tmp_path / "served" / state).write_bytes(b"another state")

    with pytest.raises(ProtocolError, match=f"bytes kept as {state}"):
        run("job", "fetch", "1", "--out", str(tmp_path / "out"))


def test_a_cancelled_job_is_refunded(key, served, spec_file, chain):
    posted = run_json("job", "post", str(spec_file))

    cancelled = run_json("job", "cancel", str(posted["job_id"]))
    run("job", "refund", str(posted["job_id"]))

    assert served.has(posted["document"])
    assert cancelled["function"] == "cancelJob"
    assert chain.get_job_status(posted["job_id"]) is JobStatus.CANCELLED
    assert chain.get_credit(key, 0) == parse_spec(spec_file.read_bytes()).escrow
    assert run_json("withdraw")["function"] == "withdraw"
    assert chain.get_credit(key, 0) == 0


def test_an_ended_job_gives_its_escrow_back_and_its_watch_ends(
    key, served, spec_file, chain, devnet
):
    posted = run_json("job", "post", str(spec_file))
    devnet.mine(300)  # nobody drew its seed while the chain knew the block

    refunded = run_json("job", "refund", str(posted["job_id"]))

    assert served.has(posted["document"])
    assert refunded["function"] == "refund"
    assert chain.get_credit(key, 0) == parse_spec(spec_file.read_bytes()).escrow
    assert "JobRefunded" in run("job", "watch", str(posted["job_id"]))
