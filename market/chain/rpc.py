"""JSON-RPC over HTTP: the one place where the node's transport failures become our errors."""

import ssl
from functools import cache
from typing import Any, Final

import httpx

from market.protocol.errors import ChainError, NodeUnavailable

_TOO_MANY_REQUESTS: Final = 429
_LIMIT_EXCEEDED: Final = -32005


@cache
def get_tls() -> ssl.SSLContext:
    """Return the process's one TLS context: reading the certificates takes tens of milliseconds."""
    return ssl.create_default_context()


class RpcError(ChainError):
    """The node answered, and the answer is an error with ``code`` and perhaps ``data``."""

    def __init__(self, method: str, code: int, message: str, data: object) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{method} failed: {message} (code {code})")


class Rpc:
    """A node at an HTTP URL. Threads may share it."""

    def __init__(
        self, url: str, timeout_s: float = 30, transport: httpx.BaseTransport | None = None
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ChainError(f"not a node's URL: {error}") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ChainError("a node's URL starts with http:// or https:// and a host")
        self.name = self._url.netloc.decode()  # without the keys that a URL may carry
        self._client = httpx.Client(timeout=timeout_s, transport=transport, verify=get_tls())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(self, method: str, params: list[Any]) -> Any:  # the type of JSON
        """Return the result of ``method``; an error of the node is an `RpcError`."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            response = self._client.post(self._url, json=request)
        except httpx.TransportError as error:
            raise NodeUnavailable(f"no answer from {self.name} to {method}: {error!r}") from error
        if response.is_server_error or response.status_code == _TOO_MANY_REQUESTS:
            raise NodeUnavailable(f"{self.name} answered {method} with {response.status_code}")
        return _decode_response(self.name, method, response)


def _decode_response(node: str, method: str, response: httpx.Response) -> Any:  # the type of JSON
    try:
        body = response.json()
    except ValueError:
        body = None
    match body:
        case {"error": {"code": int(code), "message": str(message), **rest}}:
            if code == _LIMIT_EXCEEDED:
                raise NodeUnavailable(f"{node} refuses {method} for now: {message}")
            raise RpcError(method, code, message, rest.get("data"))
        case {"result": result} if response.is_success:
            return result
    answer = f"{response.status_code} {response.text[:200]!r}"
    raise ChainError(f"{node} answered {method} with {answer}, which is no JSON-RPC")
