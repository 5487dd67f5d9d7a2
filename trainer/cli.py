"""The commands of whoever trains. What they do is imported when they are called: torch is heavy."""

from pathlib import Path
from typing import Annotated

import typer

from market.commands.accounts import parse_amount
from market.commands.output import Json, find_group
from trainer.parallel.strategies import StrategyName

provider = typer.Typer(no_args_is_help=True, help="Providers: train shards for pay.")
program = typer.Typer(no_args_is_help=True, help="Programs: what a job trains.")
experiment = typer.Typer(no_args_is_help=True, help="Experiments: what exactness costs in loss.")

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the arithmetic; all cores if not given.")
]
Device = Annotated[str, typer.Option(help="What torch calls the device: cpu, cuda.")]
Ether = Annotated[int, typer.Option(parser=parse_amount, metavar="AMOUNT")]


def run_conformance(device: Device = "cpu", as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Run every primitive on fixed vectors, test each carrier, and print this machine's digest.

    Exits 0 if the digest is the release's, 1 if it is not."""
    from trainer.commands.conformance import report_conformance

    report_conformance(device, as_json=as_json)


@provider.command("run")
def run_provider(
    threads: Threads = None,
    parallel: Annotated[
        StrategyName | None,
        typer.Option(help="Share each step with the processes that torchrun starts."),
    ] = None,
    shards: Annotated[
        int, typer.Option(min=1, help="The most to claim at once: one stake, one audit for all.")
    ] = 1,
    self_check: Annotated[  # noqa: FBT002 - an option
        bool,
        typer.Option(help="Recompute a segment of every lease before committing to it."),
    ] = True,
) -> None:
    """Claim shards, train them, commit to them and publish what was drawn, until interrupted.

    Acts for the operator that has authorized this key. Survives a kill at any point: progress is on disk,
    and the chain is asked before every action."""
    from trainer.commands.provider import ProviderOptions, provide
    from trainer.shards import run_segment

    provide(ProviderOptions(threads, shards, self_check, parallel), run_segment)


@provider.command("declines")
def show_declines(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Print why this machine's provider left jobs alone: how many for each reason, and the latest."""
    from trainer.commands import declines as command

    command.show_declines(as_json=as_json)


@program.command("show")
def show_program(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A program's bytes.")],
    listing: Annotated[bool, typer.Option("--listing", help="Every instruction.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Print a program: its instructions by kind, arithmetic, memory and state."""
    from trainer.commands import program as command

    command.show_program(file, listing=listing, as_json=as_json)


@program.command("divide")
def divide_program(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A program's bytes.")],
    processes: Annotated[int, typer.Option(min=2, help="Of `provider run --parallel`.")] = 2,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Print what each process would do and receive in a step, by strategy."""
    from trainer.commands.division import show_divisions

    show_divisions(file, processes, as_json=as_json)


_Dataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        "--text",
        exists=True,
        dir_okay=False,
        help="Text, .jsonl, .bin (16-bit tokens), .npy or .safetensors. Default: Python's own library.",
    ),
]
_Tokenizer = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A tokenizer.json for text; bytes without one."),
]
_Field = Annotated[
    str | None, typer.Option(help="Where a .jsonl line has its text, or a file's tensor.")
]


def init_job(  # noqa: PLR0913 - what a job is
    out: Annotated[Path, typer.Option(dir_okay=False, help="The spec to write.")],
    name: str = "language model",
    model: Annotated[
        str,
        typer.Option(
            "--model", "--preset", help="A preset's name, or a folder with a config.json."
        ),
    ] = "demo",
    dataset: _Dataset = None,
    tokenizer: _Tokenizer = None,
    field: _Field = None,
    separator: Annotated[
        str | None,
        typer.Option(help="What ends a .jsonl document: a token's name; in bytes any text."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens (in text: bytes) or rows to use; of the library 4,000,000."
        ),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the held-out 5% here.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of context. Default: the model's longest.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 8,
    micro_batches: Annotated[
        int,
        typer.Option(min=1, help="Parts of a batch whose gradients are added up, to save memory."),
    ] = 1,
    optimizer: Annotated[str, typer.Option(help="adamw, sgd or muon")] = "adamw",
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="At its peak. Default: 0.003; of sgd 0.1.")
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Steps.")] = 10,
    bits: Annotated[
        str, typer.Option(help="Of operands: auto, 16, or weight=16,activation=14,gradient=24.")
    ] = "auto",
    adapt: Annotated[
        str, typer.Option(help="Train low-rank updates of these layers alone: q_proj,v_proj.")
    ] = "",
    rank: Annotated[int, typer.Option(min=1, help="Of those updates.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights.")] = 0,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    slots: Annotated[int, typer.Option(min=1)] = 3,
    segments: Annotated[int, typer.Option(min=2, help="Of a shard.")] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Of a segment.")] = 16,
    samples: Annotated[int, typer.Option(min=1, help="Segments drawn for an audit.")] = 2,
    price: Ether = "0.01ether",  # type: ignore[assignment]  # parsed by typer
    audit_fee: Ether = "0.001ether",  # type: ignore[assignment]
    poison_value: Annotated[
        int,
        typer.Option(
            parser=parse_amount, metavar="AMOUNT", help="What a false result is worth to somebody."
        ),
    ] = "0",  # type: ignore[assignment]
    stake: Annotated[
        int | None,
        typer.Option(
            parser=parse_amount, metavar="AMOUNT", help="Of a shard. Default: the least allowed."
        ),
    ] = None,
    floor: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the price at the opening of a round."),
    ] = 1.0,
    ramp_time: Annotated[
        int, typer.Option(min=0, help="Seconds from the opening to the full price.")
    ] = 0,
    lease_time: Annotated[int, typer.Option(min=1, help="Seconds from claim to commit.")] = 300,
    round_time: Annotated[
        int,
        typer.Option(min=0, help="Seconds until a round may close without all shards; 0: never."),
    ] = 0,
    quorum: Annotated[
        int | None, typer.Option(min=1, help="Shards that it needs then. Default: all.")
    ] = None,
    hours: Annotated[int, typer.Option(min=1, help="Until the last claim.")] = 24,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Lower a model with its data and optimizer, keep all that the job names, and write its spec."""
    from trainer.commands import job as command
    from trainer.jobs import Schedule
    from trainer.prepare import Recipe, get_learning_rate

    recipe = Recipe(
        model=model,
        batch=batch,
        learning_rate=get_learning_rate(optimizer) if learning_rate is None else learning_rate,
        warmup_steps=warmup,
        schedule=Schedule(rounds, slots, segments, steps),
        optimizer=optimizer,
        micro_batches=micro_batches,
        bits=bits,
        length=length,
        adapted=adapt,
        rank=rank,
        seed=seed,
    )
    data = command.Dataset(dataset, tokenizer, field, separator, limit)
    offer = command.Offer(
        samples=samples,
        price=price,
        floor=floor,
        ramp_time=ramp_time,
        audit_fee=audit_fee,
        poison_value=poison_value,
        stake=stake,
        lease_time=lease_time,
        round_time=round_time,
        quorum=quorum,
        hours=hours,
    )
    wish = command.Wish(name, recipe, data, offer)
    command.init_job(wish, out, held_out, as_json=as_json)


def make_tokenizer(
    text: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Text or .jsonl.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The tokenizer.json to write.")],
    vocab: Annotated[int, typer.Option(help="Tokens, the 256 bytes and an end among them.")] = 8192,
    field: _Field = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Learn a byte-level BPE tokenizer from a text, for `job init --tokenizer`."""
    from trainer.commands import job as command

    command.make_tokenizer(text, field, vocab, out, as_json=as_json)


def run_engine_bench(
    figures: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here.")
    ] = None,
    runs: Annotated[
        Path, typer.Option(file_okay=False, help="Training runs are saved here and continued.")
    ] = Path(".touchstone/runs"),
) -> None:
    """Measure what exactness costs: steps, contractions, memory, hashing and loss, against torch."""
    from trainer.commands.bench import bench_engine

    bench_engine(figures, runs)


_Folder = Annotated[
    Path, typer.Option(file_okay=False, help="Where runs are saved, to continue from.")
]
_ModelName = Annotated[
    str, typer.Option(help="demo (1M), 10m, words-2k, words-8k, words-32k or tiny")
]
_Arithmetics = Annotated[
    list[str], typer.Option("--arithmetic", help="fp32, bf16, or bits: 16, or weight=14,logits=24")
]
_Steps = Annotated[int, typer.Option(min=1)]
_Rate = Annotated[float, typer.Option(min=0)]


@experiment.command("loss")
def compare_losses(  # noqa: PLR0913 - what a run is
    folder: _Folder,
    model: _ModelName = "demo",
    arithmetic: _Arithmetics = ["16", "fp32", "bf16"],  # noqa: B006 - typer copies it
    seed: Annotated[list[int], typer.Option(min=0)] = [0],  # noqa: B006
    steps: _Steps = 2000,
    batch: _Steps = 8,
    learning_rate: _Rate = 2e-3,
    threads: Threads = 1,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Train one model in several arithmetics on the same batches, and compare their held-out losses."""
    from trainer.commands import experiment as command
    from trainer.experiments.trials import Trial

    trial = Trial(model, arithmetic[0], seed[0], steps, batch, learning_rate, threads=threads or 1)
    command.compare_losses(trial, arithmetic, seed, folder, as_json=as_json)


@experiment.command("bits")
def compare_bits(
    folder: _Folder,
    steps: Annotated[int, typer.Option(min=1, help="Trained before gradients are compared.")] = 500,
    threads: Threads = 1,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Compare gradients of few bits with float64 autograd: by the role of what is narrowed, by vocabulary."""
    from trainer.commands import experiment as command
    from trainer.experiments.trials import Trial

    count = threads or 1
    trials = [Trial("demo", "16", 0, steps, 8, 2e-3, threads=count)]
    for words in ("words-2k", "words-8k", "words-32k"):
        trials.append(Trial(words, "logits=24", 0, steps, 4, 2e-3, threads=count))
    command.compare_bits(trials, folder, as_json=as_json)


@experiment.command("cost")
def compare_costs(
    model: _ModelName = "demo",
    arithmetic: _Arithmetics = ["fp32", "bf16", "8", "14", "16", "24"],  # noqa: B006
    batch: _Steps = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Turns, of which the best counts.")] = 10,
    threads: Threads = 1,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Time one step in several arithmetics that take turns."""
    from trainer.commands import experiment as command
    from trainer.experiments.trials import Trial

    trial = Trial(model, arithmetic[0], 0, 50, batch, threads=threads or 1)
    command.compare_costs(trial, arithmetic, rounds, as_json=as_json)


@experiment.command("plot")
def plot_experiments(
    data: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Figures, as JSON.")],
    images: Annotated[Path, typer.Argument(file_okay=False, help="Where pictures go.")],
) -> None:
    """Draw the pictures of docs/benchmarks/bits.md from its figures."""
    from trainer.commands import experiment as command

    command.plot(data, images)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    find_group(app, "bench").command("engine")(run_engine_bench)
    app.add_typer(experiment, name="experiment")
    app.add_typer(provider, name="provider")
    app.add_typer(program, name="program")
    app.command("conformance")(run_conformance)
    find_group(app, "job").command("init")(init_job)
    find_group(app, "job").command("tokenizer")(make_tokenizer)
