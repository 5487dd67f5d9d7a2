"""What transactions to the market cost, by function."""

from collections import defaultdict
from typing import cast

from eth_utils.address import to_checksum_address
from web3.types import TxData

from market.chain.abi import load_contract
from market.chain.client import Chain


def collect_gas(chain: Chain) -> dict[str, list[int]]:
    """Return the gas of each transaction to the market that succeeded, by function.

    A transaction that lost a race reverted; it is no measure of what its function costs."""
    contract, eth = load_contract(), chain.rpc.eth
    market = to_checksum_address(chain.deployment.market)
    gas: dict[str, list[int]] = defaultdict(list)
    for number in range(chain.deployment.block, chain.get_height() + 1):
        block = eth.get_block(number, full_transactions=True)
        for transaction in cast(list[TxData], block["transactions"]):
            if transaction.get("to") != market:
                continue
            receipt = eth.get_transaction_receipt(transaction["hash"])
            if receipt["status"] == 1:
                function = contract.get_function_by_selector(transaction["input"][:4])
                gas[function.fn_name].append(receipt["gasUsed"])
    return dict(gas)
