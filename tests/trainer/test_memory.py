from pathlib import Path

import psutil
import pytest
import torch

from market.protocol.errors import InsufficientMemory
from trainer.memory import MachineMemory, read_memory, require_memory
from trainer.plan import MemoryPlan

CPU = torch.device("cpu")
GIBIBYTE = 1 << 30


def write_group(root: Path, name: str, limit: str, used: int, cache: int, version: int = 2) -> None:
    group = root / "sys/fs/cgroup" / ("" if version == 2 else "memory") / name
    group.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    (group / names[0]).write_text(f"{limit}\n")
    (group / names[1]).write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def write_membership(root: Path, line: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"9:cpu:/elsewhere\n{line}\n")


def test_a_machine_without_limits_has_what_the_system_says(tmp_path: Path) -> None:
    memory = read_memory(CPU, tmp_path)

    assert memory.total == psutil.virtual_memory().total
    assert 0 < memory.free <= memory.total


@pytest.mark.parametrize(("version", "line"), [(2, "0::/jobs/one"), (1, "4:memory:/jobs/one")])
def test_the_tightest_control_group_limits_a_process(
    version: int, line: str, tmp_path: Path
) -> None:
    write_membership(tmp_path, line)
    write_group(tmp_path, "jobs/one", str(3 << 20), 2 << 20, 1 << 19, version)
    write_group(tmp_path, "jobs", str(2 << 20), 2 << 20, 1 << 18, version)

    memory = read_memory(CPU, tmp_path)

    assert memory == MachineMemory(total=2 << 20, free=1 << 18)


def test_a_control_group_without_a_limit_is_none(tmp_path: Path) -> None:
    write_membership(tmp_path, "0::/")
    write_group(tmp_path, "", "max", 1, 0)

    assert read_memory(CPU, tmp_path).total == psutil.virtual_memory().total


def make_plan(inputs: int, arena: int) -> MemoryPlan:
    return MemoryPlan(inputs, GIBIBYTE, arena, 0, 0, {})


def test_inputs_that_are_there_already_need_no_free_memory() -> None:
    require_memory(make_plan(4 * GIBIBYTE, GIBIBYTE), MachineMemory(6 * GIBIBYTE, 2 * GIBIBYTE))


@pytest.mark.parametrize(
    ("inputs", "arena", "message"),
    [
        (
            4,
            2,
            r"takes 7,168\.0 MiB \(4,096\.0 MiB of inputs.* has 6,144\.0 MiB, of which 2,048\.0",
        ),
        (
            1,
            2,
            r"takes 4,096\.0 MiB \(1,024\.0 MiB of inputs.* has 6,144\.0 MiB, of which 2,048\.0",
        ),
    ],
)
def test_a_step_that_does_not_fit_is_refused_with_both_figures(
    inputs: int, arena: int, message: str
) -> None:
    machine = MachineMemory(6 * GIBIBYTE, 2 * GIBIBYTE)

    with pytest.raises(InsufficientMemory, match=message):
        require_memory(make_plan(inputs * GIBIBYTE, arena * GIBIBYTE), machine)
