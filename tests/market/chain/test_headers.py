"""Headers as bytes: they hash to their block's hash, and the draw's randomness is item 13."""

import json

import pytest
import rlp

from market.chain.headers import encode_header, get_header_rlp
from market.protocol.errors import ChainError, NotFound
from tests.market.chain.nodes import fake_node


def test_the_headers_of_many_blocks_hash_to_their_blocks(devnet):
    devnet.mine(20)
    height = int(devnet.rpc.call("eth_blockNumber", []), 16)

    headers = [get_header_rlp(devnet.rpc, number) for number in range(height - 20, height + 1)]

    mixes = {rlp.decode(header)[13] for header in headers}
    assert len(mixes) == 21
    assert all(len(mix) == 32 for mix in mixes)


def test_a_header_with_an_unknown_field_is_refused(devnet):
    block = devnet.rpc.call("eth_getBlockByNumber", ["0x0", False])

    future = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {**block, "hash": "0x" + "11" * 32}})

    with pytest.raises(ChainError, match="fields unknown here"):
        get_header_rlp(fake_node(200, future), 0)


def test_zero_quantities_are_empty_strings_and_early_headers_are_short(devnet):
    block = devnet.rpc.call("eth_getBlockByNumber", ["0x0", False])
    frontier = {
        name: block[name] for name in block if not name.startswith(("base", "with", "blob"))
    }
    frontier = {**frontier, "excessBlobGas": None}
    del frontier["parentBeaconBlockRoot"], frontier["requestsHash"]

    items = rlp.decode(encode_header(frontier))

    assert len(items) == 15
    assert items[8] == b""


def test_a_block_that_does_not_exist_is_not_found(devnet):
    with pytest.raises(NotFound, match="block 1000000"):
        get_header_rlp(devnet.rpc, 1_000_000)
