"""Consensus constants: limits that every participant and the contract share (docs/protocol.md)."""

from typing import Final

from market.protocol.hashing import Hash32

# Trees and tensors
TILE_BYTES: Final = 1024
MAX_RANK: Final = 6
MAX_DIMENSION: Final = 2**32 - 1
MAX_TENSOR_ELEMENTS: Final = 2**40

# Programs: every size that the judge meets has a limit
MAX_TENSORS: Final = 2**16
MAX_INSTRUCTIONS: Final = 2**16
MAX_OUTPUTS: Final = 2**14
MAX_NAME_BYTES: Final = 256
MAX_MAP_OPERANDS: Final = 8
MAX_MAP_OUTPUTS: Final = 4
MAX_MAP_OPS: Final = 160
MAX_MAP_CONSTANTS: Final = 64
MAX_DOT_LENGTH: Final = 2**16  # 2^16 products of two 24-bit integers stay below 2^63
MAX_SUM_TERMS: Final = 2**25 - 1  # n * 2^38 <= 2^63 - 1
MAX_LITERAL_BYTES: Final = 2**26
MAX_PROGRAM_BYTES: Final = 2**28
PROGRAM_INSTRUCTION_PARTS: Final = 16

# Exact arithmetic (docs/protocol.md section 4)
CANONICAL_NAN: Final = 0x7FC00000
POISON_EXPONENT: Final = 255
QUANTIZE_FLOOR: Final = -100
QUANTIZE_BUMPS: Final = {8: 0x10000, 14: 0, 16: 0x10100, 24: 0x10101}
SUM_FLOOR: Final = -80
SUM_FRACTION_BITS: Final = 38

# Jobs
MIN_SEGMENTS: Final = 2
MAX_SEGMENTS: Final = 256
MAX_SAMPLES: Final = 16
MIN_STEPS_PER_SEGMENT: Final = 2
MAX_STEPS_PER_SEGMENT: Final = 2**20
MAX_ROUNDS: Final = 1024
MAX_SLOTS: Final = 256
MAX_SHARDS: Final = 2**16  # rounds times slots
MAX_TICKET_TRIES: Final = 32
PANEL_TRIES: Final = 64
MAX_SILENCES: Final = 3
BPS: Final = 10_000
LEASES_PER_JOB: Final = 1_000_000  # a lease's number is its job's times this, plus its own from 1
COLLUSION_NUMERATOR: Final = 1  # r = 1/3 of the tickets may collude
COLLUSION_DENOMINATOR: Final = 3
PUNISHED_NUMERATOR: Final = 79  # of 100 that are drawn and withhold, a panel burns so many
PUNISHED_DENOMINATOR: Final = 100
MAX_DOCUMENT_BYTES: Final = 262_144  # a document is one raw block, so its CID is its SHA-256
MAX_STATE_BYTES: Final = 2**38

# The release's arithmetic: what `touchstone conformance` must print (docs/protocol.md section 5, leaf 6)
CONFORMANCE_DIGEST: Final = Hash32(
    bytes.fromhex("1ca418cd96479573afa5a4434b65aca0943901424ac66927ba44b62abc632605")
)
