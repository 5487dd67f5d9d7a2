"""Which operator a key acts for."""

from market.chain.client import Chain
from market.chain.structs import Address
from market.protocol.errors import MarketError, NotFound


def find_operator(chain: Chain, worker: Address, chosen: int | None) -> int:
    """Return ``chosen``, or the one operator that ``worker`` may act for; raise if it is not one."""
    if chosen is not None:
        return chosen
    operators = chain.list_operators(worker)
    if not operators:
        raise NotFound(
            f"{worker} acts for no operator: `touchstone operator register` makes it one"
        )
    if len(operators) > 1:
        listed = ", ".join(map(str, operators))
        raise MarketError(
            f"{worker} acts for operators {listed}: choose by --operator or TOUCHSTONE_OPERATOR"
        )
    return operators[0]
