import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from market.cli import build_app
from market.protocol.encoding import encode_program
from tests.trainer.parallel.models import lower_mlp


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "step.program"
    path.write_bytes(encode_program(lower_mlp(4, 2)[0]))
    return path


def test_a_program_s_divisions_tell_work_and_traffic_or_why_not(file: Path) -> None:
    arguments = ["program", "divide", str(file), "--processes", "5", "--json"]

    result = CliRunner().invoke(build_app(), arguments)
    data, tensor, pipeline = json.loads(result.stdout)["divisions"]

    assert "batches of 2 rows for 5 processes" in data["refusal"]
    assert "5 stages for a model of 4 layers" in pipeline["refusal"]
    assert len(tensor["bytes"]) == len(tensor["multiply_adds"]) == 5
    assert max(tensor["multiply_adds"]) < 0.3 * sum(tensor["multiply_adds"])


def test_the_table_shows_the_share_of_the_busiest(file: Path) -> None:
    result = CliRunner().invoke(build_app(), ["program", "divide", str(file)])

    assert "a step by 2 processes" in result.stdout
    assert "50.0%" in result.stdout
