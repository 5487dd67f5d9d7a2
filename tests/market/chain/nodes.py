"""Nodes that answer as a test wants, in place of the network."""

import json
from collections.abc import Callable

import requests
from requests.adapters import HTTPAdapter

from market.chain.bench_outbox import build_counter
from market.chain.devnet import Devnet
from market.chain.rpc import Rpc

COUNTER = "0x" + "77" * 20

Answer = Callable[[requests.PreparedRequest], requests.Response | None]


class FakeAdapter(HTTPAdapter):
    """Answers with what ``answer`` returns; where that is None, the node does."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def send(self, request, *args, **options):
        response = self.answer(request)  # false where its status is an error's
        return super().send(request, *args, **options) if response is None else response


def reach(url: str, adapter: HTTPAdapter, chain_id: int | None = None) -> Rpc:
    """Return the node at ``url`` through ``adapter``."""
    session = requests.Session()
    session.mount("http://", adapter)
    return Rpc(url, session=session, chain_id=chain_id)


def put_counter(devnet: Devnet) -> None:
    """Let the contract that counts calls be at `COUNTER`."""
    devnet.rpc.call("anvil_setCode", [COUNTER, "0x" + build_counter().data[1:11].hex()])


def make_response(status: int, text: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = text.encode()
    return response


def make_error(code: int, message: str, **more: str) -> str:
    """Return the body with which a node refuses."""
    return json.dumps({"error": {"code": code, "message": message, **more}})


def fake_node(status: int, text: str) -> Rpc:
    """Return a node that answers everything with the same."""
    return reach("http://a.node", FakeAdapter(lambda _: make_response(status, text)))
