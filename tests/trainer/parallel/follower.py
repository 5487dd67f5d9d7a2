"""One process of a group that follows rank 0: what `test_group` starts beside itself."""

import sys

import torch

from market.protocol.errors import MarketError
from trainer.parallel.group import join_group
from trainer.parallel.lead import follow

if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        with join_group(timeout_s=float(sys.argv[1])) as group:
            follow(group, threads=1)
    except MarketError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
