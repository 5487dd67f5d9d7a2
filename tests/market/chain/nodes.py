"""Nodes that answer as a test wants, in place of the network."""

from collections.abc import Callable

import requests
from requests.adapters import HTTPAdapter

from market.chain.rpc import Rpc

Answer = Callable[[requests.PreparedRequest], requests.Response | None]


class FakeAdapter(HTTPAdapter):
    """Answers with what ``answer`` returns; where that is None, the node does."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def send(self, request, *args, **options):
        response = self.answer(request)  # false where its status is an error's
        return super().send(request, *args, **options) if response is None else response


def reach(url: str, adapter: HTTPAdapter) -> Rpc:
    """Return the node at ``url`` through ``adapter``."""
    session = requests.Session()
    session.mount("http://", adapter)
    return Rpc(url, session=session)


def make_response(status: int, text: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = text.encode()
    return response


def fake_node(status: int, text: str) -> Rpc:
    """Return a node that answers everything with the same."""
    return reach("http://a.node", FakeAdapter(lambda _: make_response(status, text)))
