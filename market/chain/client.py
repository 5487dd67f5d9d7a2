"""Typed access to a deployed market: what it knows, what happened, and sending what changes it."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from eth_typing import BlockNumber
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3.exceptions import BadFunctionCallOutput, MismatchedABI
from web3.types import FilterParams, LogReceipt

from market.chain.abi import explain, load_contract
from market.chain.calls import Calls
from market.chain.deployment import Config, Deployment
from market.chain.events import (
    EVENTS,
    Event,
    JobCreated,
    JobEvent,
    LeaseEvent,
    ShardClaimed,
    decode_events,
    get_topic,
)
from market.chain.headers import get_header_rlp
from market.chain.rpc import Rpc, RpcError
from market.chain.structs import Address, Job, JobStatus, Lease, Stake, Ticket, build_struct
from market.chain.transactions import Sender
from market.protocol.errors import ChainError, NotFound, ProtocolError
from market.protocol.hashing import Hash32, encode_u256
from market.protocol.lifecycle import LeaseStatus

_MAX_LOG_BLOCKS: Final = 10_000  # of one query; public nodes refuse more
_PATIENCE_S: Final = 60.0

E = TypeVar("E", bound=Event)

_JOB_EVENTS: Final = tuple(k for k in EVENTS.values() if issubclass(k, JobEvent))
_LEASE_EVENTS: Final = tuple(k for k in EVENTS.values() if issubclass(k, LeaseEvent))


def connect(url: str, deployment: Deployment, patience_s: float = _PATIENCE_S) -> "Chain":
    """Return the market of ``deployment`` through the node at ``url``, which is not asked yet."""
    return Chain(Rpc(url), deployment, patience_s)


class Chain(Sender):
    """A market on a chain, seen through one node. Threads may share it.

    Sending waits up to ``patience_s`` for a node that is mute or slow."""

    def __init__(self, rpc: Rpc, deployment: Deployment, patience_s: float) -> None:
        super().__init__(rpc, patience_s)
        self.deployment = deployment
        self.calls = Calls(deployment.market)
        address = to_checksum_address(deployment.market)
        self._contract = rpc.eth.contract(address, abi=load_contract().abi, decode_tuples=True)

    def require_deployed(self) -> None:
        """Raise ChainError unless the node is on the deployment's chain and the market is there."""
        chain_id = self.get_chain_id()
        if chain_id != self.deployment.chain_id:
            wanted = self.deployment.chain_id
            raise ChainError(f"{self.rpc.name} serves chain {chain_id}, the market is on {wanted}")
        if not self.is_deployed():
            raise self._build_absence()

    def is_deployed(self) -> bool:
        """Check whether there is a contract at the market's address."""
        return len(self.rpc.eth.get_code(self._contract.address)) > 0

    def get_height(self) -> int:
        """Return the number of the latest block."""
        return self.rpc.eth.block_number

    def get_time(self) -> int:
        """Return the timestamp of the latest block."""
        return self.rpc.eth.get_block("latest")["timestamp"]

    def get_header_rlp(self, number: int) -> bytes:
        """Return the header of block ``number`` as a draw submits it."""
        return get_header_rlp(self.rpc, number)

    def get_config(self) -> Config:
        """Return the constants of the deployment."""
        return build_struct(Config, self._view("config")._asdict())

    def get_job(self, job_id: int) -> Job:
        """Return the facts of a job."""
        job = build_struct(Job, self._view("getJob", job_id)._asdict())
        if job.seed_block == 0:
            raise NotFound(f"no job {job_id}")
        return job

    def get_job_status(self, job_id: int) -> JobStatus:
        """Return a job's status now; NONE for one that was never created."""
        return JobStatus(self._view("jobStatus", job_id))

    def get_lease(self, lease_id: int) -> Lease:
        """Return the facts of a lease."""
        lease = build_struct(Lease, self._view("getLease", lease_id)._asdict())
        if lease.stored is LeaseStatus.NONE:
            raise NotFound(f"no lease {lease_id}")
        return lease

    def get_status(self, lease_id: int) -> LeaseStatus:
        """Return a lease's status now; NONE for one that was never claimed."""
        return LeaseStatus(self._view("status", lease_id))

    def get_drawn_segments(self, lease_id: int) -> tuple[int, ...]:
        """Return the segments last drawn for a lease, ascending."""
        return tuple(self._view("drawnSegments", lease_id))

    def get_seed(self, job_id: int) -> int:
        """Return the seed of an open job."""
        return int(self._view("jobSeed", job_id))

    def find_lease(self, job_id: int, round_: int, slot: int) -> int | None:
        """Return the lease a shard is under or was attested by; None while it can be claimed."""
        return self._view("shard", job_id, round_, slot) or None

    def find_contribution(self, job_id: int, round_: int, slot: int) -> int | None:
        """Return the lease that a shard was attested by; None until it is."""
        return self._view("contribution", job_id, round_, slot) or None

    def count_attested(self, job_id: int, round_: int) -> int:
        """Return how many shards of a round are attested."""
        return int(self._view("attestedCount", job_id, round_))

    def get_slot_root(self, job_id: int, slot: int) -> Hash32:
        """Return the root of the slot's own state that its next shard begins with."""
        return Hash32(self._view("slotState", job_id, slot))

    def get_credit(self, account: Address) -> int:
        """Return what ``account`` can withdraw, in wei."""
        return int(self._view("creditOf", account))

    def get_balance(self, account: Address) -> int:
        """Return what is in the wallet of ``account``, in wei."""
        return self.rpc.eth.get_balance(to_checksum_address(account))

    def get_provider_stake(self, provider: Address) -> Stake:
        """Return what ``provider`` has at stake."""
        return Stake(*self._view("providerStake", provider))

    def get_auditor_stake(self, auditor: Address) -> Stake:
        """Return what ``auditor`` has at stake."""
        return Stake(*self._view("auditorStake", auditor))

    def count_tickets(self) -> int:
        """Return how many tickets were ever listed."""
        return int(self._view("ticketCount"))

    def get_ticket(self, ticket_id: int) -> Ticket:
        """Return a ticket's facts."""
        return Ticket(*self._view("getTicket", ticket_id))

    def get_events(self, from_block: int, to_block: int) -> list[Event]:
        """Return the events of the blocks from ``from_block`` to ``to_block``, in order."""
        return self.find_events(from_block, to_block, tuple(EVENTS.values()))

    def find_events(
        self,
        from_block: int,
        to_block: int,
        kinds: tuple[type[E], ...],
        topics: Sequence[Sequence[bytes] | None] = (),
    ) -> list[E]:
        """Return the events of ``kinds`` between two blocks, inclusive, in order.

        Each of ``topics`` lists what the indexed value in its place may be; None allows any."""
        choices = [[*map(get_topic, kinds)], *map(_encode_topics, topics)]
        logs: list[LogReceipt] = []
        for start in range(from_block, to_block + 1, _MAX_LOG_BLOCKS):
            end = min(start + _MAX_LOG_BLOCKS - 1, to_block)
            query: FilterParams = {
                "address": self._contract.address,
                "fromBlock": BlockNumber(start),
                "toBlock": BlockNumber(end),
                "topics": choices,
            }
            logs += self.rpc.eth.get_logs(query)
        return [event for event in decode_events(logs) if isinstance(event, kinds)]

    def list_jobs(self) -> list[JobCreated]:
        """Return the jobs ever posted, oldest first."""
        return self.find_events(self.deployment.block, self.get_height(), (JobCreated,))

    def get_job_creation(self, job_id: int) -> JobCreated:
        """Return the event with which a job was posted, which names its whole spec."""
        start, end = self.deployment.block, self.get_height()
        for event in self.find_events(start, end, (JobCreated,), [[encode_u256(job_id)]]):
            return event
        raise NotFound(f"no job {job_id}")

    def get_job_events(self, job_id: int) -> list[JobEvent | LeaseEvent]:
        """Return what happened to a job and to its leases, in order."""
        start, end = self.deployment.block, self.get_height()
        job_topic = encode_u256(job_id)
        of_job = self.find_events(start, end, _JOB_EVENTS, [[job_topic]])
        claims = self.find_events(start, end, (ShardClaimed,), [None, [job_topic]])
        leases = [encode_u256(claim.lease_id) for claim in claims]
        of_leases = self.find_events(start, end, _LEASE_EVENTS, [leases]) if leases else []
        return sorted(
            [*of_job, *of_leases], key=lambda event: (event.block_number, event.log_index)
        )

    def _view(self, name: str, *arguments: object) -> Any:  # what an ABI's value can be
        try:
            return self._contract.functions[name](*arguments).call()
        except RpcError as error:
            raise explain(error) from error
        except BadFunctionCallOutput as error:
            raise self._build_absence() from error
        except MismatchedABI as error:
            raise ProtocolError(f"{name} does not take {arguments}: {error}") from error

    def _build_absence(self) -> ChainError:
        return ChainError(f"no market at {self.deployment.market} on {self.rpc.name}")


def _encode_topics(choice: Sequence[bytes] | None) -> list[HexBytes] | None:
    return None if choice is None else [*map(HexBytes, choice)]
