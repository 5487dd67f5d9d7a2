"""What every transaction to the market cost, by function."""

from collections import defaultdict

from market.chain.abi import load_abi
from market.chain.client import Chain


def collect_gas(chain: Chain) -> dict[str, list[int]]:
    """Return the gas of each transaction sent to the market since its creation, by function."""
    names = {entry.selector: entry.name for entry in load_abi().functions.values()}
    market = chain.deployment.market.lower()
    gas: dict[str, list[int]] = defaultdict(list)
    for number in range(chain.deployment.block, chain.get_height() + 1):
        block = chain.rpc.call("eth_getBlockByNumber", [hex(number), True])
        for transaction in block["transactions"]:
            if (transaction["to"] or "").lower() != market:
                continue
            receipt = chain.rpc.call("eth_getTransactionReceipt", [transaction["hash"]])
            selector = bytes.fromhex(transaction["input"][2:10])
            gas[names[selector]].append(int(receipt["gasUsed"], 16))
    return dict(gas)
