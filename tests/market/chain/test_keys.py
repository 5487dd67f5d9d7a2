"""Keys at rest."""

import json

import pytest

from market.chain.keys import create_key, read_key, read_passphrase, write_key
from market.protocol.errors import InvalidSignature, MarketError, NotFound


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "key.json"
    return path, create_key(path, "a passphrase")


def test_a_key_comes_back_with_its_passphrase(kept):
    path, account = kept

    assert read_key(path, "a passphrase").key == account.key


def test_a_key_file_is_its_owners_and_shows_no_key(kept):
    path, account = kept

    assert path.stat().st_mode & 0o777 == 0o600
    assert account.key.hex() not in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["key.json"]


def test_a_wrong_passphrase_is_refused_without_showing_it(kept):
    with pytest.raises(InvalidSignature, match="passphrase does not open") as caught:
        read_key(kept[0], "another one")
    assert "another one" not in str(caught.value)


def test_a_key_is_never_overwritten(kept):
    path, account = kept
    before = path.read_bytes()

    with pytest.raises(MarketError, match="never overwritten"):
        write_key(path, account, "a passphrase")

    assert path.read_bytes() == before


def test_an_empty_passphrase_is_refused(tmp_path, kept):
    with pytest.raises(InvalidSignature, match="not empty"):
        write_key(tmp_path / "key.json", kept[1], "")


@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"[]", b"null", b"{}", b'{"version": 3}', b'{"version": 9}', b"\xff"],
)
def test_a_malformed_key_file_is_named(tmp_path, content):
    path = tmp_path / "key.json"
    path.write_bytes(content)

    with pytest.raises(InvalidSignature, match=r"key\.json is not a keystore file"):
        read_key(path, "a passphrase")


def test_a_changed_key_file_does_not_open(tmp_path, kept):
    document = json.loads(kept[0].read_text())
    document["crypto"]["ciphertext"] = "00" * 32
    (tmp_path / "key.json").write_text(json.dumps(document))

    with pytest.raises(InvalidSignature, match="does not open"):
        read_key(tmp_path / "key.json", "a passphrase")


def test_a_missing_key_or_passphrase_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no key file"):
        read_key(tmp_path / "absent", "a passphrase")
    with pytest.raises(NotFound, match="no passphrase file"):
        read_passphrase(tmp_path / "absent")


def test_a_passphrase_file_may_end_its_line(tmp_path):
    (tmp_path / "passphrase").write_text("two words\n")

    assert read_passphrase(tmp_path / "passphrase") == "two words"
