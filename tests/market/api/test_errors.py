"""Every failure is a problem with the status of its error."""

import inspect

import httpx
import pytest
from fastapi import FastAPI

from market.api.app import create_app
from market.api.errors import describe_error, get_http_status, install_error_handlers
from market.chain.client import connect
from market.chain.devnet import get_account
from market.protocol import errors
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import MarketError, TransactionReverted
from market.storage.blobs import BlobStore
from market.storage.cid import CHUNK_BYTES, compute_cid
from tests.market.storage.programs import make_job

LIMIT = 4 * CHUNK_BYTES
JOBS = f"/jobs?requester={get_account(1).address}"

STATUSES = {
    "MarketError": 500,
    "ProtocolError": 422,
    "InvalidSpec": 422,
    "InvalidProgram": 422,
    "InvalidOpening": 422,
    "InvalidBlob": 422,
    "InvalidSignature": 422,
    "InvalidTransition": 409,
    "ChainError": 502,
    "TransactionReverted": 409,
    "NodeUnavailable": 503,
    "NotFound": 404,
    "StorageFull": 507,
    "TrainingError": 500,
    "NondeterministicEnvironment": 500,
    "InsufficientMemory": 500,
    "UnsupportedOperator": 500,
    "UnsupportedPartition": 500,
    "ProcessLost": 500,
    "DatasetUnavailable": 500,
    "AuditIncomplete": 500,
}


def _list_errors() -> list[type[MarketError]]:
    members = vars(errors).values()
    return [kind for kind in members if inspect.isclass(kind) and issubclass(kind, MarketError)]


def _require_problem(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    return problem


@pytest.mark.parametrize("kind", _list_errors(), ids=lambda kind: kind.__name__)
def test_every_error_class_has_its_status_and_type(serve, kind):
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise kind("what went wrong")

    problem = _require_problem(serve(app).get("/"), STATUSES[kind.__name__])
    assert "what went wrong" in problem["detail"]
    assert problem["type"].replace("-", "") == f"urn:touchstone:{kind.__name__.lower()}"
    assert problem.get("retryable", False) == (kind.__name__ == "NodeUnavailable")


def test_an_error_class_of_tomorrow_has_the_status_of_its_ancestor():
    class TooSteep(TransactionReverted):
        pass

    assert get_http_status(TooSteep("x")) == 409
    assert describe_error(TooSteep("x")).type == "urn:touchstone:too-steep"


def test_a_defect_is_a_problem_that_tells_nothing(serve):
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    def fail() -> None:
        raise RuntimeError("a secret")

    response = serve(app).get("/")

    assert "secret" not in str(_require_problem(response, 500))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/jobs/7", 404),
        ("/jobs/0", 422),
        ("/jobs/many", 422),
        ("/jobs?limit=0", 422),
        ("/jobs?cursor=x", 422),
        (f"/blobs/{compute_cid(b'absent')}", 404),
        ("/blobs/Qm123", 422),
    ],
)
def test_what_is_not_there_or_not_well_formed_is_a_problem(api, path, status):
    _require_problem(api.get(path), status)


def test_a_method_that_is_not_allowed_is_a_problem(api):
    _require_problem(api.delete("/jobs"), 405)


def test_a_changed_blob_is_never_served(api, store, tmp_path):
    cid = store.put(b"data")
    (tmp_path / "served" / cid).write_bytes(b"Data")

    assert compute_cid(b"Data") in _require_problem(api.get(f"/blobs/{cid}"), 422)["detail"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}"])
def test_a_body_that_is_no_spec_names_its_faults(api, body):
    response = api.post(JOBS, content=body, headers={"content-type": "application/json"})

    assert _require_problem(response, 422)["faults"]


def test_a_body_that_is_not_text_is_a_problem(api):
    response = api.post(JOBS, content=b"\xff", headers={"content-type": "application/json"})

    _require_problem(response, 400)


def test_a_spec_with_a_wrong_field_names_it(api, chain, store):
    spec = make_job(store, chain.get_time() + 1000)
    fields = spec.model_dump(mode="json")
    fields["terms"]["price_per_shard"] = "-5"
    fields["rounds"] = 0

    problem = _require_problem(api.post(JOBS, json=fields), 422)

    assert set(problem["faults"]) == {"body.rounds", "body.terms.price_per_shard"}


def test_a_spec_whose_blobs_are_absent_is_not_found(api, chain, tmp_path):
    spec = make_job(BlobStore(tmp_path / "elsewhere", LIMIT), chain.get_time() + 1000)

    problem = _require_problem(api.post(JOBS, json=spec.model_dump(mode="json")), 404)

    assert spec.program.cid in problem["detail"]


def test_a_spec_that_disagrees_with_its_blobs_is_refused_and_not_stored(
    api, chain, store, tmp_path
):
    spec = make_job(store, chain.get_time() + 1000)
    dataset = spec.dataset.model_copy(update={"root": b"\x01" * 32})
    lie = spec.model_copy(update={"dataset": dataset})
    before = set((tmp_path / "served").iterdir())

    problem = _require_problem(api.post(JOBS, json=lie.model_dump(mode="json")), 422)

    assert problem["type"] == "urn:touchstone:invalid-spec"
    assert f"dataset {spec.dataset.cid} has root" in problem["detail"]
    assert set((tmp_path / "served").iterdir()) == before


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_its_limit_is_refused_while_it_arrives(api, tmp_path, declared):
    def give(size):
        return bytes(size) if declared else iter([bytes(65_536)] * (size // 65_536))

    too_long = api.put("/blobs", content=give(LIMIT + 65_536))
    document = api.post(JOBS, content=give(MAX_DOCUMENT_BYTES + 65_536))

    _require_problem(too_long, 413)
    _require_problem(document, 413)
    assert list((tmp_path / "served").iterdir()) == []


def test_a_dead_node_is_retryable(serve, chain, store):
    with connect("http://127.0.0.1:9", chain.deployment) as dead:
        response = serve(create_app(dead, store)).get("/health")

    assert _require_problem(response, 503)["retryable"]
    assert response.headers["retry-after"]


def test_a_market_that_is_not_there_is_a_bad_gateway(serve, chain, store, devnet):
    elsewhere = chain.deployment.model_copy(update={"market": "0x" + "11" * 20})
    with connect(devnet.url, elsewhere) as absent:
        _require_problem(serve(create_app(absent, store)).get("/health"), 502)
