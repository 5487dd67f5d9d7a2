"""The API over a real chain and a real store, as a requester meets it."""

import hashlib

import httpx
import pytest

from market.chain.devnet import get_account
from market.chain.transactions import Call
from market.protocol.spec import JobSpec, decode_spec
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES, Cid, compute_cid, digest_of_cid
from market.storage.jobs import list_spec_blobs
from tests.market.storage.programs import make_job

LIMIT = 4 * CHUNK_BYTES
REQUESTER = get_account(1).address


@pytest.fixture
def spec(chain, tmp_path, api) -> JobSpec:
    """A job whose blobs were uploaded from the requester's own store."""
    mine = BlobStore(tmp_path / "mine", LIMIT)
    spec = make_job(mine, chain.get_time() + 1000)
    for cid in list_spec_blobs(spec):
        assert api.put("/blobs", content=mine.get(cid, LIMIT)).json() == {"cid": cid}
    return spec


def _post(api: httpx.Client, spec: JobSpec) -> httpx.Response:
    headers, requester = {"content-type": "application/json"}, {"requester": REQUESTER.lower()}
    return api.post("/jobs", params=requester, content=spec.document, headers=headers)


def test_a_posted_spec_becomes_a_stored_document_and_an_unsigned_transaction(
    api, chain, store, spec
):
    response = _post(api, spec)

    assert response.status_code == 201
    draft = response.json()
    call = chain.calls.create_job(spec, REQUESTER)
    assert draft["spec_hash"] == "0x" + spec.spec_hash.hex()
    assert draft["transaction"] == {
        "to": chain.deployment.market,
        "data": "0x" + call.data.hex(),
        "value": str(spec.escrow),
        "chain_id": 31337,
    }
    assert digest_of_cid(Cid(draft["document"])) == hashlib.sha256(spec.document).digest()
    assert decode_spec(store.get(Cid(draft["document"]), LIMIT)) == spec


def test_the_transaction_posts_the_job_which_is_then_shown(
    api, spec, requester, provider, devnet, chain, claim_shards
):
    transaction = _post(api, spec).json()["transaction"]
    data, value = bytes.fromhex(transaction["data"][2:]), int(transaction["value"])
    requester.send(Call(transaction["to"], "createJob", data, value))
    devnet.mine(2)
    requester.send(chain.calls.draw_seed(1, chain.get_header_rlp(chain.get_job(1).seed_block)))
    lease_id = claim_shards(1)

    shown = api.get("/jobs/1").json()

    assert (shown["id"], shown["status"]) == (1, "open")
    assert shown["spec"] == spec.model_dump(mode="json")
    assert shown["job"]["requester"] == requester.account.address
    assert shown["job"]["escrow"] == str(spec.escrow)
    assert isinstance(shown["job"]["seed"], str)  # a number that JavaScript would round
    shard = {"round": 0, "slot": 0, "attested": False, "lease_id": lease_id}
    assert shown["shards"] == [shard]
    (lease,) = shown["leases"]
    assert (lease["status"], lease["slots"]) == ("leased", [0])
    assert lease["lease"]["operator"] == provider.operator
    assert [event["name"] for event in shown["events"]] == [
        "JobCreated",
        "JobSeeded",
        "ShardsClaimed",
    ]
    assert shown["events"][0]["event"]["spec_leaves"][0] == "0x" + spec.program.root.hex()


def test_a_job_whose_document_is_elsewhere_is_shown_without_its_spec(
    api, chain, requester, tmp_path
):
    spec = make_job(BlobStore(tmp_path / "mine", LIMIT), chain.get_time() + 1000)
    requester.send(chain.calls.create_job(spec, REQUESTER))

    shown = api.get("/jobs/1").json()

    assert (shown["spec"], shown["status"]) == (None, "funded")
    assert shown["document"] == compute_cid(spec.document)


@pytest.mark.parametrize("requester", [None, "", "0x12", "alice.eth"])
def test_a_draft_is_for_a_requester_with_an_address(api, spec, requester):
    response = api.post("/jobs", params={"requester": requester}, content=spec.document)

    assert response.status_code == 422
    assert "query.requester" in response.json()["faults"]


def test_a_shard_that_was_given_back_is_under_no_lease(
    api, spec, post_job, claim_shards, devnet, chain, provider
):
    lease_id = claim_shards(post_job(spec))
    devnet.advance_time(spec.terms.lease_time_s + 1)
    provider.send(chain.calls.expire(lease_id))

    shown = api.get("/jobs/1").json()

    assert shown["shards"][0]["lease_id"] is None
    assert shown["leases"][0]["status"] == "lapsed"


def test_jobs_are_listed_page_by_page(api, chain, requester, spec):
    for _ in range(5):
        requester.send(chain.calls.create_job(spec, REQUESTER))

    pages, cursor = [], "1"
    while cursor is not None:
        page = api.get("/jobs", params={"limit": 2, "cursor": cursor}).json()
        pages.append([entry["id"] for entry in page["jobs"]])
        cursor = page["next"]

    assert pages == [[1, 2], [3, 4], [5]]


def test_health_names_the_chain_and_the_market(api, chain):
    health = api.get("/health").json()

    assert (health["chain_id"], health["market"]) == (31337, chain.deployment.market)
    assert health["block"] == chain.get_height()
    assert health["block_time"] == health["time"] == chain.get_time()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, LIMIT])
def test_an_uploaded_blob_comes_back(api, size):
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]

    cid = api.put("/blobs", content=data).json()["cid"]
    response = api.get(f"/blobs/{cid}")

    assert cid == compute_cid(data)
    assert response.content == data
    assert "immutable" in response.headers["cache-control"]
    assert api.head(f"/blobs/{cid}").status_code == 200


def test_an_upload_in_pieces_has_the_same_cid(api):
    pieces = [b"a" * 100_000, b"b" * 200_000, b"c"]

    response = api.put("/blobs", content=iter(pieces))

    assert response.json()["cid"] == compute_cid(b"".join(pieces))


def test_the_api_describes_itself(api):
    description = api.get("/openapi.json").json()

    assert set(description["paths"]) == {
        "/health",
        "/jobs",
        "/jobs/{job_id}",
        "/blobs",
        "/blobs/{cid}",
    }
    for path in description["paths"].values():
        assert all(operation["description"] for operation in path.values())
