"""What a node says of blocks and of the market's logs in them, so that a reorganization is noticed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from hexbytes import HexBytes
from web3.types import LogReceipt

from market.chain.client import Chain
from market.chain.events import Event
from market.chain.logs import decode_events
from market.chain.rpc import RpcError
from market.protocol.errors import ChainError, NodeUnavailable

_FIRST_SPAN: Final = 1_000  # blocks of one query
_LONGEST_SPAN: Final = 10_000  # public nodes refuse more
_FEW_LOGS: Final = 2_500
_MANY_LOGS: Final = 20_000  # what one transaction of ours should hold

_Json = Mapping[str, Any]  # Any: the type of JSON


class BlockReplaced(NodeUnavailable):
    """A block was replaced by another while it was read; reading again shows the new one."""


@dataclass(frozen=True, slots=True)
class Header:
    """A block's place in its chain."""

    number: int
    hash: str
    parent_hash: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event, and the block that has it."""

    event: Event
    block_hash: str
    timestamp: int


class Source:
    """Reads the blocks of ``chain``, and the logs of its market."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._span = _FIRST_SPAN
        self._timestamps: dict[int, int] = {}  # of nodes whose logs lack it

    def get_head(self) -> Header:
        """Return the latest block."""
        header = self._find_header("latest")
        if header is None:
            raise ChainError(f"{self.chain.rpc.name} has no latest block")
        return header

    def find_header(self, number: int) -> Header | None:
        """Return a block, or None where there is none yet."""
        return self._find_header(hex(number))

    def stands(self, number: int, block_hash: str) -> bool:
        """Check whether block ``number`` still has that hash."""
        header = self.find_header(number)
        return header is not None and header.hash == block_hash

    def get_finalized(self) -> int:
        """Return the last block that the node calls final: the first, where it knows no such thing."""
        try:
            header = self._find_header("finalized")
        except RpcError:
            return 0
        return 0 if header is None else header.number

    def get_block_events(self, header: Header) -> list[LoggedEvent]:
        """Return the events of one block; raise BlockReplaced if the node has another in its place."""
        try:
            logs = self._get_logs({"blockHash": header.hash})
        except RpcError as error:
            if self.find_header(header.number) == header:
                raise
            raise BlockReplaced(f"block {header.number} was replaced: {error}") from error
        return self._decode(logs)

    def get_events(self, first: int, last: int) -> tuple[Header, list[LoggedEvent]]:
        """Return the events of the blocks from ``first`` on, up to the header returned with them.

        That is ``last``, or a block before it where the node or we cannot take so many at once."""
        while True:
            end = min(last, first + self._span - 1)
            header = self._require_header(end)
            try:
                logs = self._get_logs({"fromBlock": hex(first), "toBlock": hex(end)})
            except (
                ChainError
            ):  # nodes have many words for "too many results", and some are just mute
                if end == first:
                    raise
                self._span = max(1, (end - first + 1) // 2)
                continue
            # INVARIANT: a block's hash fixes all before it, so the logs are of its chain if it stands.
            if self._require_header(end) != header:
                raise BlockReplaced(f"block {end} was replaced while its logs were read")
            if len(logs) > _MANY_LOGS:
                self._span = max(1, self._span // 2)
            elif len(logs) < _FEW_LOGS:
                self._span = min(self._span * 2, _LONGEST_SPAN)
            return header, self._decode(logs)

    def _get_logs(self, where: dict[str, str]) -> list[_Json]:
        query = {"address": self.chain.deployment.market, **where}
        logs: list[_Json] = self.chain.rpc.call("eth_getLogs", [query])
        return logs

    def _decode(self, logs: list[_Json]) -> list[LoggedEvent]:
        events = decode_events(map(_build_receipt, logs))
        self._timestamps.clear()
        return [
            LoggedEvent(event, log["blockHash"], self._get_timestamp(log))
            for event, log in zip(events, logs, strict=True)
        ]

    def _get_timestamp(self, log: _Json) -> int:
        """Return when the block of ``log`` was made: newer nodes say so in the log."""
        if log.get("blockTimestamp") is not None:
            return int(log["blockTimestamp"], 16)
        number = int(log["blockNumber"], 16)
        if number not in self._timestamps:
            self._timestamps[number] = self._require_header(number).timestamp
        return self._timestamps[number]

    def _require_header(self, number: int) -> Header:
        header = self.find_header(number)
        if header is None:
            raise BlockReplaced(f"block {number} is gone")
        return header

    def _find_header(self, block: str) -> Header | None:
        answer: _Json | None = self.chain.rpc.call("eth_getBlockByNumber", [block, False])
        if answer is None:
            return None
        return Header(
            number=int(answer["number"], 16),
            hash=answer["hash"],
            parent_hash=answer["parentHash"],
            timestamp=int(answer["timestamp"], 16),
        )


def _build_receipt(log: _Json) -> LogReceipt:
    receipt = {
        **log,
        "blockNumber": int(log["blockNumber"], 16),
        "logIndex": int(log["logIndex"], 16),
        "transactionIndex": int(log["transactionIndex"], 16),
        "blockHash": HexBytes(log["blockHash"]),
        "transactionHash": HexBytes(log["transactionHash"]),
        "topics": [HexBytes(topic) for topic in log["topics"]],
        "data": HexBytes(log["data"]),
    }
    return cast(LogReceipt, receipt)
