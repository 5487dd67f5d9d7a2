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
    ChallengeAnswered,
    ChallengeClosed,
    Event,
    JobCreated,
    JobEvent,
    LeaseEvent,
    RecordChallenged,
    ShardsClaimed,
    WorkerChanged,
)
from market.chain.headers import get_header_rlp
from market.chain.logs import decode_events, get_topic
from market.chain.rpc import Rpc, RpcError
from market.chain.structs import (
    NO_ADDRESS,
    Account,
    Address,
    Asset,
    Challenge,
    ChallengeStatus,
    Job,
    JobStatus,
    Lease,
    Operator,
    Panel,
    Role,
    Round,
    Ticket,
    build_struct,
)
from market.chain.transactions import IN_MEMORY, OutboxConfig, Sender
from market.protocol.errors import ChainError, InvalidTransition, NotFound, ProtocolError
from market.protocol.hashing import encode_u256
from market.protocol.lifecycle import LeaseStatus

_MAX_LOG_BLOCKS: Final = 10_000  # of one query; public nodes refuse more
_PATIENCE_S: Final = 60.0

E = TypeVar("E", bound=Event)

_JOB_EVENTS: Final = tuple(k for k in EVENTS.values() if issubclass(k, JobEvent))
_LEASE_EVENTS: Final = tuple(k for k in EVENTS.values() if issubclass(k, LeaseEvent))


def connect(
    url: str,
    deployment: Deployment,
    patience_s: float = _PATIENCE_S,
    outbox: OutboxConfig = IN_MEMORY,
) -> "Chain":
    """Return the market of ``deployment`` through the node at ``url``, which is not asked yet.

    Several nodes may be given, separated by commas."""
    return Chain(Rpc(url, chain_id=deployment.chain_id), deployment, patience_s, outbox)


class Chain(Sender):
    """A market on a chain, seen through one node. Threads may share it.

    Sending waits up to ``patience_s`` for a node that is mute or slow."""

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        patience_s: float,
        outbox: OutboxConfig = IN_MEMORY,
    ) -> None:
        super().__init__(rpc, patience_s, outbox)
        self.deployment = deployment
        self.calls = Calls(deployment.market, deployment.ether)
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
        """Return the market's time, in which deadlines are: chain time less all that was paused."""
        return int(self._view("time"))

    def get_block_time(self) -> int:
        """Return the timestamp of the latest block."""
        return self.rpc.eth.get_block("latest")["timestamp"]

    def get_header_rlp(self, number: int) -> bytes:
        """Return the header of block ``number`` as a draw submits it."""
        return get_header_rlp(self.rpc, number)

    def get_config(self) -> Config:
        """Return the constants of the deployment."""
        return build_struct(Config, self._view("config")._asdict())

    def find_pause(self) -> int | None:
        """Return when the current pause ends at the latest, in chain time; None without one."""
        return self._view("pausedUntil") or None

    def get_asset(self, asset: int) -> Asset:
        """Return what asset number ``asset`` is."""
        return build_struct(Asset, self._view("getAsset", asset)._asdict())

    def count_assets(self) -> int:
        """Return how many assets there are."""
        return int(self._view("assetCount"))

    def get_job(self, job_id: int) -> Job:
        """Return the facts of a job."""
        job = build_struct(Job, self._view("getJob", job_id)._asdict())
        if job.seed_block == 0:
            raise NotFound(f"no job {job_id}")
        return job

    def get_job_status(self, job_id: int) -> JobStatus:
        """Return a job's status now; NONE for one that was never created."""
        return JobStatus(self._view("jobStatus", job_id))

    def get_seed(self, job_id: int) -> int:
        """Return a job's seed; raise InvalidTransition before it is drawn."""
        job = self.get_job(job_id)
        if not job.seeded:
            raise InvalidTransition(f"the seed of job {job_id} is not drawn")
        return job.seed

    def get_price_now(self, job_id: int) -> int:
        """Return what a shard of an open job would pay if it were claimed now."""
        return int(self._view("priceNow", job_id))

    def get_round(self, job_id: int, round_: int) -> Round:
        """Return the sets of a round's slots."""
        return Round(*self._view("getRound", job_id, round_))

    def find_last_attested(self, job_id: int, slot: int, round_: int) -> int | None:
        """Return the last round before ``round_`` whose set has ``slot``; None: it has the spec's."""
        found, last = self._view("lastAttested", job_id, slot, round_)
        return int(last) if found else None

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
        """Return the segments last drawn for a lease, in the order of the draw."""
        return tuple(self._view("drawnSegments", lease_id))

    def get_panel(self, lease_id: int) -> Panel:
        """Return the last panel on a report of the lease; without members where there was none."""
        members, voted, missing = self._view("getPanel", lease_id)
        return Panel(tuple(members), voted, missing)

    def get_challenge(self, challenge_id: int) -> Challenge:
        """Return the facts of a challenge."""
        challenge = build_struct(Challenge, self._view("getChallenge", challenge_id)._asdict())
        if challenge.stored is ChallengeStatus.NONE:
            raise NotFound(f"no challenge {challenge_id}")
        return challenge

    def get_challenge_status(self, challenge_id: int) -> ChallengeStatus:
        """Return a challenge's status now; NONE for one that was never made."""
        return ChallengeStatus(self._view("challengeStatus", challenge_id))

    def count_challenges(self) -> int:
        """Return how many challenges were ever made."""
        return int(self._view("challengeCount"))

    def get_operator(self, operator: int) -> Operator:
        """Return whose an operator is."""
        found = Operator(*self._view("getOperator", operator))
        if found.owner == NO_ADDRESS:
            raise NotFound(f"no operator {operator}")
        return found

    def count_operators(self) -> int:
        """Return how many operators ever registered."""
        return int(self._view("operatorCount"))

    def is_worker(self, operator: int, worker: Address) -> bool:
        """Check whether ``worker`` may act for an operator."""
        return bool(self._view("isWorker", operator, to_checksum_address(worker)))

    def list_operators(self, worker: Address) -> list[int]:
        """Return the operators that ``worker`` may act for, oldest first."""
        topics = [None, [bytes.fromhex(worker[2:]).rjust(32, b"\0")]]
        start, end = self.deployment.block, self.get_height()
        changes = self.find_events(start, end, (WorkerChanged,), topics)
        last = {change.operator: change.authorized for change in changes}
        return sorted(operator for operator, authorized in last.items() if authorized)

    def list_workers(self, operator: int) -> list[Address]:
        """Return the keys that may act for an operator, in the order in which they first could."""
        topics = [[encode_u256(operator)]]
        start, end = self.deployment.block, self.get_height()
        changes = self.find_events(start, end, (WorkerChanged,), topics)
        last = {change.worker: change.authorized for change in changes}
        return [worker for worker, authorized in last.items() if authorized]

    def get_account(self, operator: int, role: Role, asset: int) -> Account:
        """Return the stake and earnings of an operator in that role."""
        return build_struct(Account, self._view("getAccount", operator, role, asset)._asdict())

    def get_credit(self, account: Address, asset: int) -> int:
        """Return what ``account`` can withdraw, in base units."""
        return int(self._view("creditOf", to_checksum_address(account), asset))

    def get_burnable(self, asset: int) -> int:
        """Return what `burn` would destroy, in base units."""
        return int(self._view("burnable", asset))

    def get_balance(self, account: Address) -> int:
        """Return what is in the wallet of ``account``, in wei."""
        return self.rpc.eth.get_balance(to_checksum_address(account))

    def count_tickets(self, asset: int) -> int:
        """Return how many tickets were ever listed."""
        return int(self._view("ticketCount", asset))

    def get_ticket(self, asset: int, ticket_id: int) -> Ticket:
        """Return a ticket's facts."""
        return Ticket(*self._view("getTicket", asset, ticket_id))

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

    def get_job_events(self, job_id: int) -> list[Event]:
        """Return what happened to a job, its leases and their challenges, in order."""
        start, end = self.deployment.block, self.get_height()
        job_topic = encode_u256(job_id)
        found: list[Event] = [*self.find_events(start, end, _JOB_EVENTS, [[job_topic]])]
        claims = self.find_events(start, end, (ShardsClaimed,), [None, [job_topic]])
        leases = [encode_u256(claim.lease_id) for claim in claims]
        if leases:
            found += self.find_events(start, end, _LEASE_EVENTS, [leases])
            found += self._find_challenge_events(leases)
        return sorted(found, key=lambda event: (event.block_number, event.log_index))

    def find_challenges(self, lease_id: int) -> list[RecordChallenged]:
        """Return the challenges of a lease, oldest first."""
        start, end = self.deployment.block, self.get_height()
        topics = [None, [encode_u256(lease_id)]]
        return self.find_events(start, end, (RecordChallenged,), topics)

    def _find_challenge_events(self, leases: Sequence[bytes]) -> list[Event]:
        start, end = self.deployment.block, self.get_height()
        kinds = (RecordChallenged, ChallengeClosed)
        found: list[Event] = [*self.find_events(start, end, kinds, [None, leases])]
        challenges = [encode_u256(e.challenge_id) for e in found if isinstance(e, RecordChallenged)]
        if challenges:
            found += self.find_events(start, end, (ChallengeAnswered,), [challenges])
        return found

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
