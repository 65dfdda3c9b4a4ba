"""What `supervisor.toml` may say."""

from __future__ import annotations

import re
import string
import tomllib
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs_store.topology import DEFAULT
from supervisor.config import (
    PHASE,
    PHASE_TABLES,
    SECTIONS,
    TEMPLATE,
    Config,
    ConfigError,
    Mistake,
    PhaseConfig,
    PhaseRestartConfig,
    ProbeConfig,
    parse,
)
from supervisor.exits import Exit

WRONG = '''\
[projct]
x = 1

[project]
pyton = "3"
hang = -1
test_timeout = "x"
tests = """
[ipc]
rollout = 3
"""

[ipc]
rollout = 1.5
fallback = "nevr"

[restart]
first_delay = 99.0
restarts = true

[phases.qaa]
interval = 3

[phases.security]
interval = 3

[phases.audit]
actor = "no colon"
prefix = "QA"

[phases.user]
actor = "a:B"

[phases.qa]
driver = "command"
options = 3
'''


def mistakes(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [(mistake.line, mistake.where) for mistake in caught.value.mistakes]


def test_the_template_is_valid_and_means_the_defaults_with_the_queue() -> None:
    """What `init` writes changes nothing but the rollout."""
    config = parse(TEMPLATE)
    assert config.ipc.rollout == 1.0
    assert config.topology is DEFAULT
    assert (config.project, config.restart, dict(config.phases)) == (
        Config().project,
        Config().restart,
        dict(Config().phases),
    )
    assert not config.commands()


UNCOMMENTED = "\n".join(
    line[2:] if line.startswith("# ") and (" = " in line or line[2] == "[") else line for line in TEMPLATE.split("\n")
)


def test_the_template_shows_the_true_defaults() -> None:
    """Taking away the comment signs of the template changes nothing either."""
    assert parse(UNCOMMENTED) == parse(TEMPLATE)


def test_the_template_shows_every_key() -> None:
    """With its default; an actor of one's own has none, and is pointed to."""
    shown = tomllib.loads(UNCOMMENTED)
    assert {name: set(shown[name]) for name in SECTIONS} == {name: set(keys) for name, keys in SECTIONS.items()}
    planning = shown["phases"]["planning"]
    assert set(planning) == PHASE.keys() - {"actor"} | PHASE_TABLES.keys()
    assert planning["restart"] == {}, "what [restart] says"
    limits = TEMPLATE.partition("# [phases.planning.restart]")[2].partition("\n\n")[0]
    assert set(re.findall(r"\w+", limits)) > PHASE_TABLES["restart"].keys()
    assert {name: check(planning["probe"][name]) for name, check in PHASE_TABLES["probe"].items()} == asdict(
        ProbeConfig()
    )
    assert "`actor`" in TEMPLATE
    for name, keys in SECTIONS.items():
        for key, check in keys.items():
            default = getattr(getattr(Config(), name), key)
            assert check(shown[name][key]) == default or (name, key) == ("ipc", "rollout"), (name, key)
    for key in PHASE.keys() - {"actor"}:
        assert PHASE[key](shown["phases"]["planning"][key]) == getattr(PhaseConfig(key="planning"), key), key


def test_every_mistake_is_named_at_once_with_its_line() -> None:
    """One run of the program is enough to correct the whole file."""
    assert mistakes(WRONG) == [
        (1, "projct"),
        (5, "project.pyton"),
        (6, "project.hang"),
        (7, "project.test_timeout"),
        (14, "ipc.rollout"),
        (15, "ipc.fallback"),
        (18, "restart.first_delay"),
        (19, "restart.restarts"),
        (21, "phases.qaa"),
        (24, "phases.security"),
        (28, "phases.audit.actor"),
        (29, "phases.audit.prefix"),
        (31, "phases.user"),
        (35, "phases.qa.driver"),
        (36, "phases.qa.options"),
    ]


def test_a_mistake_says_what_was_meant() -> None:
    """A typing error is answered with the nearest known word."""
    with pytest.raises(ConfigError, match="did you mean python") as caught:
        parse(WRONG)
    text = str(caught.value)
    assert "did you mean project" in text
    assert "did you mean never" in text
    assert "did you mean qa" in text
    assert 'must be "builtin", not "command"' in text
    assert caught.value.exit == Exit.CONFIGURATION


def test_phases_that_wait_for_each_other_are_refused() -> None:
    """Each circle once, with the way round; and phases that are not there."""
    toml = """
[phases.planning]
after = ["qa", "nobody"]

[phases.qa]
after = "debugging"

[phases.debugging]
after = ["planning"]

[phases.developer]
after = ["qa", "developer"]
"""
    with pytest.raises(ConfigError) as caught:
        parse(toml)
    said = [(mistake.line, mistake.where, mistake.text) for mistake in caught.value.mistakes]
    assert said == [
        (3, "phases.planning.after", "there is no phase 'nobody'; there are: planning, developer, qa, debugging"),
        (3, "phases.planning.after", "waits for itself: planning → qa → debugging → planning"),
        (12, "phases.developer.after", "waits for itself: developer → developer"),
    ]
    assert parse('[phases.qa]\nafter = ["planning"]').phases["qa"].after == ("planning",)


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb = [", 2), ("[project\n", 1), ("x = 1\nx = 2\n", 2), ("\x00", 1)])
def test_what_is_no_toml_is_one_mistake_with_its_line(text: str, line: int) -> None:
    """A file that cannot be read as TOML is refused at the place where it ends to be one."""
    assert [found for found, _ in mistakes(text)] == [line]


@pytest.mark.parametrize("text", ["project = 3", "phases = 3", "phases.qa = 3", "ipc = []", "[[restart]]"])
def test_a_value_where_a_table_belongs_is_a_mistake(text: str) -> None:
    """Nothing of the wrong shape gets through, and nothing crashes."""
    assert len(mistakes(text)) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "true", "'1'", "[]", "1.0000001", "-0.1"])
def test_a_rollout_is_a_number_from_0_to_1(value: str) -> None:
    """Whatever else TOML calls a number is refused."""
    assert mistakes(f"[ipc]\nrollout = {value}") == [(2, "ipc.rollout")]


def test_a_phase_of_the_users_own_joins_the_topology() -> None:
    """Its documents follow from its key; its actor must be agreed to."""
    config = parse('[phases.security]\nactor = "my_pkg.security:SecurityActor"\ninterval = 60\n')
    assert [phase.key for phase in config.topology.phases] == [*(p.key for p in DEFAULT.phases), "security"]
    assert config.topology.read_document("security").file == "SECURITY_READ.md"
    assert config.topology.phase("security").title == "Security"
    assert config.phases["security"].interval == 60.0
    assert config.commands() == ("phases.security.actor = my_pkg.security:SecurityActor",)


def test_a_phase_may_be_read_by_one_that_comes_later() -> None:
    """Its readers are looked at once all phases are known."""
    more = '[phases.audit]\nactor = "a:B"\nreaders = ["qa", "review"]\n[phases.review]\nactor = "a:B"\n'
    assert parse(more).topology.phase("audit").readers == ("qa", "review")


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ('[phases.audit]\nactor = "a:B"\ntitle = "qa"\n', "phases.audit.title"),
        ('[phases.audit]\nactor = "a:B"\ntitle = "User"\n', "phases.audit.title"),
        ('[phases.audit]\nactor = "a:B"\n[phases.review]\nactor = "a:B"\ntitle = "Audit"\n', "phases.review.title"),
        ('[phases.audit]\nactor = "a:B"\nprefix = "DEBUG"\n', "phases.audit.prefix"),
        ('[phases.supervisor]\nactor = "a:B"\n', "phases.supervisor"),
        ('[phases.audit]\nactor = "a:B"\nreaders = ["qa", "auditor"]\n', "phases.audit.readers"),
        ('[phases.audit]\nactor = "a:B"\nreaders = ["audit"]\n', "phases.audit.readers"),
        ('[phases.qa]\nreaders = ["planning"]\n', "phases.qa.readers"),
    ],
)
def test_phases_that_could_be_taken_for_each_other_are_refused(table: str, where: str) -> None:
    """A title or a document's name says who it was in every document: no two share one, and nobody is the user."""
    assert [name for _, name in mistakes(table)] == [where]


def test_what_an_exit_means_is_each_phase_s_own() -> None:
    """Permanence, final exit codes and limits; what is left out is the crew's."""
    toml = """
[phases.qa]
permanence = "transient"
final_exit_codes = [64, 78]

[phases.qa.restart]
restarts = 2
"""
    phase = parse(toml).phases["qa"]
    assert (phase.permanence, phase.final_exit_codes) == ("transient", (64, 78))
    assert phase.restart == PhaseRestartConfig(restarts=2)
    assert parse("").phases["qa"] == PhaseConfig(key="qa")


def test_a_probe_is_a_command_to_agree_to() -> None:
    """Like every command that the file names."""
    config = parse('[phases.qa.probe]\ncommand = ["curl", "-f", "http://127.0.0.1:9"]\non_failure = "warn"\n')
    assert config.phases["qa"].probe == ProbeConfig(command=("curl", "-f", "http://127.0.0.1:9"), on_failure="warn")
    assert parse('[phases.qa.probe]\ncommand = "x"\nevery = 2\n').phases["qa"].probe.timeout == 2.0
    assert config.commands() == ("phases.qa.probe.command = curl -f http://127.0.0.1:9",)


@pytest.mark.parametrize(
    ("text", "line", "where", "why"),
    [
        ('[phases.qa]\npermanence = "eternal"', 2, "phases.qa.permanence", '"permanent" or "transient" or "temporary"'),
        ("[phases.qa]\nfinal_exit_codes = [0]", 2, "phases.qa.final_exit_codes", "from 1 to 255"),
        ('[phases.qa]\nfinal_exit_codes = ["SIGTERM"]', 2, "phases.qa.final_exit_codes", "from 1 to 255"),
        ("[phases.qa]\nrestart = 3", 2, "phases.qa.restart", "must be a table"),
        ("[phases.qa.restart]\ndeaths = 3", 2, "phases.qa.restart.deaths", "is not known here"),
        ('[phases.qa.restart]\nstrategy = "one_for_all"', 2, "phases.qa.restart.strategy", "is not known here"),
        ("[phases.qa.restart]\nfirst_delay = 99", 2, "phases.qa.restart.first_delay", "the longest 30 s"),
        ("[phases.qa.restart]\nfirst_delay = 0", 2, "phases.qa.restart.first_delay", "greater than 0"),
        (
            "[restart]\nfirst_delay = 9\n[phases.qa.restart]\nlongest_delay = 5",
            4,
            "phases.qa.restart.longest_delay",
            "the first delay would be 9 s and the longest 5 s",
        ),
        (
            '[phases.qa]\npermanence = "temporary"\nfinal_exit_codes = [3]',
            3,
            "phases.qa.final_exit_codes",
            "a temporary phase is never started again",
        ),
        (
            '[phases.qa]\npermanence = "temporary"\n[phases.qa.restart]\nrestarts = 3',
            3,
            "phases.qa.restart",
            "a temporary phase is never started again",
        ),
        ("[phases.qa.probe]\nevery = 3", 1, "phases.qa.probe", "needs command"),
        (
            '[phases.qa.probe]\ncommand = ["x"]\nevery = 3\ntimeout = 4',
            4,
            "phases.qa.probe.timeout",
            "longer than every (3 s)",
        ),
        ('[phases.qa.probe]\ncommand = ["x"]\nfailures = 0', 3, "phases.qa.probe.failures", "from 1 to 1000"),
        ('[phases.qa.probe]\ncommand = ["x"]\non_failure = "stop"', 3, "phases.qa.probe.on_failure", "restart"),
    ],
)
def test_what_makes_no_sense_for_a_phase_is_refused(text: str, line: int, where: str, why: str) -> None:
    """With its line, its key, and what it may be."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    (mistake,) = caught.value.mistakes
    assert (mistake.where, why in mistake.text) == (where, True), mistake
    assert mistake.line == line


def test_an_interpreter_of_the_files_own_must_be_agreed_to() -> None:
    """`project.python` would be run, so it counts as a command."""
    assert parse('[project]\npython = "bin/python"').commands() == ("project.python = bin/python",)


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    """Editors on Windows write both."""
    assert parse("\ufeff" + TEMPLATE.replace("\n", "\r\n")) == parse(TEMPLATE)
    assert mistakes("\ufeff[ipc]\r\nrollout = 3\r\n") == [(2, "ipc.rollout")]


def test_control_characters_in_a_mistake_stay_off_the_terminal() -> None:
    """What a file says is shown harmlessly."""
    with pytest.raises(ConfigError) as caught:
        parse('[ipc]\nfallback = "\\u001b[2J"')
    assert "\x1b" not in str(caught.value)


keys = st.text(string.ascii_lowercase + "_.", min_size=1, max_size=12)
values = st.sampled_from(["1", "-1", "0.5", "true", '"x"', "[]", "{}", '["a", 1]', "1979-05-27", '"""\n[x]\n"""'])
lines = st.one_of(
    st.tuples(keys, values).map(" = ".join),
    keys.map("[{}]".format),
    st.sampled_from(
        [
            "[phases.qa]",
            "[project]",
            "[ipc]",
            "[restart]",
            "[phases.qa.probe]",
            "phases.qa.restart.x = 1",
            "# [ipc]",
            "",
        ]
    ),
    st.text(max_size=20),
)


@given(st.lists(lines, max_size=8).map("\n".join))
def test_any_text_is_a_config_or_a_list_of_mistakes(text: str) -> None:
    """No file, however odd, makes anything but those two, and each mistake's line exists."""
    found: tuple[Mistake, ...] = ()
    try:
        config = parse(text)
    except ConfigError as error:
        found = error.mistakes
    else:
        assert [phase.key for phase in config.topology.phases] == list(config.phases)
        return
    assert found
    assert all(0 <= mistake.line <= text.count("\n") + 1 for mistake in found)
