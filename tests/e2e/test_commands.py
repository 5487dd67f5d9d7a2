"""The commands of trainer and verifier on a real job: what they print, write and mean by their exit codes."""

import json

import pytest
from eth_account import Account
from typer.testing import CliRunner

from market.chain.deployment import write_deployment
from market.chain.devnet import get_account
from market.cli import build_app
from market.protocol.constants import CONFORMANCE_DIGEST
from market.protocol.encoding import encode_program
from market.protocol.errors import InvalidProgram, InvalidSpec, NondeterministicEnvironment
from tests.trainer.tiny_job import build_tiny_job
from trainer.commands import conformance

APP = build_app()


def run(*arguments, code=0):
    result = CliRunner().invoke(APP, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def finished(open_world, monkeypatch, devnet):
    """A tiny job whose shards are attested, and the environment of its requester's commands."""
    world = open_world()
    world.add_provider(2, leases=9)
    world.add_auditor(4)
    world.run_until_attested()
    home = world.folder / "requester"
    write_deployment(home / "deployment.json", world.chain.deployment)
    key = Account.encrypt(get_account(1).key, "a passphrase", iterations=2)
    (home / "key.json").write_text(json.dumps(key))
    for name, value in {
        "DATA_DIR": home,
        "STORE": world.folder / "store",
        "RPC_URL": devnet.url,
        "PASSPHRASE": "a passphrase",
    }.items():
        monkeypatch.setenv(f"TOUCHSTONE_{name}", str(value))
    return world


def test_a_finished_job_is_replayed_exported_receipted_and_verified(finished, tmp_path):
    model, receipt = tmp_path / "model.safetensors", tmp_path / "receipt.json"

    replayed = json.loads(run("replay", "1", "--json"))
    exported = json.loads(run("job", "model", "1", "--out", str(model), "--json"))
    run("receipt", "make", "1", "--out", str(receipt))
    verified = json.loads(run("receipt", "verify", str(receipt), "--model", str(model), "--json"))

    assert replayed["equal"]
    assert len(replayed["shards"]) == finished.spec.rounds * finished.spec.slots
    assert exported["root"] == json.loads(receipt.read_text())["model_root"]
    assert verified["holds"]
    assert len(verified["checks"]) == 7

    document = json.loads(receipt.read_text())
    document["leases"][0]["auditor"] += 1
    receipt.write_text(json.dumps(document))
    assert "NO:" in run("receipt", "verify", str(receipt), code=1)


def test_a_program_is_shown_with_its_figures_and_a_damaged_one_is_refused(tmp_path):
    program = build_tiny_job()["program"]
    path = tmp_path / "program"
    path.write_bytes(encode_program(program))

    shown = json.loads(run("program", "show", str(path), "--json"))
    listing = run("program", "show", str(path), "--listing")

    kinds = shown["instructions"]
    assert sum(kinds.values()) == len(program.instructions)
    assert kinds["dot"] * 2 <= shown["multiply_adds"]
    assert shown["parameters"] * 12 + 8 == shown["state_bytes"]  # weights, two moments, two powers
    assert "embedding.weight" in listing

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidProgram, match="ends at byte"):
        run("program", "show", str(path))


def test_conformance_prints_the_releases_digest_and_the_carriers():
    shown = json.loads(run("conformance", "--json"))

    assert shown["digest"] == CONFORMANCE_DIGEST.hex()
    assert shown["carriers"]["float64"]
    assert {form["form"] for form in shown["forms"]} == {"torch", "fused"}


def test_a_machine_with_other_arithmetic_says_so_and_cannot_provide(monkeypatch):
    monkeypatch.setattr(conformance, "CONFORMANCE_DIGEST", bytes(32))

    shown = json.loads(run("conformance", "--json", code=1))

    assert not shown["conforms"]
    with pytest.raises(NondeterministicEnvironment, match="the release"):
        run("provider", "run")
    with pytest.raises(NondeterministicEnvironment, match="the release"):
        run("auditor", "run")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--preset", "huge"), "no model 'huge'"),
        (("--preset", "tiny", "--limit", "1000"), "a dataset of 1000 tokens"),
        (("--preset", "tiny", "--stake", "1wei"), "makes cheating pay"),
        (("--preset", "tiny", "--samples", "9"), "9 samples of 8 segments"),
        (("--preset", "tiny", "--quorum", "2"), "a quorum of 2 of 3 slots needs round_time_s"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_the_rule(options, fault, tmp_path, monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path))

    with pytest.raises(InvalidSpec, match=fault):
        run("job", "init", "--out", str(tmp_path / "spec.json"), *options)

    assert not (tmp_path / "spec.json").exists()
