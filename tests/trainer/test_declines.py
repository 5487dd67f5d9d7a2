import json

from typer.testing import CliRunner

from market.cli import build_app
from market.protocol.economics import Decline, Reason
from trainer.commands.declines import count_reasons
from trainer.declines import DECLINES_FILE, DeclineLog

CHEAP = Decline(Reason.PRICE_BELOW_FLOOR, 2**70, 2**71)
SLOW = Decline(Reason.TOO_SLOW, 300, 328)
GONE = Decline(Reason.BLOBS_UNAVAILABLE, detail="no blob bafy")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_declines_outlive_the_process(tmp_path):
    with DeclineLog(tmp_path / "declines.db") as log:
        log.add(1, CHEAP, 100)
        log.add(2, GONE, 101)

    with DeclineLog(tmp_path / "declines.db") as log:
        assert [(kept.job_id, kept.decline) for kept in log.read()] == [(2, GONE), (1, CHEAP)]


def test_a_decline_that_is_repeated_is_written_once(tmp_path):
    with DeclineLog(tmp_path / "declines.db") as log:
        assert log.add(1, CHEAP, 100)
        assert not log.add(1, CHEAP, 101)
        assert log.add(1, SLOW, 102)

        assert [kept.time for kept in log.read()] == [102, 100]


def test_the_last_decline_of_a_job_for_a_reason_takes_the_place_of_the_one_before(tmp_path):
    later = Decline(Reason.TOO_SLOW, 300, 400)
    with DeclineLog(tmp_path / "declines.db") as log:
        log.add(1, SLOW, 100)
        log.add(1, later, 200)

        assert [kept.decline for kept in log.read()] == [later]


def test_the_oldest_declines_make_room(tmp_path):
    with DeclineLog(tmp_path / "declines.db", most=3) as log:
        for job_id in range(1, 8):
            log.add(job_id, SLOW, 100 + job_id)

        assert [kept.job_id for kept in log.read()] == [7, 6, 5]


def test_a_histogram_counts_jobs_by_reason_and_shows_the_latest(tmp_path):
    with DeclineLog(tmp_path / "declines.db") as log:
        log.add(9, GONE, 1)
        for job_id in range(1, 6):
            log.add(job_id, CHEAP, 100 + job_id)

        cheap, gone = count_reasons(log.read()).reasons

    assert (cheap.reason, cheap.jobs, gone.jobs) == (Reason.PRICE_BELOW_FLOOR, 5, 1)
    assert [example.job_id for example in cheap.examples] == [5, 4, 3]


def test_the_command_says_why_jobs_were_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path))
    with DeclineLog(tmp_path / DECLINES_FILE) as log:
        log.add(1, CHEAP, 100)
        log.add(2, SLOW, 1_700_000_000)

    shown = run("provider", "declines")
    found = json.loads(run("provider", "declines", "--json"))

    assert "too_slow" in shown
    assert "300 of 328 s" in " ".join(shown.split())
    assert found["reasons"][0]["examples"][0]["required"] == str(2**71)


def test_a_provider_that_never_ran_has_declined_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TOUCHSTONE_DATA_DIR", str(tmp_path))

    assert json.loads(run("provider", "declines", "--json")) == {"reasons": []}
    assert not (tmp_path / DECLINES_FILE).exists()
