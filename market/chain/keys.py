"""Keys at rest: Ethereum keystore files (scrypt) that only their owner can read."""

import json
import os
import tempfile
from pathlib import Path
from typing import Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from market.protocol.errors import InvalidSignature, MarketError, NotFound

_WRONG_PASSPHRASE: Final = "MAC mismatch"  # how eth-keyfile says it


def create_key(path: Path, passphrase: str) -> LocalAccount:
    """Create a key, keep it encrypted at ``path``, which must not exist, and return its account."""
    account: LocalAccount = Account.create()
    write_key(path, account, passphrase)
    return account


def write_key(path: Path, account: LocalAccount, passphrase: str) -> None:
    """Keep the key of ``account`` encrypted at ``path``, mode 0600; never over another file."""
    if not passphrase:
        raise InvalidSignature("a key needs a passphrase that is not empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.dumps(account.encrypt(passphrase))
    descriptor, name = tempfile.mkstemp(prefix=".key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as incoming:
            incoming.write(document)
            incoming.flush()
            os.fsync(incoming.fileno())
        os.link(name, path)  # atomic, and unlike a rename it fails where a key already is
    except FileExistsError:
        raise MarketError(f"{path} exists: a key is never overwritten") from None
    finally:
        os.unlink(name)


def read_key(path: Path, passphrase: str) -> LocalAccount:
    """Return the account whose key is kept at ``path``."""
    try:
        document = json.loads(path.read_text())
        key = Account.decrypt(document, passphrase)
    except FileNotFoundError:
        raise NotFound(f"no key file at {path}") from None
    except (KeyError, TypeError, AttributeError, ValueError, NotImplementedError) as error:
        if _WRONG_PASSPHRASE in str(error):
            raise InvalidSignature(f"the passphrase does not open {path}") from None
        raise InvalidSignature(f"{path} is not a keystore file: {error!r}") from None
    account: LocalAccount = Account.from_key(key)
    return account


def read_passphrase(path: Path) -> str:
    """Return the passphrase in the file at ``path``, without the end of its line."""
    try:
        return path.read_text().rstrip("\r\n")
    except FileNotFoundError:
        raise NotFound(f"no passphrase file at {path}") from None
