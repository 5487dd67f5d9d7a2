import pytest

from market.cli import main
from tests.market.chain.synthetic import make_spec
from tests.market.commands.conftest import run_json


def test_an_index_is_run_shown_and_rebuilt(home, chain, post_job):
    post_job(make_spec(chain.get_time() + 1000))

    followed, shown, rebuilt = (
        run_json("index", *words) for words in (("run", "--once"), ("status",), ("rebuild",))
    )

    assert followed == shown == rebuilt
    assert followed["database"] == f"sqlite:///{home}/index.sqlite"
    assert (followed["jobs"], followed["events"], followed["tip"]) == (1, 2, chain.get_height())


@pytest.mark.usefixtures("home")
def test_an_index_that_never_ran_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["touchstone", "index", "status"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "nothing is indexed yet" in capsys.readouterr().err
