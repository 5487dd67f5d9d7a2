"""The demo's parties: who they are on the devnet, and the environment in which each runs commands."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from market.chain.devnet import get_account


class Part(StrEnum):
    """What a party does."""

    REQUESTER = "requester"
    PROVIDER = "provider"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Party:
    """A party: its name on screen, and the devnet account that is its key."""

    name: str
    part: Part
    account: int

    @property
    def address(self) -> str:
        """Its address."""
        return get_account(self.account).address


REQUESTER: Final = Party("requester", Part.REQUESTER, 1)
CHEAT: Final = Party("mallory", Part.PROVIDER, 4)  # runs half of its steps
PROVIDERS: Final = (
    CHEAT,
    Party("alice", Part.PROVIDER, 2),
    Party("bob", Part.PROVIDER, 3),
)
AUDITORS: Final = (Party("carol", Part.AUDITOR, 5), Party("dave", Part.AUDITOR, 6))
EVERYBODY: Final = (REQUESTER, *PROVIDERS, *AUDITORS)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the demo's files are and its servers listen."""

    home: Path
    chain_port: int
    api_port: int

    @property
    def api_url(self) -> str:
        """The API's address."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def rpc_url(self) -> str:
        """The node's address."""
        return f"http://127.0.0.1:{self.chain_port}"

    def build_environment(self, name: str) -> dict[str, str]:
        """Return the environment of the party or service called ``name``."""
        facts = {
            "DATA_DIR": self.home / name,
            "DEPLOYMENT": self.home / "deployment.json",
            "STORE": self.home / "store",
            "RPC_URL": self.rpc_url,
            "API_URL": self.api_url,
            "PASSPHRASE_FILE": self.home / "passphrase",
        }
        named = {f"TOUCHSTONE_{key}": str(value) for key, value in facts.items()}
        others = {k: v for k, v in os.environ.items() if not k.startswith("TOUCHSTONE_")}
        anvil = {k: v for k, v in os.environ.items() if k == "TOUCHSTONE_ANVIL"}
        # Many processes share few cores: a thread that waits must not burn one.
        return {**others, **anvil, **named, "OMP_WAIT_POLICY": "passive"}
