"""The demo itself, with every process and command of it, on a job small enough for each test run."""

import json

import pytest
from rich.console import Console
from safetensors.torch import load_file

from market.protocol.errors import MarketError
from market.protocol.lifecycle import LeaseStatus
from tests.e2e.test_market import flip_one_bit
from verifier.demo.cast import AUDITORS, CHEAT, PROVIDERS, Scene
from verifier.demo.screen import Screen
from verifier.demo.story import Demo, Scale

SMALL = Scale(preset="tiny", batch=2, rounds=2, slots=3, segments=4, steps=4)


def test_the_demo_pays_the_honest_slashes_the_cheat_and_keeps_a_verified_model(tmp_path, capsys):
    figures = tmp_path / "figures.json"

    Demo(tmp_path / "home", figures, keep=False, scale=SMALL).run()

    found = json.loads(figures.read_text())
    assert found["slashed"] == [CHEAT.name]
    assert found["slashes"][0]["claimed"] != found["slashes"][0]["recomputed"]
    honest = {party.name for party in (*PROVIDERS, *AUDITORS)} - {CHEAT.name}
    assert set(found["paid"]) <= honest
    settled = [lease for lease in found["leases"] if lease["status"] == "settled"]
    assert len(settled) == SMALL.rounds * SMALL.slots
    assert all(len(lease["audited"]) == 2 for lease in settled)
    price = 10**16
    earned = sum(int(found["paid"].get(party.name, 0)) for party in PROVIDERS)
    assert earned == price * len(settled)
    assert found["loss_after"] < found["loss_before"]
    assert abs(found["loss_after"] / found["loss_after_fp32"] - 1) < 0.01
    assert found["gas_lifecycle"] <= 600_000
    assert found["receipt_holds"]
    assert sum(t.numel() for t in load_file(found["model"]).values()) == found["parameters"]
    assert "mallory lost" in capsys.readouterr().out


def test_the_screen_marks_the_segment_that_an_auditor_found_false(open_world):
    world = open_world()
    world.add_provider(CHEAT.account, flip_one_bit)
    world.add_auditor(AUDITORS[0].account)
    lease = world.run_until_status(LeaseStatus.ACCUSED)
    drawn = world.chain.get_drawn_segments(lease)
    terminal = Console(width=120)

    screen = Screen(Scene(world.folder, 0, 0), world.chain, world.ledger(), world.spec.segments)
    with terminal.capture() as shown:
        terminal.print(screen.build_table())

    (row,) = [line for line in shown.get().splitlines() if str(lease) in line]
    marks = [character for character in row if character in "✗◆·"]
    assert CHEAT.name in row
    assert "accused" in row
    assert marks.index("✗") == drawn[0]
    assert marks[drawn[1]] == "◆"


def test_the_demo_never_empties_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.txt").write_text("the only copy")

    with pytest.raises(MarketError, match="is not empty"):
        Demo(tmp_path, None, keep=False)

    assert (tmp_path / "thesis.txt").exists()
