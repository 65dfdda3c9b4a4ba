from alerts.history import History


def test_what_was_appended_comes_back_in_order(tmp_path, make_alert, noon):
    history = History(tmp_path / "var" / "sent.jsonl")
    history.append([make_alert(at=noon)])
    history.append([make_alert(rule="memory-full", at=noon + 1)])
    assert [alert.rule for alert in history] == ["cpu-busy", "memory-full"]


def test_no_file_is_no_history(tmp_path):
    assert list(History(tmp_path / "sent.jsonl")) == []


def test_a_torn_line_is_skipped(tmp_path, make_alert):
    history = History(tmp_path / "sent.jsonl")
    history.append([make_alert()])
    with history.path.open("a") as file:
        file.write('{"rule": "cpu-b')
    assert len(list(history)) == 1


def test_since(tmp_path, make_alert, noon):
    history = History(tmp_path / "sent.jsonl")
    history.append([make_alert(at=noon - 10), make_alert(at=noon)])
    assert len(history.since(noon)) == 1
