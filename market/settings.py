"""Deployment facts of a process, read from the environment (``TOUCHSTONE_...``) by entry points."""

from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from market.chain.client import Chain, connect
from market.chain.deployment import read_deployment
from market.chain.keys import read_key, read_passphrase
from market.protocol.errors import InvalidSignature, MarketError
from market.storage.blobs import BlobStore

_DEFAULT_MAX_BLOB_BYTES: Final = 2**34


class Settings(BaseSettings):
    """Where things are. Every file is in ``data_dir`` unless it is named."""

    model_config = SettingsConfigDict(env_prefix="TOUCHSTONE_", frozen=True)

    data_dir: Path = Field(default_factory=lambda: Path.home() / ".touchstone")
    rpc_url: str = "http://127.0.0.1:8545"
    api_url: str = "http://127.0.0.1:8000"
    deployment: Path | None = None
    store: Path | None = None
    key: Path | None = None
    passphrase: SecretStr | None = None
    passphrase_file: Path | None = None
    anvil: Path | None = None
    max_blob_bytes: int = _DEFAULT_MAX_BLOB_BYTES

    @property
    def deployment_file(self) -> Path:
        """Where the market's deployment is written down."""
        return self.deployment or self.data_dir / "deployment.json"

    @property
    def key_file(self) -> Path:
        """The keystore file of whoever runs this process."""
        return self.key or self.data_dir / "key.json"

    def connect(self) -> Chain:
        """Return the deployed market through the node at ``rpc_url``."""
        return connect(self.rpc_url, read_deployment(self.deployment_file))

    def open_store(self) -> BlobStore:
        """Return the local blob store."""
        return BlobStore(self.store or self.data_dir / "blobs", self.max_blob_bytes)

    def read_passphrase(self) -> str:
        """Return the passphrase that opens ``key_file``."""
        if self.passphrase is not None:
            return self.passphrase.get_secret_value()
        if self.passphrase_file is not None:
            return read_passphrase(self.passphrase_file)
        raise InvalidSignature(
            "no passphrase: set TOUCHSTONE_PASSPHRASE_FILE (or TOUCHSTONE_PASSPHRASE)"
        )

    def read_account(self) -> LocalAccount:
        """Return the account of ``key_file``."""
        return read_key(self.key_file, self.read_passphrase())


def read_settings() -> Settings:
    """Return what the environment says; raise MarketError naming a variable that makes no sense."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"TOUCHSTONE_{f['loc'][0]}".upper() + f": {f['msg']}" for f in error.errors()]
        raise MarketError("; ".join(faults)) from error
