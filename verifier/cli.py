"""The commands of whoever checks. What they do is imported when they are called: torch is heavy."""

from pathlib import Path
from typing import Annotated

import typer

from market.commands.output import Json, find_group
from trainer.cli import Threads

auditor = typer.Typer(no_args_is_help=True, help="Auditors: recompute what was drawn, for a fee.")
receipt = typer.Typer(no_args_is_help=True, help="Receipts: what a job was, to be checked again.")

JobId = Annotated[int, typer.Argument(min=1, metavar="ID")]


@auditor.command("run")
def run_auditor(threads: Threads = None) -> None:
    """Audit what is drawn for your tickets and send what anyone may send, until interrupted.

    Survives a kill at any point: an audit is on disk before the chain hears of it."""
    from verifier.commands.auditor import audit

    audit(threads)


def replay_job(
    job_id: JobId,
    threads: Threads = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Execute a whole job again and compare every record with what was committed.

    Exits 0 if every record is equal, 1 if one is not, 2 if the replay could not run."""
    from verifier.commands import replay

    replay.replay_job(job_id, threads, as_json=as_json)


def export_model(
    job_id: JobId,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The safetensors file to write.")],
    model: Annotated[
        str | None, typer.Option(help="The model's folder, if it is not where the spec says.")
    ] = None,
    merge: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--merge", help="Add low-rank updates to the layers that they adapt.")
    ] = False,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Write the weights that follow from a job's attested rounds, under their own names.

    The file loads into the class that the job began with."""
    from verifier.commands import replay

    file = replay.ModelFile(out, model, merge)
    replay.export_model(job_id, file, as_json=as_json)


@receipt.command("make")
def make_receipt(
    job_id: JobId,
    out: Annotated[Path, typer.Option(dir_okay=False, help="The file to write.")],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Write down what a job was: its shards, audits, payments, slashes and the root of its model."""
    from verifier.commands import receipt as command

    command.make_receipt(job_id, out, as_json=as_json)


@receipt.command("verify")
def verify_receipt(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    model: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The weights' safetensors file."),
    ] = None,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Check a receipt against the chain, the store and the model's file, without training again.

    Exits 0 if all that it claims holds, 1 if something does not, 2 if it could not be checked."""
    from verifier.commands import receipt as command

    command.verify_receipt(file, model, as_json=as_json)


def run_demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end.")] = False,  # noqa: FBT002
    home: Annotated[Path, typer.Option(file_okay=False)] = Path(".touchstone/demo"),
    figures: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here.")
    ] = None,
) -> None:
    """Run one job from posted to paid on this machine, with a cheat who is caught."""
    from verifier.demo.story import Demo

    Demo(home.absolute(), figures, keep=keep).run()


def run_bench(
    figures: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures here.")
    ] = None,
) -> None:
    """Measure one job from posted to paid, its demo included."""
    from verifier.commands.bench import bench

    bench(figures)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(auditor, name="auditor")
    app.add_typer(receipt, name="receipt")
    app.command("replay")(replay_job)
    app.command("demo")(run_demo)
    find_group(app, "bench").command("job")(run_bench)
    find_group(app, "job").command("model")(export_model)
