"""What `touchstone program divide` does."""

from pathlib import Path

from pydantic import BaseModel

from market.commands.output import build_table, emit
from market.protocol.encoding import decode_program
from market.protocol.errors import UnsupportedPartition
from market.protocol.program import Program
from market.protocol.validity import require_valid_program
from trainer.parallel.strategies import StrategyName, partition


class Division(BaseModel):
    """A program divided over processes: what each does and receives in a step, or why it cannot be."""

    strategy: StrategyName
    multiply_adds: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    refusal: str = ""


class Divisions(BaseModel):
    """The ways to divide a program."""

    processes: int
    divisions: tuple[Division, ...]


def divide_program(found: Program, processes: int, strategy: StrategyName) -> Division:
    """Return what each of ``processes`` does of a valid program's step."""
    try:
        divided = partition(found, processes, strategy)
    except UnsupportedPartition as error:
        return Division(strategy=strategy, refusal=str(error))
    ranks = range(processes)
    return Division(
        strategy=strategy,
        multiply_adds=tuple(divided.count_products(rank) for rank in ranks),
        bytes=tuple(divided.count_bytes(rank) for rank in ranks),
    )


def show_divisions(file: Path, processes: int, *, as_json: bool) -> None:
    """Print what each strategy makes of the program in ``file``."""
    found = decode_program(file.read_bytes())
    require_valid_program(found)
    divisions = tuple(divide_program(found, processes, name) for name in StrategyName)
    rows = [_describe(division) for division in divisions]
    columns = ("strategy", "multiply-adds of the busiest", "received by a process", "why not")
    emit(
        Divisions(processes=processes, divisions=divisions),
        build_table(f"a step by {processes} processes", columns, rows),
        as_json=as_json,
    )


def _describe(division: Division) -> tuple[str, str, str, str]:
    if division.refusal:
        return division.strategy, "", "", division.refusal
    share = max(division.multiply_adds) / max(1, sum(division.multiply_adds))
    least, most = (f"{end(division.bytes) / 1e6:.1f}" for end in (min, max))
    received = f"{most} MB" if least == most else f"{least} to {most} MB"
    return division.strategy, f"{share:.1%}", received, ""
