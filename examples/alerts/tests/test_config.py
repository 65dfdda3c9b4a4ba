from pathlib import Path

import pytest

from alerts.config import ConfigError, load, parse

RULE = '[[rules]]\nname = "r"\nmetric = "cpu.load"\nabove = 80\n'


def test_the_example_file_is_fine():
    settings = load(Path(__file__).parents[1] / "alerts.example.toml")
    assert [rule.name for rule in settings.rules] == ["cpu-busy", "memory-full", "memory-leak"]
    assert settings.email is not None
    assert settings.webhook is not None


def test_defaults():
    settings = parse(RULE)
    assert (settings.interval, settings.window) == (60, 300)
    assert settings.rules[0].severity == "warning"
    assert settings.email is None


def test_severity_may_be_written_with_a_capital(toml):
    assert load(toml()).rules[1].severity == "critical"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rules: there are none"),
        ("x = ", "not TOML"),
        ("interval = 0\n" + RULE, "interval"),
        ("[throttle]\nwindow = -1\n" + RULE, "throttle.window"),
        (RULE + RULE, "is there twice"),
        ('[[rules]]\nname = "r"\nmetric = "m"\n', "needs above or below"),
        (RULE + "below = 3\n", "either above or below"),
        (RULE + 'severity = "loud"\n', "severity: must be one of info, warning, critical"),
        (RULE + '[webhook]\nurl = "ftp://x"\n', "webhook.url"),
        (RULE + '[email]\nhost = "h"\nsender = "s"\n', "email.recipients: is missing"),
    ],
)
def test_a_mistake_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.toml"):
        load(tmp_path / "nowhere.toml")
