"""The memory of this machine: what a process may take, and what is free now."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from market.protocol.errors import InsufficientMemory
from trainer.plan import MemoryPlan

_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Bytes that a process on this machine may take at all, and those that are ``free`` now."""

    total: int
    free: int


def read_memory(device: torch.device, root: Path = Path("/")) -> MachineMemory:
    """Return the memory of ``device``: of a CPU within the limits of the process's control groups.

    ``root`` is where the files of the system lie."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return MachineMemory(total, free)
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for group in _find_control_groups(root):
        total, free = min(total, group.limit), min(free, max(0, group.limit - group.used))
    return MachineMemory(total, free)


def require_memory(plan: MemoryPlan, memory: MachineMemory) -> None:
    """Raise InsufficientMemory unless what ``plan`` takes fits into ``memory``.

    The inputs may be there already: they count against the total, the rest against what is free."""
    if plan.total > memory.total or plan.total - plan.inputs > memory.free:
        raise InsufficientMemory(
            f"a step takes {_format(plan.total)} ({_format(plan.inputs)} of inputs, {_format(plan.results)}"
            f" of results, {_format(plan.arena + plan.fixed)} between them, {_format(plan.scratch)} of"
            f" scratch): this machine has {_format(memory.total)}, of which {_format(memory.free)} are free"
        )


@dataclass(frozen=True, slots=True)
class _ControlGroup:
    """Bytes that a group of processes may take, and those taken that the system cannot take back."""

    limit: int
    used: int


def _find_control_groups(root: Path) -> list[_ControlGroup]:
    """Return the limits of the process's control group and of the groups that hold it, of both versions."""
    membership, found = root / "proc/self/cgroup", []
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used, cache = (
            files if controllers else ("memory.max", "memory.current", "inactive_file")
        )
        path = top / name.strip("/")
        for group in (path, *path.parents):
            if group.is_relative_to(top) and (group / limit).exists():
                found += _read_control_group(group, limit, used, cache)
    return found


def _read_control_group(group: Path, limit: str, used: str, cache: str) -> list[_ControlGroup]:
    allowed = (group / limit).read_text().strip()
    if allowed == "max":
        return []
    fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    taken = int((group / used).read_text()) - int(
        fields[cache]
    )  # files are dropped when it gets tight
    return [_ControlGroup(int(allowed), taken)]


def _format(size: int) -> str:
    return f"{size / _MEBIBYTE:,.1f} MiB"
