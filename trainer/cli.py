"""The commands of whoever trains. What they do is imported when they are called: torch is heavy."""

from pathlib import Path
from typing import Annotated

import typer

from market.commands.accounts import parse_amount
from market.commands.output import Json, find_group

provider = typer.Typer(no_args_is_help=True, help="Providers: train shards for pay.")
program = typer.Typer(no_args_is_help=True, help="Programs: what a job trains.")

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the arithmetic; all cores if not given.")
]
Ether = Annotated[int, typer.Option(parser=parse_amount, metavar="AMOUNT")]


def run_conformance(as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Run every primitive on fixed vectors, test each carrier, and print this machine's digest.

    Exits 0 if the digest is the release's, 1 if it is not."""
    from trainer.commands.conformance import report_conformance

    report_conformance(as_json=as_json)


@provider.command("run")
def run_provider(threads: Threads = None) -> None:
    """Claim shards, train them, commit to them and answer their audits, until interrupted.

    Survives a kill at any point: progress is on disk, and the chain is asked before every action."""
    from trainer.commands.provider import provide
    from trainer.shards import run_segment

    provide(threads, run_segment)


@program.command("show")
def show_program(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A program's bytes.")],
    listing: Annotated[bool, typer.Option("--listing", help="Every instruction.")] = False,  # noqa: FBT002
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Print a program: its instructions by kind, arithmetic, memory and state."""
    from trainer.commands import program as command

    command.show_program(file, listing=listing, as_json=as_json)


def init_job(  # noqa: PLR0913 - what a job is
    out: Annotated[Path, typer.Option(dir_okay=False, help="The spec to write.")],
    name: str = "language model",
    preset: Annotated[str, typer.Option(help="demo (1M parameters) or tiny")] = "demo",
    text: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Default: Python's own library."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Bytes of text to use.")] = 4_000_000,
    held_out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the held-out 5% here.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    learning_rate: Annotated[float, typer.Option(min=0)] = 3e-3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps.")] = 10,
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
        typer.Option(parser=parse_amount, metavar="AMOUNT", help="Default: the least allowed."),
    ] = None,
    lease_time: Annotated[int, typer.Option(min=1, help="Seconds from claim to commit.")] = 300,
    hours: Annotated[int, typer.Option(min=1, help="Until the last claim.")] = 24,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Lower a preset with its data and optimizer, keep all that the job names, and write its spec."""
    from trainer.commands.job import Wish
    from trainer.commands.job import init_job as run

    wish = Wish(
        name=name,
        preset=preset,
        text=text,
        limit=limit,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        rounds=rounds,
        slots=slots,
        segments=segments,
        steps=steps,
        samples=samples,
        price=price,
        audit_fee=audit_fee,
        poison_value=poison_value,
        stake=stake,
        lease_time=lease_time,
        hours=hours,
    )
    run(wish, out, held_out, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(provider, name="provider")
    app.add_typer(program, name="program")
    app.command("conformance")(run_conformance)
    find_group(app, "job").command("init")(init_job)
