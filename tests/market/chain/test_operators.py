"""Operators, their keys and their money; and amounts and ranges that the contract refuses."""

from dataclasses import replace

import pytest
from eth_utils.address import to_checksum_address

from market.chain.deployment import DEVNET
from market.chain.structs import (
    Operator,
    Role,
    Ticket,
)
from market.protocol.errors import (
    ProtocolError,
    TransactionReverted,
)
from tests.market.chain.synthetic import (
    AUDITOR,
    ETHER,
    PROVIDER,
    REQUESTER,
    make_root,
    make_spec,
)


def test_operators_stakes_tickets_and_pay_are_told_by_events(chain, devnet, provider):
    number = provider.operator
    first = provider.send(chain.calls.buy_tickets(number, 0, 2, ETHER)).block_number
    provider.send(chain.calls.retire_ticket(number, 0, 0))
    provider.send(chain.calls.stake(number, 0, ETHER))
    provider.send(chain.calls.thaw(number, 0, ETHER))
    devnet.advance_time(DEVNET.thaw_time + 1)
    provider.send(chain.calls.withdraw_stake(number, Role.PROVIDER, 0))
    last = provider.send(chain.calls.set_worker(number, AUDITOR.address, authorized=True))

    events = chain.get_events(first, last.block_number)

    told = ["TicketsBought", "TicketRetired", "StakeThawing", "StakeAdded", "StakeThawing"]
    assert [type(event).__name__ for event in events] == [*told, "StakeWithdrawn", "WorkerChanged"]
    assert [event.role for event in events[2:6]] == [Role.AUDITOR, *[Role.PROVIDER] * 3]
    assert chain.count_tickets(0) == 2
    assert chain.get_ticket(0, 0) == Ticket(number, leaving=True)
    assert chain.get_account(number, Role.PROVIDER, 0).staked == 0


def test_the_operators_of_a_key_are_those_that_it_may_act_for(chain, provider, auditor):
    provider.send(chain.calls.set_worker(provider.operator, AUDITOR.address, authorized=True))
    both = chain.list_operators(AUDITOR.address)
    provider.send(chain.calls.set_worker(provider.operator, AUDITOR.address, authorized=False))

    assert both == [provider.operator, auditor.operator]
    assert chain.list_operators(AUDITOR.address) == [auditor.operator]
    assert chain.list_workers(provider.operator) == [PROVIDER.address]
    assert chain.is_worker(provider.operator, PROVIDER.address)
    assert chain.get_operator(provider.operator) == Operator(PROVIDER.address, PROVIDER.address)
    assert chain.count_operators() == 2


def test_an_operator_goes_to_the_owner_that_accepts_it(chain, provider, auditor):
    with pytest.raises(TransactionReverted, match="OperatorNotOwner"):
        auditor.send(chain.calls.accept_owner(provider.operator))

    provider.send(chain.calls.propose_owner(provider.operator, AUDITOR.address))
    auditor.send(chain.calls.accept_owner(provider.operator))
    auditor.send(chain.calls.set_payout(provider.operator, REQUESTER.address))

    assert chain.get_operator(provider.operator) == Operator(AUDITOR.address, REQUESTER.address)


def test_many_calls_happen_in_one_transaction(chain, provider):
    number = provider.operator
    workers = [make_root(f"worker {i}")[:20] for i in range(3)]
    addresses = [to_checksum_address(worker) for worker in workers]
    calls = [chain.calls.set_worker(number, worker, authorized=True) for worker in addresses]

    receipt = provider.send(chain.calls.multicall(calls))

    assert len(receipt.logs) == 3
    assert all(chain.is_worker(number, worker) for worker in addresses)
    with pytest.raises(ProtocolError, match="stake cannot be part"):
        chain.calls.multicall([chain.calls.stake(number, 0, 1)])


@pytest.mark.parametrize(
    ("first", "count", "error"),
    [
        (0, 1, "JobShardsTaken"),
        (1, 2, "JobShardsTaken"),
        (0, 4, "JobShardsTaken"),
        (2, 0, "JobHasNoShards"),
        (3, 2, "JobHasNoShards"),
        (2**255, 2**255, "JobHasNoShards"),
    ],
)
def test_a_range_of_slots_that_is_taken_or_not_there_is_refused(
    chain, post_job, claim_shards, provider, first, count, error
):
    job_id = post_job(make_spec(chain.get_time() + 1000, slots=4))
    claim_shards(job_id, 2)

    with pytest.raises(TransactionReverted, match=error):
        provider.send(chain.calls.claim(job_id, provider.operator, 0, first, count))


@pytest.mark.parametrize(
    ("amount", "error"),
    [(0, r"OperatorZeroAmount\(\)"), (2**80, "SafeCastOverflowedUintDowncast")],
)
def test_an_amount_of_nothing_or_beyond_the_ledger_is_refused(
    chain, devnet, provider, amount, error
):
    devnet.rpc.call("anvil_setBalance", [PROVIDER.address, hex(2**90)])

    with pytest.raises(TransactionReverted, match=error):
        provider.send(chain.calls.stake(provider.operator, 0, amount))


def test_a_payment_that_is_not_the_amount_is_refused(chain, provider):
    call = chain.calls.stake(provider.operator, 0, 5)
    short = replace(call, value=4)

    with pytest.raises(TransactionReverted, match=r"AssetWrongPayment\(4, 5\)"):
        provider.send(short)
    with pytest.raises(TransactionReverted, match=r"AssetUnknown\(1, 1\)"):
        provider.send(chain.calls.stake(provider.operator, 1, 5))
