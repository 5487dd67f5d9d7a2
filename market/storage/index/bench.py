"""How long an index takes to be rebuilt, from a node that answers at once with logs as the contract's."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, Final

import requests
from eth_abi.abi import encode
from eth_utils.abi import collapse_if_tuple
from requests.adapters import HTTPAdapter

from market.chain.abi import encode_call, load_contract, to_snake_case
from market.chain.client import Chain
from market.chain.deployment import ETHER_ONLY, MAINNET, Deployment
from market.chain.rpc import Rpc
from market.chain.structs import PostedTerms
from market.storage.index.database import open_database
from market.storage.index.indexer import Indexer

_CHAIN_ID: Final = 1
_MARKET: Final = "0x" + "11" * 20
_ACCOUNT: Final = "0x" + "22" * 20
_EVENTS_PER_BLOCK: Final = 4
_MOST_RESULTS: Final = 10_000  # as public nodes limit them
_OPERATORS, _ROUNDS, _SLOTS, _SEGMENTS = 50, 4, 8, 16
_TERMS: Final = PostedTerms(
    asset=0,
    price_per_shard=10**15,
    floor_bps=10_000,
    ramp_time=0,
    audit_fee=10**13,
    stake_per_shard=10**17,
    poison_value=0,
    lease_time=3600,
    round_time=0,
    quorum=_SLOTS,
    samples=2,
    deadline=2**39,
)

Fields = Mapping[str, object]


def measure_rebuild(events: int = 100_000) -> float:
    """Return the seconds in which an empty SQLite index takes in so many events."""
    with tempfile.TemporaryDirectory() as folder, SyntheticNode(events).serve() as chain:
        engine = open_database(f"sqlite:///{Path(folder) / 'index.sqlite'}")
        indexer = Indexer(chain, engine, confirmations=12)
        start = time.perf_counter()
        indexer.sync()
        seconds = time.perf_counter() - start
        engine.dispose()
    return seconds


class SyntheticNode(HTTPAdapter):
    """A node whose chain has the first ``events`` of an endless market, a few in each block."""

    def __init__(self, events: int, most_results: int = _MOST_RESULTS) -> None:
        super().__init__()
        self._most_results = most_results
        stream = _tell_history()
        logs = [_build_log(place, *next(stream)) for place in range(events)]
        self.height = (events - 1) // _EVENTS_PER_BLOCK
        self._logs = [json.dumps(log) for log in logs]
        self._views = {
            encode_call(name, *arguments)[:4].hex(): _encode_output(name, answer)
            for name, arguments, answer in (
                ("config", (), MAINNET),
                ("assetCount", (), 1),
                ("getAsset", (0,), ETHER_ONLY[0]),
            )
        }

    def serve(self) -> Chain:
        """Return the market on this node's chain."""
        session = requests.Session()
        session.mount("http://", self)
        deployment = Deployment(chain_id=_CHAIN_ID, market=_MARKET, block=0)
        return Chain(Rpc("http://synthetic", session=session), deployment, patience_s=0)

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer a question of JSON-RPC."""
        assert request.body is not None
        question = json.loads(request.body)
        response = requests.Response()
        response.status_code = requests.codes.ok
        answer = self._answer(question["method"], question["params"])
        response._content = f'{{"jsonrpc": "2.0", "id": {question["id"]}, {answer}}}'.encode()
        return response

    def _answer(self, method: str, params: Any) -> str:
        match method:
            case "eth_getLogs":
                return self._find_logs(params[0])
            case "eth_getBlockByNumber":
                result: object = self._build_header(params[0])
            case "eth_call":
                result = self._views[params[0]["data"][2:10]]
            case "eth_getCode":
                result = "0x00"
            case "eth_chainId":
                result = hex(_CHAIN_ID)
            case _:
                raise AssertionError(method)
        return f'"result": {json.dumps(result)}'

    def _find_logs(self, query: Mapping[str, str]) -> str:
        if "blockHash" in query:
            first = last = int(query["blockHash"], 16) - 1
        else:
            first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        logs = self._logs[first * _EVENTS_PER_BLOCK : (last + 1) * _EVENTS_PER_BLOCK]
        if len(logs) > self._most_results:
            return '"error": {"code": -32602, "message": "query returned too many results"}'
        return f'"result": [{", ".join(logs)}]'

    def _build_header(self, block: str) -> dict[str, str] | None:
        number = {"latest": self.height, "finalized": 0}.get(block)
        if number is None:
            number = int(block, 16)
        if number > self.height:
            return None
        place = {"number": hex(number), "timestamp": hex(_get_timestamp(number))}
        return {**place, "hash": _hash_block(number), "parentHash": _hash_block(number - 1)}


def _tell_history() -> Iterator[tuple[str, Fields]]:
    """Yield what happens where everybody is honest and fast: kinds of events with their arguments."""
    for operator in range(1, _OPERATORS + 1):
        yield "OperatorRegistered", {"operator": operator, "owner": _ACCOUNT, "payout": _ACCOUNT}
        stake = {"operator": operator, "asset": 0}
        yield "StakeAdded", {**stake, "role": 0, "amount": 10**24}
        yield "TicketsBought", {**stake, "firstTicketId": operator * 100 - 100, "count": 100}
    job_id = 0
    while True:
        job_id += 1
        yield from _tell_job(job_id)


def _tell_job(job_id: int) -> Iterator[tuple[str, Fields]]:
    schedule = b"".join(n.to_bytes(8) for n in (_ROUNDS, _SLOTS, _SEGMENTS, 2))
    leaves = [*[bytes([leaf]) * 32 for leaf in range(5)], schedule, bytes(32), bytes(32)]
    posted = {"requester": _ACCOUNT, "specHash": bytes(32), "specLeaves": leaves}
    yield "JobCreated", {"jobId": job_id, **posted, "terms": astuple(_TERMS)}
    yield "JobSeeded", {"jobId": job_id, "seed": job_id}
    for place in range(_ROUNDS * _SLOTS):
        round_, slot = divmod(place, _SLOTS)
        yield from _tell_lease(job_id, job_id * 1_000_000 + place + 1, round_, slot)


def _tell_lease(job_id: int, lease: int, round_: int, slot: int) -> Iterator[tuple[str, Fields]]:
    provider, auditor = lease % _OPERATORS + 1, (lease + 7) % _OPERATORS + 1
    shards = {"round": round_, "first": slot, "count": 1, "priceBps": 10_000, "bounty": 0}
    whose = {"leaseId": lease, "jobId": job_id, "operator": provider}
    yield "ShardsClaimed", {**whose, **shards, "deadline": 2**39}
    root = {"root": lease.to_bytes(32), "manifest": lease.to_bytes(32), "drawBlock": 2**30}
    yield "TraceCommitted", {"leaseId": lease, **root}
    audit = {"leaseId": lease, "auditor": auditor, "deadline": 2**39}
    yield "SegmentsDrawn", {**audit, "segments": [3, 1]}
    if slot == _SLOTS - 1:
        yield "RoundClosed", {"jobId": job_id, "round": round_, "attested": 2**_SLOTS - 1}
    yield "ShardsAttested", audit
    yield "LeaseSettled", {"leaseId": lease, "pay": 10**15, "fee": 10**13}


def _build_log(place: int, name: str, arguments: Fields) -> dict[str, object]:
    event = load_contract().events[name]
    inputs = event.abi["inputs"]
    topics = [_encode([i], [arguments[i["name"]]]) for i in inputs if i["indexed"]]
    plain = [i for i in inputs if not i["indexed"]]
    number = place // _EVENTS_PER_BLOCK
    return {
        "address": _MARKET,
        "topics": [event.topic, *topics],
        "data": _encode(plain, [arguments[i["name"]] for i in plain]),
        "blockNumber": hex(number),
        "blockHash": _hash_block(number),
        "blockTimestamp": hex(_get_timestamp(number)),
        "transactionHash": f"0x{place:064x}",
        "transactionIndex": "0x0",
        "logIndex": hex(place % _EVENTS_PER_BLOCK),
        "removed": False,
    }


def _encode(inputs: Any, values: list[object]) -> str:  # Any: of an ABI
    return "0x" + encode([collapse_if_tuple(i) for i in inputs], values).hex()


def _encode_output(name: str, answer: Any) -> str:
    """Return what view ``name`` answers, whose structs are our dataclasses."""
    (output,) = load_contract().get_function_by_name(name).abi["outputs"]
    if output["type"] == "tuple":
        values = asdict(answer)
        answer = tuple(values[to_snake_case(part["name"])] for part in output["components"])
    return _encode([output], [answer])


def _hash_block(number: int) -> str:
    return f"0x{number + 1:064x}"


def _get_timestamp(number: int) -> int:
    return 1_700_000_000 + 12 * number
