"""What a provider's claims rest on: its policy, its measured steps, its history, and the node's gas price."""

import json
import logging
import time
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import typer
from eth_utils.address import to_checksum_address
from pydantic import TypeAdapter, ValidationError

from market.chain.client import Chain
from market.chain.deployment import Config
from market.chain.events import (
    CommitmentWithdrawn,
    JobCreated,
    LeaseEvent,
    LeaseExpired,
    LeaseSettled,
    LeaseSlashed,
    LeaseVoided,
    ShardsClaimed,
)
from market.chain.ledger import Ledger
from market.chain.structs import Job, JobStatus, Role
from market.commands.accounts import parse_amount
from market.protocol.economics import (
    MICROSECONDS,
    Claim,
    Decline,
    Facts,
    History,
    Offer,
    Policy,
    Reason,
    Wait,
    choose_slots,
    compute_bounty,
    decide_claim,
    find_refusal,
    fit_shards,
)
from market.protocol.errors import (
    InsufficientMemory,
    MarketError,
    NondeterministicEnvironment,
    NotFound,
    ProtocolError,
    TrainingError,
)
from market.protocol.hashing import Hash32
from market.protocol.prices import Ramp
from trainer.declines import DECLINES_FILE, DeclineLog
from trainer.execution import Executor
from trainer.jobs import JobFiles, OpenJobs
from trainer.progress import write_atomically
from trainer.shards import ShardTask, run_segment

POLICY_FILE: Final = "policy.toml"
STEPS_FILE: Final = "steps.json"

_BENCH_STEPS: Final = 4  # the first warms up and does not count
_KEPT_TIMES: Final = 8  # of a program: the slowest of them counts
_BLOCK_S: Final = 12  # the slowest blocks that a market is deployed on
_POLICY: Final = TypeAdapter(Policy)
_PROGRAM_LEAF, _CONFORMANCE_LEAF = 0, 6  # of a spec (docs/protocol.md section 5)
_OVER: Final = frozenset(
    {JobStatus.SEED_LOST, JobStatus.ENDED, JobStatus.COMPLETE, JobStatus.CANCELLED}
)

logger = logging.getLogger(__name__)


def read_policy(path: Path, ether: int | None) -> Policy:
    """Return the policy in the file. What it does not say: any job in ether that pays its costs.

    ``ether`` is the number of the asset that is ether, if one is."""
    default: dict[str, dict[str, Any]] = {} if ether is None else {str(ether): {}}
    try:
        fields = tomllib.loads(path.read_text()) if path.exists() else {}
        assets = fields.setdefault("assets", default)
        if isinstance(assets, dict):
            _require_ether_prices(assets, ether)
            fields["assets"] = {number: _parse_asset(asset) for number, asset in assets.items()}
        if "denied" in fields:
            fields["denied"] = [to_checksum_address(address) for address in fields["denied"]]
        return _POLICY.validate_python(fields)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors())
        raise MarketError(f"{path}: {'; '.join(faults)}") from error
    except (TypeError, ValueError, typer.BadParameter) as error:
        raise MarketError(f"{path}: {error}") from error


def _require_ether_prices(assets: Mapping[str, Any], ether: int | None) -> None:
    for number, asset in assets.items():
        if number != str(ether) and "ether_price" not in asset:
            raise ValueError(f"asset {number} is not ether: ether_price says what one ether costs")


def _parse_asset(asset: object) -> object:
    """Return a table's amounts as numbers, from 5000, "3gwei" or "1.5ether"; the rest as it is."""
    if not isinstance(asset, dict):
        return asset
    return {name: parse_amount(str(amount)) for name, amount in asset.items()}


class StepTimes:
    """How long a step of each program took on this machine, in the file at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._times: dict[str, list[int]] = json.loads(path.read_text()) if path.exists() else {}

    def find(self, program_root: Hash32) -> int | None:
        """Return the microseconds of the slowest of the last measured steps, if any was measured."""
        times = self._times.get(program_root.hex())
        return max(times) if times else None

    def add(self, program_root: Hash32, steps: int, seconds: float) -> int:
        """Keep that ``steps`` steps took so long; return the microseconds of one."""
        step_us = max(1, round(seconds * MICROSECONDS / steps))
        kept = [*self._times.get(program_root.hex(), ()), step_us]
        self._times[program_root.hex()] = kept[-_KEPT_TIMES:]
        write_atomically(self._path, json.dumps(self._times))
        return step_us


def measure_step(executor: Executor, files: JobFiles) -> float:
    """Return the seconds of the slowest of a few steps from the job's initial state."""
    task = ShardTask(files.program, files.dataset, 0, 0, 0, _BENCH_STEPS)
    clock: list[float] = []
    run_segment(executor, task, files.initial, 0, lambda _: clock.append(time.perf_counter()))
    return max(later - sooner for sooner, later in pairwise(clock))


def count_history(ledger: Ledger, operator: int) -> History:
    """Return how the operator's leases ended so far."""
    mine = {e.lease_id for e in ledger.iterate(ShardsClaimed) if e.operator == operator}

    def count(*kinds: type[LeaseEvent]) -> int:
        return sum(event.lease_id in mine for event in ledger.iterate(*kinds))

    return History(
        settled=count(LeaseSettled),
        lapsed=count(LeaseExpired, CommitmentWithdrawn, LeaseVoided),
        slashed=count(LeaseSlashed),
    )


def explain_failure(error: MarketError) -> Decline:
    """Return the decline of a job whose files this machine cannot fetch or run."""
    match error:
        case NotFound():
            reason = Reason.BLOBS_UNAVAILABLE
        case InsufficientMemory():
            reason = Reason.MEMORY_LACKING
        case NondeterministicEnvironment():
            reason = Reason.CONFORMANCE_DIFFERS
        case _:
            reason = Reason.PROGRAM_REFUSED
    return Decline(reason, detail=str(error))


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What to do about a job now; if it is to claim, as which operator and which ``slots`` of its round."""

    decision: Claim | Wait | Decline
    operator: int = 0
    round: int = 0
    slots: range = range(0)


class Appraiser:
    """Judges jobs by the policy in ``home``, and writes down there why it leaves some alone."""

    def __init__(self, chain: Chain, ledger: Ledger, jobs: OpenJobs, home: Path) -> None:
        self._chain = chain
        self._ledger = ledger
        self._jobs = jobs
        self._policy = read_policy(home / POLICY_FILE, chain.deployment.ether)
        self._times = StepTimes(home / STEPS_FILE)
        self._log = DeclineLog(home / DECLINES_FILE)
        self._refused: dict[int, Decline] = {}  # for what cannot change

    @cached_property
    def _config(self) -> Config:
        return self._chain.get_config()

    def appraise(
        self, job_id: int, operators: Collection[int], most: int, training: Sequence[ShardsClaimed]
    ) -> Appraisal:
        """Decide whether one of ``operators`` leases up to ``most`` shards of a job now.

        A decline is written down. ``training`` are the leases that this machine still trains. Before a claim,
        the job's files are here and its program is planned in this machine's memory."""
        found = self._appraise(job_id, operators, most, training)
        if isinstance(found.decision, Decline):
            self.decline(job_id, found.decision)
        return found

    def decline(self, job_id: int, decline: Decline) -> None:
        """Write down why a job is left alone."""
        if self._log.add(job_id, decline, int(time.time())):
            facts = {"job": job_id, "reason": decline.reason, "detail": decline.detail}
            logger.info("job left alone", extra=facts)

    def note_segment(self, job_id: int, steps: int, seconds: float) -> None:
        """Learn from a trained segment how long its steps take, with all that comes with them."""
        self._times.add(self._get_program_root(job_id), steps, seconds)

    def _appraise(
        self, job_id: int, operators: Collection[int], most: int, training: Sequence[ShardsClaimed]
    ) -> Appraisal:
        limit = self._policy.max_leases
        if job_id in self._refused:
            return Appraisal(self._refused[job_id])
        if len(training) >= limit:  # before anything is asked or measured while a segment waits
            return Appraisal(Decline(Reason.TOO_MANY_LEASES, limit, len(training) + 1))
        job, now = self._chain.get_job(job_id), self._chain.get_time()
        sets = self._chain.get_round(job_id, job.round)
        operator, free_stake = self._choose_operator(operators, job.asset)
        choose = partial(choose_slots, operator, job_id, job.round, job.slots, sets.taken)
        offer = self._build_offer(job_id, job, len(choose(1)))
        refusal = find_refusal(self._policy, offer, now)
        if refusal is not None:
            return Appraisal(self._remember(job_id, refusal, is_final=offer.is_over))
        step_us = self._find_step_time(job_id)
        if isinstance(step_us, Decline):
            return Appraisal(step_us)
        facts = self._gather_facts(operator, free_stake, step_us, training)
        slots = choose(fit_shards(facts, offer, most))
        rescued = sum(sets.abandoned >> slot & 1 for slot in slots)
        bounty = compute_bounty(job.stake_per_shard, facts.expiry_fee_bps, rescued)
        decision = decide_claim(facts, replace(offer, shards=len(slots), bounty=bounty), now)
        refusal = self._prepare(job_id) if isinstance(decision, Claim) else None
        return Appraisal(refusal or decision, operator, job.round, slots)

    def _choose_operator(self, operators: Collection[int], asset: int) -> tuple[int, int]:
        """Return the operator with the most free stake, and how much that is; 0 and 0 of none."""
        stakes = {
            operator: self._chain.get_account(operator, Role.PROVIDER, asset).free
            for operator in operators
        }
        operator = max(stakes, key=lambda one: (stakes[one], -one), default=0)
        return operator, stakes.get(operator, 0)

    def _build_offer(self, job_id: int, job: Job, shards: int) -> Offer:
        status = self._chain.get_job_status(job_id)
        return Offer(
            job_id=job_id,
            requester=job.requester,
            conformance=self._ledger.get(JobCreated, job_id).spec_leaves[_CONFORMANCE_LEAF],
            asset=job.asset,
            is_over=status in _OVER,
            is_open=status is JobStatus.OPEN,
            round=job.round,
            shards=shards,
            steps=job.segments * job.steps_per_segment,
            ramp=Ramp(job.price_per_shard, job.floor_bps, job.ramp_time, job.opened_at),
            stake_per_shard=job.stake_per_shard,
            lease_time=job.lease_time,
            deadline=job.deadline,
        )

    def _gather_facts(
        self, operator: int, free_stake: int, step_us: int, training: Sequence[ShardsClaimed]
    ) -> Facts:
        config = self._config
        audit = config.draw_distance * _BLOCK_S + config.audit_time
        return Facts(
            operator=operator,
            policy=self._policy,
            history=count_history(self._ledger, operator),
            step_us=step_us,
            backlog=sum(self._estimate_training(lease) for lease in training),
            leases=len(training),
            free_stake=free_stake,
            gas_price=self._chain.rpc.eth.gas_price,
            expiry_fee_bps=config.expiry_fee_bps,
            lock_time=audit + config.challenge_window,
        )

    def _find_step_time(self, job_id: int) -> int | Decline:
        """Return the microseconds of a step of the job, run here now if its program never was."""
        root = self._get_program_root(job_id)
        known = self._times.find(root)
        if known is not None:
            return known
        refusal = self._prepare(job_id)
        if refusal is not None:
            return refusal
        seconds = measure_step(self._jobs.get_executor(job_id), self._jobs.get_files(job_id))
        logger.info("step measured", extra={"job": job_id, "seconds": round(seconds, 6)})
        return self._times.add(root, 1, seconds)

    def _prepare(self, job_id: int) -> Decline | None:
        """Fetch and check a job's files and plan its program; return why that cannot be done."""
        try:
            self._jobs.get_executor(job_id)
        except NotFound as error:
            return explain_failure(error)  # what the job names may still arrive
        except (ProtocolError, TrainingError) as error:
            return self._remember(job_id, explain_failure(error), is_final=True)
        return None

    def _remember(self, job_id: int, decline: Decline, *, is_final: bool) -> Decline:
        if is_final:
            self._refused[job_id] = decline
        return decline

    def _estimate_training(self, claimed: ShardsClaimed) -> int:
        """Return the seconds of training of a lease from its beginning, wherever it is in it."""
        job = self._chain.get_job(claimed.job_id)
        steps = claimed.count * job.segments * job.steps_per_segment
        step_us = self._times.find(self._get_program_root(claimed.job_id)) or 0
        return -(-steps * step_us // MICROSECONDS)

    def _get_program_root(self, job_id: int) -> Hash32:
        return self._ledger.get(JobCreated, job_id).spec_leaves[_PROGRAM_LEAF]
