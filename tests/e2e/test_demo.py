"""The demo itself, with every process and command of it, on a job small enough for each test run."""

import json

import pytest
from safetensors.torch import load_file

from market.protocol.errors import MarketError
from verifier.demo.cast import AUDITORS, CHEAT, PROVIDERS
from verifier.demo.story import Demo, Scale

SMALL = Scale(preset="tiny", batch=2, rounds=2, slots=3, segments=4, steps=4)


def test_the_demo_pays_the_honest_slashes_the_cheat_and_keeps_a_verified_model(tmp_path, capsys):
    figures = tmp_path / "figures.json"

    Demo(tmp_path / "home", figures, keep=False, scale=SMALL).run()

    found = json.loads(figures.read_text())
    assert found["slashed"] == [CHEAT.address]
    honest = {party.address for party in (*PROVIDERS, *AUDITORS)} - {CHEAT.address}
    assert set(found["paid"]) <= honest
    settled = [lease for lease in found["leases"] if lease["status"] == "settled"]
    assert len(settled) == SMALL.rounds * SMALL.slots
    assert all(len(lease["audited"]) == 2 for lease in settled)
    price = 10**16
    earned = sum(int(found["paid"].get(party.address, 0)) for party in PROVIDERS)
    assert earned == price * len(settled)
    assert found["loss_after"] < found["loss_before"]
    assert abs(found["loss_after"] / found["loss_after_fp32"] - 1) < 0.01
    assert found["gas_lifecycle"] <= 600_000
    assert found["receipt_holds"]
    assert sum(t.numel() for t in load_file(found["model"]).values()) == found["parameters"]
    assert "mallory lost" in capsys.readouterr().out


def test_the_demo_never_empties_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.txt").write_text("the only copy")

    with pytest.raises(MarketError, match="is not empty"):
        Demo(tmp_path, None, keep=False)

    assert (tmp_path / "thesis.txt").exists()
