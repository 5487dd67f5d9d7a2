"""Deployment facts of a process, read from the environment (``TOUCHSTONE_...``) by entry points."""

from pathlib import Path
from typing import Annotated, Final

from eth_account.signers.local import LocalAccount
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from market.chain.client import Chain, connect
from market.chain.deployment import read_deployment
from market.chain.keys import read_key, read_passphrase
from market.chain.outbox import Finality
from market.chain.transactions import OutboxConfig
from market.protocol.errors import InvalidSignature, MarketError
from market.storage.blobs import BlobStore

_DEFAULT_MAX_BLOB_BYTES: Final = 2**34


class Settings(BaseSettings):
    """Where things are. Every file is in ``data_dir`` unless it is named."""

    model_config = SettingsConfigDict(env_prefix="TOUCHSTONE_", frozen=True)

    data_dir: Path = Field(default_factory=lambda: Path.home() / ".touchstone")
    rpc_url: str = "http://127.0.0.1:8545"  # or several, separated by commas
    confirmations: Annotated[int, Field(ge=1)] = 12
    api_url: str = "http://127.0.0.1:8000"
    deployment: Path | None = None
    store: Path | None = None
    key: Path | None = None
    passphrase: SecretStr | None = None
    passphrase_file: Path | None = None
    anvil: Path | None = None
    max_blob_bytes: int = _DEFAULT_MAX_BLOB_BYTES
    database: SecretStr | None = None  # the URL of the index's, which may hold a password

    @property
    def deployment_file(self) -> Path:
        """Where the market's deployment is written down."""
        return self.deployment or self.data_dir / "deployment.json"

    @property
    def key_file(self) -> Path:
        """The keystore file of whoever runs this process."""
        return self.key or self.data_dir / "key.json"

    @property
    def outbox(self) -> OutboxConfig:
        """Where what was sent is written down, and when it is final."""
        return OutboxConfig(self.data_dir / "outbox", Finality(self.confirmations))

    @property
    def database_url(self) -> str:
        """The database of the index; by default an SQLite file."""
        if self.database is not None:
            return self.database.get_secret_value()
        return f"sqlite:///{self.data_dir / 'index.sqlite'}"

    def connect(self) -> Chain:
        """Return the deployed market through the node at ``rpc_url``."""
        deployment = read_deployment(self.deployment_file)
        return connect(self.rpc_url, deployment, outbox=self.outbox)

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
