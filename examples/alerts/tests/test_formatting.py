from alerts import formatting


def test_the_subject_begins_with_the_severity(make_alert):
    assert formatting.subject(make_alert()).startswith("[WARNING] cpu-busy: ")


def test_a_long_subject_is_cut(make_alert):
    text = formatting.subject(make_alert(rule="r" * 100))
    assert len(text) == formatting.LONGEST_SUBJECT
    assert text.endswith("...")


def test_the_body_holds_what_one_needs_at_night(make_alert):
    text = formatting.body(make_alert())
    assert "rule:     cpu-busy" in text
    assert "metric:   cpu.load = 91" in text
    assert "2026-01-05 12:00:00 UTC" in text


def test_the_signature_is_set_off_from_the_text(make_alert):
    assert "\n-- \nSent by alerts." in formatting.body(make_alert())


def test_a_line_for_the_terminal(make_alert):
    line = formatting.line(make_alert(severity="critical"))
    assert line == "!! 12:00:00 cpu-busy: cpu.load is 91, above 80"


def test_the_payload_can_be_read_back(make_alert):
    payload = formatting.payload(make_alert())
    assert payload["alert"]["rule"] == "cpu-busy"
