"""Writes the golden vectors that pytest and forge read: ``python tests/vectors/generate.py``."""

import json
from pathlib import Path

import rlp
from eth_utils import keccak

from market.protocol.encoding import (
    compute_instruction_root,
    compute_program_root,
    encode_instruction_parts,
    encode_program,
)
from market.protocol.hashing import Hash32, Role, compute_digest, hash_leaf
from market.protocol.merkle import compute_branch, compute_root
from market.protocol.philox import compute_batch_starts, philox_words
from market.protocol.program import (
    Instruction,
    Kind,
    Op,
    Output,
    OutputKind,
    Program,
    Tensor,
    TensorRole,
    View,
)
from market.protocol.records import (
    Outcome,
    StateClaim,
    compute_lease_branch,
    compute_lease_root,
    compute_position,
    compute_record_branch,
    compute_trace_root,
)
from market.protocol.sampling import (
    compute_job_seed,
    compute_segment_seed,
    draw_panel,
    draw_segments,
    draw_tickets,
)
from market.protocol.spec import compute_spec_hash
from market.protocol.tensors import (
    Dtype,
    TensorType,
    compute_named_root,
    compute_tensor_root,
)

HERE = Path(__file__).parent
HALF = 0x3F000000


def _hash(*parts: object) -> Hash32:
    return compute_digest(repr(parts).encode())


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def build_tiny_program() -> Program:
    """A program with a map, a quantize, a dot, a sum and a const: w' = w - 0.5 * (w . w^T) row sums."""
    f32 = Dtype.F32
    weights = TensorType(f32, (4, 8))
    return Program(
        tensors=(
            Tensor(weights, TensorRole.BASE, "w"),
            Tensor(TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS, "counters"),
            Tensor(TensorType(Dtype.I16, (4, 8), 16)),
            Tensor(TensorType(f32, (4, 4))),
            Tensor(TensorType(f32, (4,))),
            Tensor(weights),
            Tensor(TensorType(f32, (1,)), literal=bytes.fromhex("0000803f")),
        ),
        instructions=(
            Instruction(
                Kind.QUANTIZE, (4, 8), (View(0, 0, (8, 1)),), (View(2, 0, (8, 1)),), 0, (16, 0)
            ),
            Instruction(
                Kind.DOT,
                (4, 4, 8),
                (View(2, 0, (8, 0, 1)), View(2, 0, (0, 8, 1))),
                (View(3, 0, (4, 1, 0)),),
            ),
            Instruction(Kind.SUM, (4, 4), (View(3, 0, (4, 1)),), (View(4, 0, (1, 0)),), 1),
            Instruction(Kind.CONST, (1,), (), (View(6, 0, (1,)),)),
            Instruction(
                Kind.MAP,
                (4, 8),
                (View(0, 0, (8, 1)), View(4, 0, (1, 0)), View(6, 0, (0, 0))),
                (View(5, 0, (8, 1), 6),),
                code=((Op.MUL, 1, 3, 0), (Op.SUB, 0, 4, 0), (Op.MUL, 5, 2, 0)),
                f32_constants=(HALF,),
            ),
        ),
        outputs=(
            Output(OutputKind.NEXT_STATE, 5, "w", 0),
            Output(OutputKind.GRADIENT, 3, "w"),
            Output(OutputKind.METRICS, 4, "metrics"),
        ),
    )


def _build_claims(segments: int, *shard: int) -> list[StateClaim]:
    return [
        StateClaim(
            _hash("base", i, *shard),
            _hash("slot", i, *shard),
            _build_outcome(i, *shard).compute_leaf() if i else Hash32(bytes(32)),
        )
        for i in range(segments + 1)
    ]


def _build_outcome(index: int, *shard: int) -> Outcome:
    return Outcome(_hash("gradient", index, *shard), _hash("metrics", index, *shard))


def _build_trace(segments: int) -> dict[str, object]:
    claims = _build_claims(segments)
    return {
        "records": [
            {
                "index": i,
                "base_root": _hex(claim.base_root),
                "slot_root": _hex(claim.slot_root),
                "outcome": _hex(claim.outcome),
                "leaf": _hex(claim.compute_record(i)),
            }
            for i, claim in enumerate(claims)
        ],
        "root": _hex(compute_trace_root(claims)),
        "branches": [
            [_hex(node) for node in compute_record_branch(claims, i)] for i in range(len(claims))
        ],
    }


def _build_draw(job_id: int, lease_id: int) -> dict[str, object]:
    mix_hash = _hash("mix")
    zero32, number = bytes(32), 4242
    header = [
        *(_hash("parent"), _hash("ommers"), bytes(20), _hash("state"), zero32, zero32),
        *(bytes(256), 0, number, 30_000_000, 21_000, 1_700_000_000, b"touchstone"),
        *(mix_hash, bytes(8), 7, zero32, 0, 0, zero32),
    ]
    encoded = rlp.encode(header)
    return {
        "header": _hex(encoded),
        "block_hash": _hex(keccak(encoded)),
        "block_number": number,
        "mix_hash": _hex(mix_hash),
        "job_id": job_id,
        "lease_id": lease_id,
        "job_seed": str(compute_job_seed(job_id, mix_hash)),
        "segments": {
            "n": 20,
            "m": 5,
            "seed": compute_segment_seed(lease_id, mix_hash),
            "values": draw_segments(lease_id, mix_hash, 20, 5),
        },
        "tickets": {"count": 7, "candidates": draw_tickets(lease_id, mix_hash, 7)},
        "panel": {"count": 7, "candidates": draw_panel(lease_id, mix_hash, 7)},
    }


def _build_lease(shards: int, segments: int) -> dict[str, object]:
    traces = [_build_claims(segments, shard) for shard in range(shards)]
    places = [(shard, index) for shard in range(shards) for index in range(segments + 1)]
    return {
        "shards": shards,
        "segments": segments,
        "traces": [_hex(compute_trace_root(claims)) for claims in traces],
        "root": _hex(compute_lease_root(traces)),
        "records": [
            {
                "shard": shard,
                "index": index,
                "position": compute_position(shard, index, segments),
                "state_root": _hex(traces[shard][index].state_root),
                "gradient_root": _hex(_build_outcome(index, shard).gradient_root),
                "metrics_root": _hex(_build_outcome(index, shard).metrics_root),
                "outcome": _hex(traces[shard][index].outcome),
                "leaf": _hex(traces[shard][index].compute_record(index)),
                "branch": [_hex(node) for node in compute_lease_branch(traces, shard, index)],
            }
            for shard, index in places
        ],
    }


def build_commitments() -> dict[str, object]:
    """Leaves, trees, records, leases, specs and draws."""
    leaves = [hash_leaf(Role.SPEC, _hash(i) * 2) for i in range(5)]
    values = [_hash("spec", i) for i in range(8)]
    values[5] = Hash32(b"".join(n.to_bytes(8, "big") for n in (2, 3, 8, 16)))
    outcome = Outcome(_hash("gradient"), _hash("metrics"))
    return {
        "tree": {
            "leaves": [_hex(leaf) for leaf in leaves],
            "root": _hex(compute_root(leaves)),
            "branches": [[_hex(n) for n in compute_branch(leaves, i)] for i in range(5)],
        },
        "spec": {
            "leaves": [_hex(value) for value in values],
            "root": _hex(compute_spec_hash(values)),
        },
        "outcome": {
            "gradient_root": _hex(outcome.gradient_root),
            "metrics_root": _hex(outcome.metrics_root),
            "leaf": _hex(outcome.compute_leaf()),
        },
        "trace": _build_trace(8),
        "lease": _build_lease(3, 4),
        "draw": _build_draw(3, 9),
    }


def build_programs() -> dict[str, object]:
    """The tiny program's bytes, its parts and its roots."""
    program = build_tiny_program()
    root = compute_program_root(program)
    return {
        "encoded": _hex(encode_program(program)),
        "root": _hex(root.root),
        "header": _hex(root.header),
        "tensors": [_hex(leaf) for leaf in root.tensors],
        "outputs": [_hex(leaf) for leaf in root.outputs],
        "instructions": [
            {
                "parts": [_hex(part) for part in encode_instruction_parts(instruction)],
                "root": _hex(compute_instruction_root(instruction)),
            }
            for instruction in program.instructions
        ],
    }


def build_tensors() -> dict[str, object]:
    """Tensor roots at the sizes where tiles, padding and rows matter."""
    plain = [
        TensorType(Dtype.F32, ()),
        TensorType(Dtype.F32, (7,)),
        TensorType(Dtype.F32, (8,)),
        TensorType(Dtype.F32, (256,)),
        TensorType(Dtype.F32, (16, 16)),
        TensorType(Dtype.F32, (257,)),
        TensorType(Dtype.U8, (5000,)),
        TensorType(Dtype.I64, (3, 100)),
    ]
    quantized = [TensorType(Dtype.I16, (3, 16), 16), TensorType(Dtype.I32, (2, 300), 24)]
    cases = []
    for kind in (*plain, *quantized):
        data = bytes((7 * i + 1) % 251 for i in range(kind.nbytes))
        rows = kind.elements // kind.shape[-1] if kind.bits else 0
        exponents = [row - 100 for row in range(rows)]
        root = compute_tensor_root(kind, data, exponents)
        cases.append(
            {
                "dtype": int(kind.dtype),
                "bits": kind.bits,
                "shape": list(kind.shape),
                "data": _hex(data),
                "exponents": exponents,
                "root": _hex(root),
            }
        )
    named = {f"tensor {i}": _hash("root", i) for i in range(3)}
    return {
        "tensors": cases,
        "named": {name: _hex(root) for name, root in named.items()},
        "named_root": _hex(compute_named_root(named)),
    }


def build_philox() -> dict[str, object]:
    """Random words (the first three are Random123's own answers) and batches."""
    ones = 0xFFFFFFFF
    cases = [
        (0, (0, 0, 0, 0)),
        (2**64 - 1, (ones, ones, ones, ones)),
        (0x299F31D0A4093822, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)),
        (12345678901234567890, (1, 2, 3, 4)),
    ]
    return {
        "words": [
            {"key": str(key), "counter": counter, "words": philox_words(key, counter)}
            for key, counter in cases
        ],
        "batch": {
            "arguments": [str(2**63 + 5), 1, 2, 17, 8, 100_000, 128],
            "starts": compute_batch_starts(2**63 + 5, 1, 2, 17, 8, 100_000, 128),
        },
    }


VECTORS = {
    "commitments.json": build_commitments,
    "programs.json": build_programs,
    "tensors.json": build_tensors,
    "philox.json": build_philox,
}


def encode_vectors(name: str) -> str:
    """Return the text of a vectors file."""
    return json.dumps(VECTORS[name](), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for file_name in VECTORS:
        (HERE / file_name).write_text(encode_vectors(file_name))
