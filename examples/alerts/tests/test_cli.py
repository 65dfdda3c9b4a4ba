import time

import pytest

from alerts import cli
from alerts.config import load
from alerts.history import History


def test_a_bad_file_ends_with_2_and_names_it(tmp_path, capsys):
    assert cli.main(["check", "--config", str(tmp_path / "nowhere.toml")]) == 2
    assert "nowhere.toml" in capsys.readouterr().err


def test_history_prints_the_last_day(toml, make_alert, capsys):
    path = toml()
    now = time.time()
    History(load(path).history).append(
        [make_alert(rule="old", at=now - 2 * cli.DAY), make_alert(rule="new", at=now - 60)]
    )
    assert cli.main(["history", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert "new:" in out
    assert "old:" not in out


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    assert "command" in capsys.readouterr().err
