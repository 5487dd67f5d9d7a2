"""The contract's ABI: calls, results, custom errors and events as bytes and as values.

Structs go in as objects and come out as mappings, field by field by name, so the order in which
Solidity packs them concerns nobody."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.codec import ABICodec
from eth_abi.decoding import AddressDecoder
from eth_abi.encoding import AddressEncoder
from eth_abi.exceptions import DecodingError, EncodingError
from eth_abi.registry import BaseEquals
from eth_abi.registry import registry as default_registry
from eth_typing import AnyAddress, HexAddress
from eth_utils.abi import collapse_if_tuple
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.hexadecimal import decode_hex

from market.chain.rpc import RpcError
from market.protocol.errors import ChainError, ProtocolError, TransactionReverted

Value = Any  # int, bool, str, bytes, or a tuple or mapping of values
Named = Mapping[str, Value]

_ARTIFACT: Final = "artifacts/Market.json"
_SELECTOR_BYTES: Final = 4


class _ChecksumAddressDecoder(AddressDecoder):
    """Decodes addresses to the text that eth-account uses, so that they compare equal."""

    @staticmethod
    def decoder_fn(data: AnyAddress | str | bytes) -> HexAddress:
        return to_checksum_address(data)


def _build_codec() -> ABICodec:
    registry = default_registry.copy()  # type: ignore[no-untyped-call]  # of eth_abi
    registry.unregister("address")
    is_address = BaseEquals("address")  # type: ignore[no-untyped-call]  # of eth_abi
    registry.register(is_address, AddressEncoder, _ChecksumAddressDecoder, label="address")
    return ABICodec(registry)


_CODEC: Final = _build_codec()


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input or output: its type as signatures spell it, and the fields of a struct."""

    name: str
    type: str
    indexed: bool = False
    fields: tuple["Parameter", ...] = ()

    @property
    def is_list(self) -> bool:
        """Whether the value is a list of the type's elements."""
        return self.type.endswith("]")

    def flatten(self, value: object) -> Value:
        """Return ``value`` with its structs as tuples."""
        if not self.fields:
            return value
        if self.is_list:
            assert isinstance(value, Sequence)
            return [self._flatten_struct(element) for element in value]
        return self._flatten_struct(value)

    def name_fields(self, value: Value) -> Value:
        """Return ``value`` with its structs, which are tuples, as mappings."""
        if not self.fields:
            return value
        if self.is_list:
            return tuple(name_values(self.fields, element) for element in value)
        return name_values(self.fields, value)

    def _flatten_struct(self, value: object) -> Value:
        return tuple(field.flatten(getattr(value, field.name)) for field in self.fields)


@dataclass(frozen=True, slots=True)
class Entry:
    """A function, custom error or event of the contract; names of its parts are in snake case."""

    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...] = ()

    @property
    def hash(self) -> bytes:
        """The Keccak-256 of the signature: an event's topic; four bytes of it: a selector."""
        types = ",".join(parameter.type for parameter in self.inputs)
        return bytes(keccak(text=f"{self.name}({types})"))

    @property
    def selector(self) -> bytes:
        """The four bytes with which calldata or revert data begins."""
        return self.hash[:_SELECTOR_BYTES]


_BUILT_IN_ERRORS: Final = (
    Entry("Error", (Parameter("message", "string"),)),
    Entry("Panic", (Parameter("code", "uint256"),)),
)


@dataclass(frozen=True, slots=True)
class Abi:
    """What the compiled contract understands, and its creation code."""

    functions: Mapping[str, Entry]
    errors: Mapping[bytes, Entry]
    events: Mapping[bytes, Entry]
    constructor: Entry
    bytecode: bytes

    def encode_call(self, name: str, *arguments: object) -> bytes:
        """Return the calldata of function ``name``."""
        function = self.functions[name]
        return function.selector + _encode(function, arguments)

    def encode_creation(self, *arguments: object) -> bytes:
        """Return the creation code with its constructor's arguments."""
        return self.bytecode + _encode(self.constructor, arguments)

    def decode_result(self, name: str, data: bytes) -> tuple[Value, ...]:
        """Return the values that function ``name`` answered."""
        outputs = self.functions[name].outputs
        values = _decode(outputs, data, f"the answer of {name}")
        return tuple(
            output.name_fields(value) for output, value in zip(outputs, values, strict=True)
        )

    def explain(self, error: RpcError) -> ChainError:
        """Return the custom error behind a node's ``error``, or ``error`` where it is no revert."""
        if not isinstance(error.data, str) or not error.data.startswith("0x"):
            return error
        data = decode_hex(error.data)
        entry = self.errors.get(data[:_SELECTOR_BYTES])
        if entry is None:
            return TransactionReverted("UnknownError", (error.data,))
        values = _decode(entry.inputs, data[_SELECTOR_BYTES:], f"the error {entry.name}")
        return TransactionReverted(entry.name, values)

    def decode_log(self, topics: Sequence[bytes], data: bytes) -> tuple[str, Named]:
        """Return the name of the event in a log, and its values."""
        event = self.events[topics[0]]
        plain = [parameter for parameter in event.inputs if not parameter.indexed]
        indexed = [parameter for parameter in event.inputs if parameter.indexed]
        values = name_values(plain, _decode(plain, data, event.name))
        for parameter, topic in zip(indexed, topics[1:], strict=True):
            values[parameter.name] = _decode([parameter], topic, event.name)[0]
        return event.name, values


def name_values(parameters: Iterable[Parameter], values: Iterable[Value]) -> dict[str, Value]:
    """Return ``values`` under the names of their ``parameters``."""
    pairs = zip(parameters, values, strict=True)
    return {parameter.name: parameter.name_fields(value) for parameter, value in pairs}


def _encode(entry: Entry, arguments: Sequence[object]) -> bytes:
    types = [parameter.type for parameter in entry.inputs]
    pairs = zip(entry.inputs, arguments, strict=True)
    try:
        return bytes(_CODEC.encode(types, [parameter.flatten(value) for parameter, value in pairs]))
    except EncodingError as error:
        raise ProtocolError(f"{entry.name} does not take {arguments}: {error}") from error


def _decode(parameters: Iterable[Parameter], data: bytes, what: str) -> tuple[Value, ...]:
    try:
        return tuple(_CODEC.decode([parameter.type for parameter in parameters], data))
    except DecodingError as error:
        raise ChainError(f"{what} is malformed: {error}") from error


def _to_snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _parse_parameter(item: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=_to_snake_case(item["name"]),
        type=collapse_if_tuple(dict(item)),
        indexed=item.get("indexed", False),
        fields=tuple(_parse_parameter(field) for field in item.get("components", ())),
    )


def _parse_entry(item: Mapping[str, Any]) -> Entry:
    return Entry(
        name=item.get("name", item["type"]),
        inputs=tuple(_parse_parameter(parameter) for parameter in item.get("inputs", ())),
        outputs=tuple(_parse_parameter(parameter) for parameter in item.get("outputs", ())),
    )


@cache
def load_abi() -> Abi:
    """Return the ABI that was generated with this package."""
    artifact = json.loads(files("market.chain").joinpath(_ARTIFACT).read_text())
    entries = [(item["type"], _parse_entry(item)) for item in artifact["abi"]]
    errors = [entry for kind, entry in entries if kind == "error"]
    return Abi(
        functions={entry.name: entry for kind, entry in entries if kind == "function"},
        errors={entry.selector: entry for entry in (*errors, *_BUILT_IN_ERRORS)},
        events={entry.hash: entry for kind, entry in entries if kind == "event"},
        constructor=next(entry for kind, entry in entries if kind == "constructor"),
        bytecode=decode_hex(artifact["bytecode"]),
    )
