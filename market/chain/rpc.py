"""Nodes by web3.py: the one place where what goes wrong with them becomes our errors."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from web3 import HTTPProvider, Web3
from web3.eth import Eth
from web3.exceptions import Web3RPCError
from web3.providers import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from market.protocol.errors import ChainError, NodeUnavailable

_TOO_MANY_REQUESTS: Final = 429
_LIMIT_EXCEEDED: Final = -32005
_REST_S: Final = 10  # a node that was mute is asked after the others for so long
_BROADCAST: Final = "eth_sendRawTransaction"

T = TypeVar("T")


class RpcError(ChainError, Web3RPCError):
    """The node answered, and the answer is an error with ``code`` and perhaps ``data``."""

    def __init__(self, method: str, code: int, message: str, data: object) -> None:
        super().__init__(f"{method} failed: {message} (code {code})")
        self.code = code
        self.data = data


class _Node(HTTPProvider):
    """Requests that are sent once, follow no redirect, and return a result or raise our errors.

    An URL may carry a key, which the library's messages show: no error is chained to them."""

    def __init__(self, url: str, timeout_s: float, session: requests.Session) -> None:
        self.name = _name_node(url)
        self.is_checked = False  # whether it serves the chain of the others
        self.rests_until = 0.0
        options = {"timeout": timeout_s, "allow_redirects": False}
        super().__init__(url, options, session, exception_retry_configuration=None)

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return the node's answer, which has a result."""
        try:
            answer = self._exchange(method, params)
        except requests.RequestException as error:
            reason = type(error).__name__
            raise NodeUnavailable(f"no answer from {self.name} to {method}: {reason}") from None
        except ValueError:
            raise ChainError(f"{self.name} answered {method} with no JSON") from None
        match answer:
            case {"error": {"code": int(code), "message": str(message), **rest}}:
                if code == _LIMIT_EXCEEDED:
                    raise NodeUnavailable(f"{self.name} refuses {method} for now: {message}")
                raise RpcError(method, code, message, rest.get("data"))
            case {"result": result}:
                return {"jsonrpc": "2.0", "id": 0, "result": result}  # whatever else nodes add
        raise ChainError(f"{self.name} answered {method} with {answer!r:.200}: no JSON-RPC")

    def _exchange(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        try:
            return super().make_request(method, params)
        except requests.HTTPError as error:
            status = error.response.status_code
            if status >= requests.codes.server_error or status == _TOO_MANY_REQUESTS:
                answer = f"{self.name} answered {method} with {status}"
                raise NodeUnavailable(answer) from None
            return self.decode_rpc_response(error.response.content)  # some nodes' way to say errors


class _Nodes(JSONBaseProvider):
    """Nodes of one chain: a question goes to one that answers, a transaction to all of them.

    INVARIANT: a node is asked nothing but its chain's id before that is known to be theirs."""

    def __init__(self, nodes: Sequence[_Node], chain_id: int | None) -> None:
        super().__init__()
        self._nodes = list(nodes)  # the one that answered last is first
        self._chain_id = chain_id

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return what a node answers; a transaction is refused if no node takes it."""
        if method == _BROADCAST:
            return self._broadcast(params)
        return self.ask(lambda node: node.make_request(method, params))

    def ask(self, question: Callable[[_Node], T]) -> T:
        """Return the answer of the first node that has one."""
        failures = []
        for node in self._order():
            try:
                answer = self._ask_node(node, question)
            except RpcError:
                raise
            except ChainError as error:
                failures.append(error)
                continue
            if node is not self._nodes[0]:
                self._nodes = [node, *(other for other in self._nodes if other is not node)]
            return answer
        raise _join(failures)

    def _broadcast(self, params: Any) -> RPCResponse:
        accepted: list[RPCResponse] = []
        refusals, failures = [], []
        for node in self._order():
            if accepted and node.rests_until > time.monotonic():
                continue
            try:
                accepted.append(
                    self._ask_node(node, lambda n: n.make_request(RPCEndpoint(_BROADCAST), params))
                )
            except RpcError as error:
                refusals.append(error)
            except ChainError as error:
                failures.append(error)
        if accepted:
            return accepted[0]
        raise refusals[0] if refusals else _join(failures)

    def _order(self) -> list[_Node]:
        now = time.monotonic()
        return sorted(self._nodes, key=lambda node: node.rests_until > now)

    def _ask_node(self, node: _Node, question: Callable[[_Node], T]) -> T:
        try:
            self._require_chain(node)
            return question(node)
        except NodeUnavailable:
            node.is_checked = False  # it may come back as something else
            node.rests_until = time.monotonic() + _REST_S
            raise

    def _require_chain(self, node: _Node) -> None:
        """Raise ChainError unless ``node`` serves the chain of the others, if there are any."""
        if node.is_checked or (self._chain_id is None and len(self._nodes) == 1):
            return
        found = _get_chain_id(node)
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise ChainError(f"{node.name} serves chain {found}, not chain {self._chain_id}")
        node.is_checked = True


class Rpc:
    """One or more nodes of a chain at HTTP URLs, which commas separate. Threads may share it.

    Without ``chain_id``, the chain is that of the first node that answers."""

    def __init__(
        self,
        urls: str,
        timeout_s: float = 30,
        session: requests.Session | None = None,
        chain_id: int | None = None,
    ) -> None:
        self._session = session or requests.Session()
        nodes = [_Node(url.strip(), timeout_s, self._session) for url in urls.split(",")]
        self.name = ", ".join(node.name for node in nodes)
        self._nodes = _Nodes(nodes, chain_id)
        self._alone = {node: Web3(node, middleware=[]).eth for node in nodes}
        self.web3 = Web3(self._nodes, middleware=[])
        self.eth = self.web3.eth

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def call(self, method: str, params: list[Any]) -> Any:  # the type of JSON
        """Return the result of ``method`` as it came; an error of the node is an `RpcError`."""
        return self.web3.provider.make_request(RPCEndpoint(method), params)["result"]

    def choose_node(self) -> Eth:
        """Return a node that answers, alone: what it says of receipts and counts fits together."""

        def probe(node: _Node) -> Eth:
            _get_chain_id(node)
            return self._alone[node]

        return self._nodes.ask(probe)


def _get_chain_id(node: _Node) -> int:
    """Return the id of the chain that ``node`` serves."""
    return int(node.make_request(RPCEndpoint("eth_chainId"), [])["result"], 16)


def _join(failures: Sequence[ChainError]) -> ChainError:
    """Return the failures as one, which is retryable if one of them is."""
    if len(failures) == 1:
        return failures[0]
    mute = any(isinstance(failure, NodeUnavailable) for failure in failures)
    return (NodeUnavailable if mute else ChainError)("; ".join(map(str, failures)))


def _name_node(url: str) -> str:
    """Return the host and port in ``url``, without the keys that it may carry."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ChainError("a node's URL starts with http:// or https:// and a host")
    return parts.netloc.rpartition("@")[2]
