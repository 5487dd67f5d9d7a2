"""The contracts' ABIs by web3.py, with structs as our dataclasses, field by field by name.

So the order in which Solidity packs them concerns nobody."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from eth_abi.exceptions import DecodingError
from eth_utils.abi import filter_abi_by_type, get_aligned_abi_inputs
from eth_utils.hexadecimal import decode_hex
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import MismatchedABI, Web3ValueError

from market.chain.rpc import RpcError
from market.protocol.errors import ChainError, ProtocolError, TransactionReverted

_CONTRACTS: Final = ("Market", "Offers", "Vouchers", "Registry")
_BUILT_IN_ERRORS: Final = (
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
)


@cache
def load_contract(contract: str = "Market") -> type[Contract]:
    """Return a contract that was generated with this package, at no address."""
    artifact = _read_artifact(contract)
    return Web3().eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"])


@cache
def _load_errors() -> type[Contract]:
    """Return the custom errors as functions: an error is encoded as its call would be."""
    entries = [entry for name in _CONTRACTS for entry in _read_artifact(name)["abi"]]
    errors = [e for e in (*entries, *_BUILT_IN_ERRORS) if e["type"] == "error"]
    distinct = {json.dumps(error, sort_keys=True): error for error in errors}.values()
    return Web3().eth.contract(abi=[{**e, "type": "function", "outputs": []} for e in distinct])


def _read_artifact(contract: str) -> Any:  # the type of JSON
    return json.loads(files("market.chain").joinpath(f"artifacts/{contract}.json").read_text())


def encode_call(name: str, *arguments: object, contract: str = "Market") -> bytes:
    """Return the calldata of the function ``name`` of a contract."""
    try:
        return decode_hex(load_contract(contract).encode_abi(name, [*map(name_fields, arguments)]))
    except MismatchedABI as error:
        raise ProtocolError(f"{name} does not take {arguments}: {error}") from error


def encode_creation(*arguments: object, contract: str = "Market") -> bytes:
    """Return a contract's creation code with its constructor's arguments."""
    built, named = load_contract(contract), tuple(map(name_fields, arguments))
    (entry,) = filter_abi_by_type("constructor", built.abi)
    _, aligned = get_aligned_abi_inputs(entry, named)  # for functions web3.py does so itself
    return decode_hex(built.constructor(*aligned).data_in_transaction)


def explain(error: RpcError) -> ChainError:
    """Return the custom error behind a node's ``error``, or ``error`` where it is no revert."""
    if not isinstance(error.data, str) or not error.data.startswith("0x"):
        return error
    try:
        entry, arguments = _load_errors().decode_function_input(error.data)
    except (Web3ValueError, DecodingError):
        return TransactionReverted("UnknownError", (error.data,))
    return TransactionReverted(entry.fn_name, tuple(arguments.values()))


@cache
def to_snake_case(name: str) -> str:
    """Return our name of what Solidity calls ``name``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def name_fields(value: object) -> object:
    """Return ``value`` with its dataclasses as mappings under Solidity's names."""
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
        return {_to_camel_case(name): name_fields(getattr(value, name)) for name in names}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [name_fields(element) for element in value]
    return value


def _to_camel_case(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)
