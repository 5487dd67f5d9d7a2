"""Logs as typed events: the one place that decodes what the contract logged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_typing import ABIComponent, HexStr
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_checksum_address
from web3.types import LogReceipt

from market.chain.abi import load_contract
from market.chain.events import EVENTS, Event
from market.chain.structs import build_struct


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a kind of event is logged: the ABI's inputs in topics and in data, and their types."""

    kind: type[Event]
    indexed: Sequence[ABIComponent]
    plain: Sequence[ABIComponent]
    indexed_types: list[str]
    plain_types: list[str]


def get_topic(kind: type[Event]) -> HexStr:
    """Return the topic under which events of ``kind`` are logged."""
    return load_contract().events[kind.__name__].topic


def decode_events(logs: Iterable[LogReceipt]) -> list[Event]:
    """Return the events in ``logs``, which are all of the market."""
    return [_decode_event(log) for log in logs]


def _decode_event(log: LogReceipt) -> Event:
    # web3.py's `process_log` does the same in eight times the time: too slow for a rebuild of an index.
    shape = _load_shapes()[bytes(log["topics"][0])]
    indexed = decode(
        shape.indexed_types, b"".join(log["topics"][1:])
    )  # none is hashed: all are words
    plain = decode(shape.plain_types, log["data"])
    place = {
        "block_number": log["blockNumber"],
        "log_index": log["logIndex"],
        "tx_hash": "0x" + bytes(log["transactionHash"]).hex(),
    }
    values = {**_name_values(shape.indexed, indexed), **_name_values(shape.plain, plain)}
    return build_struct(shape.kind, {**place, **values})


def _name_values(inputs: Sequence[ABIComponent], values: Iterable[Any]) -> dict[str, Any]:
    """Return decoded values by name; Any: what an ABI's value can be."""
    return {i["name"]: _read_value(i, v) for i, v in zip(inputs, values, strict=True)}


def _read_value(component: ABIComponent, value: Any) -> Any:
    if component["type"] == "address":
        return to_checksum_address(value)
    return _name_values(component["components"], value) if component["type"] == "tuple" else value


@cache
def _load_shapes() -> dict[bytes, _Shape]:
    shapes = {}
    for name, kind in EVENTS.items():
        event = load_contract().events[name]
        indexed = [i for i in event.abi["inputs"] if i["indexed"]]
        plain = [i for i in event.abi["inputs"] if not i["indexed"]]
        types = [collapse_if_tuple(i) for i in indexed], [collapse_if_tuple(i) for i in plain]
        shapes[bytes.fromhex(event.topic[2:])] = _Shape(kind, indexed, plain, *types)
    return shapes
