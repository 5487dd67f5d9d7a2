"""Conformance: every form of the exact arithmetic, on every machine, gives one digest.

The vectors are made of integers, from Philox and from lists of hostile values; the digest is the
SHA-256 of all results. It is the version of the protocol: a machine that gives another one can
neither train nor audit.
"""

import hashlib
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
from torch import Tensor

from market.protocol.constants import QUANTIZE_BUMPS
from market.protocol.errors import NondeterministicEnvironment
from market.protocol.program import MapOp, Op
from trainer.exact import torch_ops
from trainer.exact.carriers import (
    CARRIERS,
    QUANTIZED_BOUNDS,
    Carrier,
    choose_carrier,
    probe_carriers,
    require_carrier,
)
from trainer.exact.ops import ExactOps

_F32_SPECIAL: Final = (
    *(0x00000000, 0x00000001, 0x00000002, 0x00400000, 0x007FFFFF),  # zero, subnormals
    *(0x00800000, 0x00800001, 0x01000000, 0x0C000000, 0x20000000),  # least normals, small
    *(
        0x34000000,
        0x33800000,
        0x33800001,
        0x3E800000,
        0x3EFFFFFF,
    ),  # 2^-23, halfway to 1's next, 1/4
    *(0x3F000000, 0x3F000001, 0x3F7FFFFF, 0x3F800000, 0x3F800001),  # around 1/2 and 1
    *(0x3FC00000, 0x40000000, 0x40200000, 0x40400000, 0x4B000001),  # 1.5, 2, 2.5, 3, 2^23 + 1
    *(0x4B800000, 0x4EFFFFFF, 0x4F000000, 0x5EFFFFFF, 0x5F000000),  # 2^24, around 2^31, 2^63
    *(0x5F800000, 0x7F000000, 0x7F7FFFFF, 0x7F800000),  # 2^64, greatest, infinity
    *(0x7FC00000, 0x7F800001, 0x7FFFFFFF),  # NaNs, two of them not canonical
)
_I64_SPECIAL: Final = (
    *(0, 1, 2, 3, 7, 31, 62, 63, 64, 65, 127, 128, 255, 256, 0x7FFF, 0x8000, 2**23 + 1),
    *(2**24, 2**24 + 1, 2**24 + 3, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 0x7FC00001, 0xFF800001),
    *(2**38 + 2**14, 2**38 + 3 * 2**14, 2**53 + 1, 2**62 + 2**38, 2**62 + 2**38 + 1, 2**63 - 1),
)
_ADAM_STEPS: Final = 300
_WIDTHS: Final = (8, 14, 16, 24)
_DOT_LENGTHS: Final = (1, 130, 4099)
_LONGEST_DOT: Final = 2**16


@dataclass(frozen=True, slots=True)
class ConformanceReport:
    """What a machine computed: the digest (hex), which carriers are exact, and the one used."""

    digest: str
    carriers: dict[str, bool]
    chosen: str


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a vector runs on."""

    ops: ExactOps
    carrier: Carrier
    device: torch.device

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a destination that holds a value no result leaves there by chance."""
        return torch.full(shape, 113, dtype=dtype, device=self.device)

    def map(
        self,
        code: Sequence[MapOp],
        operands: Sequence[Tensor],
        outputs: Sequence[tuple[int, torch.dtype]],
        constants: Sequence[int] = (),
    ) -> list[Tensor]:
        """Run a map on operands of one shape into fresh destinations."""
        results = [self.empty(*operands[0].shape, dtype=dtype) for _, dtype in outputs]
        destinations = [(r, y) for (r, _), y in zip(outputs, results, strict=True)]
        moved = [x.to(self.device) for x in operands]
        self.ops.run_map(code, constants, (), moved, destinations)
        return results


def run_conformance(
    ops: ExactOps,
    device: torch.device,
    carrier: str | None = None,
    carriers: Mapping[str, Carrier] = CARRIERS,
) -> ConformanceReport:
    """Compute the digest of ``ops`` with the named one of its ``carriers``, or with the fastest exact one."""
    exact = probe_carriers(device, carriers)
    chosen = (
        require_carrier(carrier, exact, carriers)
        if carrier
        else choose_carrier(exact, device, carriers)
    )
    digest = compute_digest(compute_vectors(ops, device, chosen))
    return ConformanceReport(digest, exact, chosen.name)


def require_conformance(report: ConformanceReport, release_digest: str) -> None:
    """Raise ``NondeterministicEnvironment`` unless ``report`` has the release's digest."""
    if report.digest != release_digest:
        raise NondeterministicEnvironment(
            f"this machine computes {report.digest} (carrier {report.chosen}), "
            f"the release {release_digest}"
        )


def compute_vectors(
    ops: ExactOps, device: torch.device, carrier: Carrier, names: Collection[str] = ()
) -> dict[str, list[Tensor]]:
    """Return the results of every vector by name (or of ``names``), on the CPU, in the digest's order."""
    bench = _Bench(ops, carrier, device)
    return {
        name: [y.cpu() for y in compute(bench)]
        for name, compute in _VECTORS.items()
        if not names or name in names
    }


def compute_digest(vectors: dict[str, list[Tensor]]) -> str:
    """Return the SHA-256 (hex) of the names and results, each after its length."""
    digest = hashlib.sha256()
    for name, results in vectors.items():
        for part in (name.encode(), *(y.contiguous().numpy().tobytes() for y in results)):
            digest.update(struct.pack(">Q", len(part)) + part)
    return digest.hexdigest()


# Inputs


def _words(stream: int, *shape: int) -> Tensor:
    """Return i64 words in [0, 2^32)."""
    out = torch.empty(shape, dtype=torch.int64)
    torch_ops.run_random(0x746F756368, stream, 0, 0, out.view(-1))
    return out


def _from_patterns(patterns: Tensor) -> Tensor:
    """Return the f32 tensor with these patterns (i64)."""
    return patterns.to(torch.int32).view(torch.float32)


def _normal_patterns(stream: int, *shape: int) -> Tensor:
    """Return patterns of numbers of either sign, between 2^-9 and 8 in magnitude."""
    words, exponents = _words(stream, *shape), _words(stream + 1, *shape)
    return (words & 0x807FFFFF) | ((118 + exponents % 12) << 23)


def _f32_pairs() -> tuple[Tensor, Tensor]:
    """Return all pairs of special values, then random patterns, then numbers of like magnitude.

    They are more than torch leaves to one thread.
    """
    special = [x | sign for x in _F32_SPECIAL for sign in (0, 0x80000000)]
    pairs = torch.tensor(list(product(special, special))).T
    random = _words(1, 2, 701)
    near = _normal_patterns(2, 2, 33_013)
    x, y = _from_patterns(torch.cat([pairs, random, near], 1))
    return x.clone(), y.clone()


def _i64_pairs() -> tuple[Tensor, Tensor]:
    """Return all pairs of special integers and random ones."""
    special = sorted({a for b in _I64_SPECIAL for a in (b, -b, -b - 1)})
    pairs = torch.tensor(list(product(special, special))).T
    random = (_words(4, 2, 301) << 32) + _words(5, 2, 301)
    a, b = torch.cat([pairs, random], 1)
    return a.clone(), b.clone()


def _hostile_rows(stream: int, rows: int, length: int) -> Tensor:
    """Return f32 rows, in turn near 1, next to 2, wide, subnormal, with zeros, NaN, huge, tiny."""
    normal, words = _normal_patterns(stream, rows, length), _words(stream + 2, rows, length)
    poison = normal.clone()
    poison[:, length // 2] = 0x7FC00000
    kinds = [
        normal,
        (words & 0x80000000) | 0x3FFFFFFF,
        words & 0xBFFFFFFF,
        words & 0x807FFFFF,
        torch.where(words % 3 == 0, words & 0x80000000, normal),
        poison,
        (words & 0x807FFFFF) | 0x7E800000,
        (words & 0x807FFFFF) | ((12 + words % 16) << 23),
    ]
    kind = (torch.arange(rows).view(-1, 1) + stream).expand(rows, length) % len(kinds)
    return _from_patterns(torch.stack(kinds).gather(0, kind.unsqueeze(0))[0])


# Vectors: each returns its results


def _arithmetic(bench: _Bench) -> list[Tensor]:
    ops = (Op.ADD, Op.SUB, Op.MUL, Op.DIV)
    code = [(op, 0, 1, 0) for op in ops]
    return bench.map(code, _f32_pairs(), [(2 + i, torch.float32) for i in range(4)])


def _unary(bench: _Bench) -> list[Tensor]:
    a, _ = _i64_pairs()
    x = _f32_pairs()[1][: a.numel()]
    code = [(Op.SQRT, 0, 0, 0), (Op.NEG, 0, 0, 0), (Op.ABS, 0, 0, 0), (Op.FROM_BITS, 1, 0, 0)]
    return bench.map(code, (x, a), [(2 + i, torch.float32) for i in range(4)])


def _comparisons(bench: _Bench) -> list[Tensor]:
    code = [
        *((op, 0, 1, 0) for op in (Op.LT, Op.LE, Op.EQ)),  # 2, 3, 4
        (Op.IADD, 2, 3, 0),
        (Op.IADD, 5, 4, 0),
        (Op.SELECT, 2, 0, 1),
        (Op.TO_INT, 0, 0, 0),
        (Op.BITS, 1, 0, 0),
    ]
    outputs = [(6, torch.uint8), (7, torch.float32), (8, torch.int64), (9, torch.int64)]
    return bench.map(code, _f32_pairs(), outputs)


def _integers(bench: _Bench) -> list[Tensor]:
    results = []
    for ops in ((Op.IADD, Op.ISUB, Op.IMUL, Op.IDIV), (Op.IAND, Op.IOR, Op.IXOR, Op.SHL)):
        code = [(op, 0, 1, 0) for op in ops]
        results += bench.map(code, _i64_pairs(), [(2 + i, torch.int64) for i in range(4)])
    rest = [(Op.SHR, 0, 1, 0), (Op.ILT, 0, 1, 0), (Op.IEQ, 0, 1, 0), (Op.ISELECT, 3, 0, 4)]
    code = [*rest, (Op.FROM_INT, 0, 0, 0)]
    dtypes = (torch.int64, torch.uint8, torch.int64, torch.float32)
    outputs = list(zip((2, 3, 5, 6), dtypes, strict=True))
    return results + bench.map(code, _i64_pairs(), outputs)


def _loads_and_stores(bench: _Bench) -> list[Tensor]:
    a, b = _i64_pairs()
    operands = (a.to(torch.uint8), a.to(torch.int16), b.to(torch.int32), a)
    code = [(Op.IMUL, 0, 1, 0), (Op.IXOR, 4, 2, 0), (Op.IADD, 5, 3, 0)]
    dtypes = (torch.uint8, torch.int16, torch.int32, torch.int64)
    stored = bench.map(code, operands, [(6, dtype) for dtype in dtypes])
    return stored + bench.map((), _f32_pairs()[:1], [(0, torch.float32)])


def _strided(bench: _Bench) -> list[Tensor]:
    """Transposed and broadcast operands, constants, and a slice of a transpose to write to."""
    x = _from_patterns(_normal_patterns(20, 53, 37)).to(bench.device)
    y = _from_patterns(_words(22, 53)).to(bench.device)
    out = bench.empty(60, 37)
    code = [(Op.MUL, 0, 2, 0), (Op.ADD, 4, 1, 0), (Op.DIV, 5, 3, 0)]
    operands = (x.T, y.expand(37, 53))
    bench.ops.run_map(code, (0x3DCCCCCD, 0x40490FDB), (), operands, [(6, out[4:57].T)])
    return [out]


def _adam(bench: _Bench) -> list[Tensor]:
    """A chain of Adam steps, beta^t in its state: one wrong rounding changes what follows."""
    powers_code = [(Op.MUL, 0, 2, 0), (Op.MUL, 1, 3, 0)]
    betas = (0x3F66_6666, 0x3F7F_BE77)  # 0.9, 0.999
    constants = (*betas, 0x3DCC_CCCD, 0x3A83_126F, 0x322B_CC77, 0x3C23_D70A, 0x3F80_0000)
    code = [  # operands 0 m, 1 v, 2 p, 3 beta1^t, 4 beta2^t, 5 noise; constants from 6
        *((Op.MUL, 2, 8, 0), (Op.ADD, 13, 5, 0)),  # 14: gradient
        *((Op.MUL, 0, 6, 0), (Op.MUL, 14, 8, 0), (Op.ADD, 15, 16, 0)),  # 17: m
        *((Op.MUL, 14, 14, 0), (Op.MUL, 18, 9, 0), (Op.MUL, 1, 7, 0), (Op.ADD, 20, 19, 0)),  # 21: v
        *((Op.SUB, 12, 3, 0), (Op.DIV, 17, 22, 0), (Op.SUB, 12, 4, 0), (Op.DIV, 21, 24, 0)),
        *((Op.SQRT, 25, 0, 0), (Op.ADD, 26, 10, 0), (Op.MUL, 23, 11, 0), (Op.DIV, 28, 27, 0)),
        (Op.SUB, 2, 29, 0),  # 30: p
    ]
    noise = _from_patterns(_normal_patterns(30, _ADAM_STEPS, 21))
    m, v, p = torch.zeros(21), torch.zeros(21), noise[0].clone()
    powers = [_from_patterns(torch.tensor([beta] * 21)) for beta in betas]
    for step in range(_ADAM_STEPS):
        outputs = [(r, torch.float32) for r in (17, 21, 30)]
        m, v, p = bench.map(code, (m, v, p, *powers, noise[step]), outputs, constants)
        powers = bench.map(powers_code, powers, [(4, torch.float32), (5, torch.float32)], betas)
    return [m, v, p, *powers]


def _quantize(bench: _Bench, x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    q = bench.empty(*x.shape, dtype=torch.int32 if bits == 24 else torch.int16)
    exponents = bench.empty(*x.shape[:-1], dtype=torch.int32)
    bench.ops.run_quantize(x.to(bench.device), bits, q, exponents)
    return q, exponents


def _thresholds(bench: _Bench) -> list[Tensor]:
    """Rows whose greatest magnitude lies on either side of the exponent's steps and its floor."""
    steps = [0x800000 - bump for bump in QUANTIZE_BUMPS.values() if bump]
    mantissas = [m - below for m in (*steps, 0x800000) for below in (0, 1) if m - below < 0x800000]
    greatest = [e << 23 | m for e, m in product((25, 26, 27, 127, 254), (0, *mantissas))]
    x = torch.tensor(greatest).view(-1, 1) - torch.tensor([0, 3, 1 << 16, 1 << 22, 5 << 22])
    rows = _from_patterns(x | torch.tensor([0, 2**31, 0, 2**31, 0]))
    return [part for bits in _WIDTHS for part in _quantize(bench, rows, bits)]


def _dots(bench: _Bench) -> list[Tensor]:
    """Batched products of hostile rows at every pair of widths, stored transposed."""
    results = []
    for k in _DOT_LENGTHS:
        a, b = _hostile_rows(40, 10, k).view(2, 5, k), _hostile_rows(50, 7, k)
        quantized_a = {bits: _quantize(bench, a, bits) for bits in _WIDTHS}
        quantized_b = {bits: _quantize(bench, b, bits) for bits in _WIDTHS}
        for bits_a, bits_b in product(_WIDTHS, _WIDTHS):
            (qa, ea), (qb, eb) = quantized_a[bits_a], quantized_b[bits_b]
            out = bench.empty(2, 7, 5)
            rows = qa.unsqueeze(2).expand(2, 5, 7, k), ea.unsqueeze(2).expand(2, 5, 7)
            columns = qb.expand(2, 5, 7, k), eb.expand(2, 5, 7)
            bench.ops.run_dot(*rows, *columns, bits_a, bits_b, out.mT, bench.carrier)
            results.append(out)
        results += [part for pair in quantized_a.values() for part in pair]
    return results


def _longest_dots(bench: _Bench) -> list[Tensor]:
    """The greatest accumulators: 2^16 products of extreme integers."""
    results = []
    for bits in _WIDTHS:
        dtype = torch.int32 if bits == 24 else torch.int16
        bound = QUANTIZED_BOUNDS[bits]
        q = torch.full((2, _LONGEST_DOT), bound, dtype=dtype, device=bench.device)
        q[1, 1:] = -bound
        exponents = torch.tensor([3, -5], dtype=torch.int32, device=bench.device)
        rows = q.unsqueeze(1).expand(2, 2, -1), exponents.unsqueeze(1).expand(2, 2)
        columns = q.unsqueeze(0).expand(2, 2, -1), exponents.unsqueeze(0).expand(2, 2)
        out = bench.empty(2, 2)
        bench.ops.run_dot(*rows, *columns, bits, bits, out, bench.carrier)
        results.append(out)
    return results


def _reductions(bench: _Bench) -> list[Tensor]:
    x = _hostile_rows(60, 21, 5003).to(bench.device)
    integers = ((_words(63, 9, 130) << 32) + _words(64, 9, 130)).to(bench.device)
    sums, maxima, totals = bench.empty(21), bench.empty(21), bench.empty(9, dtype=torch.int64)
    bench.ops.run_sum(x, 1, sums)
    bench.ops.run_max(x, 1, maxima)
    bench.ops.run_sum(integers, 1, totals)

    negative, greatest_negative = -x.abs(), bench.empty(21)
    bench.ops.run_max(negative, 1, greatest_negative)
    large, whole = _from_patterns(_normal_patterns(65, 50_021)).to(bench.device), bench.empty()
    bench.ops.run_sum(large, 1, whole)

    strided = x.view(21, 5003)[:, :4998].view(21, 51, 98).permute(2, 0, 1)[::7]
    strided_sums, strided_maxima = bench.empty(14, 2)[:, 0], bench.empty(14, 21)
    bench.ops.run_sum(strided, 2, strided_sums)
    bench.ops.run_max(strided, 1, strided_maxima)
    return [sums, maxima, totals, greatest_negative, whole, strided_sums, strided_maxima]


def _indexed(bench: _Bench) -> list[Tensor]:
    """Gathers of three dtypes and a scatter, with indices out of range."""
    results = []
    x = _hostile_rows(70, 97, 14).to(bench.device)
    index = ((_words(73, 97) % 21) - 4).to(torch.int32).to(bench.device)
    for source in (x, x.view(torch.int32).to(torch.uint8), x.view(torch.int32).to(torch.int16)):
        out = bench.empty(97, 7, dtype=source.dtype)
        rows = index.view(97, 1).expand(97, 7)
        bench.ops.run_gather(rows, source.view(-1), 14, (0, 2), 13, 14, out)
        results.append(out)
    scattered = bench.empty(13, 7, 2)
    rows = index.view(97, 1, 1).expand(97, 7, 2)
    bench.ops.run_scatter_add(rows, x.view(97, 7, 2), 1, 13, scattered)
    finite = bench.empty(13, 14)
    values = _from_patterns(_words(74, 97, 14) & 0xBFFFFFFF).to(bench.device)
    bench.ops.run_scatter_add(index.view(97, 1).expand(97, 14), values, 1, 13, finite)
    return [*results, scattered, finite]


def _generators(bench: _Bench) -> list[Tensor]:
    results = [bench.empty(n, dtype=torch.int64) for n in (1, 6, 259)]
    for i, out in enumerate(results):
        bench.ops.run_random(-(2**63) + 0x9E3779B97F * i, -i, 2**32 + i, 2**63 - 1 - i, out)
    sequence = bench.empty(5, 7, dtype=torch.int64)
    bench.ops.run_iota(2**63 - 100, 7, sequence)
    return [*results, sequence]


_VECTORS: Final[dict[str, Callable[[_Bench], list[Tensor]]]] = {
    "arithmetic": _arithmetic,
    "unary": _unary,
    "comparisons": _comparisons,
    "integers": _integers,
    "loads and stores": _loads_and_stores,
    "strided": _strided,
    "adam": _adam,
    "thresholds": _thresholds,
    "dots": _dots,
    "longest dots": _longest_dots,
    "reductions": _reductions,
    "indexed": _indexed,
    "generators": _generators,
}
