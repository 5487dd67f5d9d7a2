"""A bound on every request's body, kept while it arrives."""

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """ASGI middleware: limits bodies to ``blob_path`` and to all others."""

    app: ASGIApp
    document_bytes: int
    blob_bytes: int
    blob_path: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with 413 where the body is too long."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.blob_bytes if scope["path"] == self.blob_path else self.document_bytes
        await self.app(scope, _limit(receive, limit), send)


def _limit(receive: Receive, limit: int) -> Receive:
    received = 0

    async def receive_within_limit() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"a body of more than {limit} bytes")
        return message

    return receive_within_limit
