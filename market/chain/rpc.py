"""A node by web3.py: the one place where what goes wrong with it becomes our errors."""

from typing import Any, Final
from urllib.parse import urlsplit

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint, RPCResponse

from market.protocol.errors import ChainError, NodeUnavailable

_TOO_MANY_REQUESTS: Final = 429
_LIMIT_EXCEEDED: Final = -32005


class RpcError(ChainError, Web3RPCError):
    """The node answered, and the answer is an error with ``code`` and perhaps ``data``."""

    def __init__(self, method: str, code: int, message: str, data: object) -> None:
        super().__init__(f"{method} failed: {message} (code {code})")
        self.code = code
        self.data = data


class _Provider(HTTPProvider):
    """Requests that are sent once, follow no redirect, and return a result or raise our errors.

    An URL may carry a key, which the library's messages show: no error is chained to them."""

    def __init__(self, url: str, name: str, timeout_s: float, session: requests.Session) -> None:
        options = {"timeout": timeout_s, "allow_redirects": False}
        super().__init__(url, options, session, exception_retry_configuration=None)
        self._name = name

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return the node's answer, which has a result."""
        try:
            answer = self._exchange(method, params)
        except requests.RequestException as error:
            reason = type(error).__name__
            raise NodeUnavailable(f"no answer from {self._name} to {method}: {reason}") from None
        except ValueError:
            raise ChainError(f"{self._name} answered {method} with no JSON") from None
        match answer:
            case {"error": {"code": int(code), "message": str(message), **rest}}:
                if code == _LIMIT_EXCEEDED:
                    raise NodeUnavailable(f"{self._name} refuses {method} for now: {message}")
                raise RpcError(method, code, message, rest.get("data"))
            case {"result": result}:
                return {"jsonrpc": "2.0", "id": 0, "result": result}  # whatever else nodes add
        raise ChainError(f"{self._name} answered {method} with {answer!r:.200}: no JSON-RPC")

    def _exchange(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        try:
            return super().make_request(method, params)
        except requests.HTTPError as error:
            status = error.response.status_code
            if status >= requests.codes.server_error or status == _TOO_MANY_REQUESTS:
                answer = f"{self._name} answered {method} with {status}"
                raise NodeUnavailable(answer) from None
            return self.decode_rpc_response(error.response.content)  # some nodes' way to say errors


class Rpc:
    """A node at an HTTP URL. Threads may share it."""

    def __init__(
        self, url: str, timeout_s: float = 30, session: requests.Session | None = None
    ) -> None:
        self.name = _name_node(url)
        self._session = session or requests.Session()
        self.web3 = Web3(_Provider(url, self.name, timeout_s, self._session), middleware=[])
        self.eth = self.web3.eth

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def call(self, method: str, params: list[Any]) -> Any:  # the type of JSON
        """Return the result of ``method`` as it came; an error of the node is an `RpcError`."""
        return self.web3.provider.make_request(RPCEndpoint(method), params)["result"]


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
