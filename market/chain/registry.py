"""Which market is current, and how old a client may be: what a registry says, whose owner holds no money."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from eth_utils.address import to_checksum_address

from market.chain.abi import load_contract
from market.chain.rpc import Rpc
from market.chain.structs import Address

_PARTS: Final = 3  # major, minor, patch


@dataclass(frozen=True, slots=True)
class Release:
    """A deployed version; ``minimum_client`` is major * 10^6 + minor * 10^3 + patch."""

    market: Address
    offers: Address
    minimum_client: int


def get_current_release(rpc: Rpc, registry: Address) -> Release:
    """Return the release that the registry calls current."""
    address = to_checksum_address(registry)
    contract = rpc.eth.contract(address, abi=load_contract("Registry").abi, decode_tuples=True)
    return Release(*contract.functions.current().call())


def compute_client_number(text: str) -> int:
    """Return the number of a version like 1.2.3, as the registry writes it."""
    parts = [int("".join(filter(str.isdigit, part)) or 0) for part in text.split(".")[:_PARTS]]
    major, minor, patch = [*parts, 0, 0][:_PARTS]
    return major * 10**6 + minor * 10**3 + patch


def is_supported_client(rpc: Rpc, registry: Address | None) -> bool:
    """Check that no registry asks for a newer client than this is."""
    if registry is None:
        return True
    needed = get_current_release(rpc, registry).minimum_client
    return compute_client_number(version("touchstone-market")) >= needed
