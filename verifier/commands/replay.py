"""What `touchstone replay` and `touchstone job model` do."""

from dataclasses import dataclass, replace
from pathlib import Path

import typer
from pydantic import BaseModel
from safetensors.torch import save_file
from torch import Tensor

from market.chain.client import Chain
from market.chain.events import JobCreated
from market.chain.ledger import Ledger
from market.commands.output import build_facts, build_progress, build_table, emit
from market.protocol.errors import InvalidSpec, InvalidTransition, NotFound
from market.protocol.program import TensorRole
from market.protocol.spec import HexHash, JobSpec
from market.settings import read_settings
from market.storage.blobs import BlobStore
from trainer.commands.conformance import require_release_arithmetic, use_threads
from trainer.evidence import Shard, compute_base, list_sets
from trainer.execution import Executor
from trainer.jobs import JobFiles, fetch_job, fetch_spec
from trainer.lora import merge_adapters
from trainer.prepare import find_recipe
from trainer.results import load_state, save_result
from trainer.states import State, compute_named_tensor_root
from verifier.replay import Replay, ShardReplay


def load_job(chain: Chain, store: BlobStore, job_id: int) -> tuple[Ledger, JobFiles]:
    """Return what happened so far and a job's files."""
    ledger = Ledger(chain)
    ledger.refresh()
    posted = ledger.find(JobCreated, job_id)
    if posted is None:
        raise NotFound(f"no job {job_id}")
    return ledger, fetch_job(store, fetch_spec(store, posted.spec_leaves[7], posted.spec_hash))


class ReplayedShard(BaseModel):
    """A shard executed again."""

    round: int
    slot: int
    lease_id: int
    records: int
    equal: bool
    record_index: int | None = None
    claimed: HexHash | None = None
    replayed: HexHash | None = None


class ReplayReport(BaseModel):
    """A whole job executed again."""

    job_id: int
    equal: bool
    shards: tuple[ReplayedShard, ...]


def _report_shard(result: ShardReplay) -> ReplayedShard:
    found = result.divergence
    return ReplayedShard(
        round=result.shard.round_index,
        slot=result.shard.slot,
        lease_id=result.shard.lease_id,
        records=result.records,
        equal=found is None,
        record_index=found.record_index if found else None,
        claimed=found.claimed if found else None,
        replayed=found.replayed if found else None,
    )


def replay_job(job_id: int, threads: int | None, *, as_json: bool) -> None:
    """Print whether every record of a job is reproduced; exit 0 if so, else 1."""
    use_threads(threads)
    require_release_arithmetic()
    settings = read_settings()
    store = settings.open_store()
    bar = build_progress()
    with settings.connect() as chain, bar:
        ledger, files = load_job(chain, store, job_id)
        spec = files.spec
        task = bar.add_task("replaying", total=spec.rounds * spec.slots * spec.steps)
        replay = Replay(
            job_id, files, Executor(files.program, threads=threads), chain, ledger, store
        )

        def advance(shard: Shard, _step: int) -> None:
            bar.update(task, advance=1, description=f"round {shard.round_index}, slot {shard.slot}")

        shards = tuple(_report_shard(result) for result, _ in replay.run(advance))
    report = ReplayReport(job_id=job_id, equal=all(s.equal for s in shards), shards=shards)
    rows = [
        (
            s.round,
            s.slot,
            s.lease_id,
            s.records,
            "equal" if s.equal else f"record {s.record_index} differs",
        )
        for s in shards
    ]
    columns = ("round", "slot", "lease", "records", "replay")
    emit(report, build_table(f"job {job_id}", columns, rows), as_json=as_json)
    raise typer.Exit(0 if report.equal else 1)


class ExportedModel(BaseModel):
    """Where a job's weights are, and their root."""

    job_id: int
    file: str
    rounds: int
    root: HexHash


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where a job's weights go, and as what: of ``model`` if the spec's own is not here, adapters merged."""

    out: Path
    model: str | None
    merge: bool


def export_model(job_id: int, file: ModelFile, *, as_json: bool) -> None:
    """Write the weights that follow from a job's closed rounds."""
    settings = read_settings()
    store = settings.open_store()
    with settings.connect() as chain:
        ledger, files = load_job(chain, store, job_id)
        rounds = chain.get_job(job_id).round
        if rounds == 0:
            raise InvalidTransition(f"job {job_id} has no round that is closed")
        base = compute_base(files, ledger, store, list_sets(ledger, job_id, rounds))
    write_model(files.spec, base, file)
    root = compute_named_tensor_root(files.program.find_inputs(TensorRole.BASE), base)
    exported = ExportedModel(job_id=job_id, file=str(file.out), rounds=rounds, root=root)
    facts: dict[str, object] = {"file": file.out, "rounds": rounds, "root": "0x" + root.hex()}
    emit(exported, build_facts(f"model of job {job_id}", facts), as_json=as_json)


def write_model(spec: JobSpec, base: State, file: ModelFile) -> None:
    """Write ``base`` as the class that ``spec`` describes would save it, or else tensor by tensor."""
    recipe = find_recipe(spec)
    if recipe is None:
        if file.model is not None or file.merge:
            raise InvalidSpec(f"the spec {spec.name!r} does not say how its model is made")
        save_file(base, file.out)
        return
    model = replace(recipe, model=file.model or recipe.model).build_model()
    state: dict[str, Tensor] = base
    if file.merge:
        load_state(model, base)
        merge_adapters(model)
        state = dict(model.named_parameters())
    save_result(model, state, file.out)
