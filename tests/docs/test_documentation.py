"""Is the documentation true: links, commands, configuration, tables. Everything here reads the pages as they are."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import ipc
from actors import folders, glance
from docs_store import archive, replay
from docs_store.messages import KINDS
from docs_store.topology import DEFAULT, STRATEGIC
from ipc import control, frames, queue, spool
from ipc.events import WELL_KNOWN_TYPES
from supervisor import config, journal_reader, rollout, status, workspace
from supervisor.cli.main import app as typer_app
from supervisor.config import PHASE, SECTIONS, Config, IpcConfig, parse
from supervisor.control import endpoint
from supervisor.exits import Exit

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")],
    key=lambda page: page.as_posix(),
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
Command = Any  # typer's commands: newer releases bring a click of their own, older ones use click's
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its info string and its content."""

    info: str
    text: str


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path) -> list[Fence]:
    return [Fence(m[2].strip(), m[3]) for m in FENCE.finditer(page.read_text("utf-8"))]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on the usual hosts."""
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in HEADING.findall(prose(page))}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there, and a heading that it has."""
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_row_of_a_table_has_its_header(page: Path) -> None:
    """No blank line splits a table: what follows it would not be one."""
    tables = re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE)
    assert [t for t in tables if not re.match(r"\|.*\n\|[-:| ]+\|\n", t)] == []


def test_every_page_can_be_reached() -> None:
    """Each page under docs/ is linked from the README or from docs/README.md."""
    starts = [ROOT / "README.md", ROOT / "docs" / "README.md"]
    linked = {
        (start.parent / target.split("#")[0]).resolve() for start in starts for target in LINK.findall(prose(start))
    }
    lost = [
        named(page) for page in (ROOT / "docs").rglob("*.md") if page not in starts and page.resolve() not in linked
    ]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_toml_and_python_are_valid(page: Path) -> None:
    """Fenced TOML and Python parse."""
    for fence in fences(page):
        match fence.info.split(maxsplit=1)[:1]:
            case ["toml"]:
                tomllib.loads(fence.text)
            case ["python"]:
                ast.parse(textwrap.dedent(fence.text))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_is_imported_from_ipc_is_there(page: Path) -> None:
    """A name that a page's Python imports from `ipc` exists."""
    for fence in fences(page):
        if fence.info.split(maxsplit=1)[:1] != ["python"]:
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(fence.text))):
            if isinstance(node, ast.ImportFrom) and node.module == "ipc":
                assert [alias.name for alias in node.names if not hasattr(ipc, alias.name)] == []


@pytest.mark.parametrize("mode", ["queue", "stdout"])
def test_the_embedding_example_runs(mode: str, tmp_path: Path) -> None:
    """The tool and the backend of the page on ipc work as shown, by either transport."""
    for fence in fences(ROOT / "docs" / "how-to" / "embed-ipc.md"):
        if "file=" in fence.info:
            (tmp_path / fence.info.split("file=")[1]).write_text(fence.text, "utf-8")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    # Unbuffered, print() writes a line and its end apart, and a marker may come in between: that is the harder case.
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "backend.py"],
        cwd=tmp_path,
        env={**environ, "QUEUE_IPC_MODE": mode, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines].count("audit_complete") == 1
    assert any("scanning 10 reading the pages" in line for line in lines)
    assert any("done 100 no problems found" in line for line in lines)
    assert lines[-1] == "exit code 0 log ['anything else that is printed is log text']"


def test_the_document_store_s_example_runs(tmp_path: Path) -> None:
    """Ten lines are enough for a task, a cycle and its message, and the page's other topology holds."""
    page = ROOT / "docs" / "how-to" / "use-the-document-store.md"
    (shown,) = (fence.text for fence in fences(page) if "file=two_phases.py" in fence.info)
    (own,) = (fence.text for fence in fences(page) if "topology = Topology(" in fence.text)
    for script in (shown, own):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=18,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if script is shown:
            assert "- [ ] Priority: HIGH - Issue: it takes a list for a string (from QA) <!-- id:" in done.stdout


def test_the_actor_s_page_shows_the_example_as_it_is() -> None:
    """The class and its test are those of examples/security_actor, which the tests run; the class is short."""
    shown = {
        fence.info.split("file=")[1]: fence.text
        for fence in fences(ROOT / "docs" / "how-to" / "write-an-actor.md")
        if "file=" in fence.info
    }
    example = ROOT / "examples" / "security_actor"
    assert shown == {name: (example / name).read_text("utf-8") for name in ("security.py", "test_security.py")}
    assert len(shown["security.py"].split("class SecurityActor")[1].splitlines()) <= 20


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line) for each `supervisor …` in shell blocks and in inline code."""
    for page in PAGES:
        for fence in fences(page):
            if fence.info == "sh":
                for line in fence.text.splitlines():
                    if re.match(r"(\S*/)?supervisor\s", line):
                        yield named(page), re.sub(r"^(\S*/)?supervisor", "supervisor", line)
        for code in INLINE.findall(prose(page).replace("\n", " ")):
            if re.match(r"supervisor\s+(--)?[a-z]", code):
                yield named(page), code


COMMANDS = sorted(set(commands()))


@pytest.fixture(scope="module")
def app() -> Command:
    return typer.main.get_command(typer_app)


def is_group(command: Command) -> bool:
    return hasattr(command, "commands")


def mistakes(command: Command, words: list[str]) -> list[str]:
    """What the command line would refuse: unknown commands and options, too many or too few arguments."""
    words = list(words)
    while is_group(command):
        if not words or words[0].startswith("-"):
            break
        name = words.pop(0)
        if name not in command.commands:
            return [f"no command {name!r}; there are: {', '.join(sorted(command.commands))}"]
        command = command.commands[name]
    options = {o: p for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)}
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    wrong: list[str] = []
    given = 0
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if word.startswith("-"):
            known = options.get(name) or (options.get(word[:2]) if re.fullmatch(r"-([a-z])\1+", word) else None)
            if known is None and word != "--help":
                wrong.append(f"no option {name}")
            elif known is not None and not known.is_flag and not known.count and not value:
                if not words:
                    wrong.append(f"{name} needs a value")
                else:
                    words.pop(0)
        else:
            given += 1
    least = sum(p.nargs for p in arguments if p.required and p.nargs > 0)
    most = sum(p.nargs for p in arguments) if all(p.nargs > 0 for p in arguments) else 1 << 10
    if not least <= given <= most:
        wrong.append(f"{given} arguments, where {least} to {most} are taken")
    return wrong


def split(line: str) -> list[str]:
    """The words after `supervisor`; `[DIR]` counts as given, a comment does not."""
    words = shlex.split(line.replace("…", ""), comments=True)[1:]
    return [word.strip("[]") for word in words]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_exist(page: str, line: str, app: Command) -> None:
    """Every command that a page shows is one that the command line takes, with its options and arguments."""
    alone = "COMMAND" in line or (" " not in line.strip("`"))
    if alone:
        return
    in_running_text = not line.endswith(("-h", "--help"))
    wrong = mistakes(app, split(line))
    if in_running_text and re.fullmatch(r"supervisor [a-z]+( [a-z-]+)?", line):
        wrong = [text for text in wrong if "arguments, where" not in text]  # only named, not shown in full
    assert not wrong, f"{page}: {line}"


def test_every_command_is_in_the_reference(app: Command) -> None:
    """The reference names each command and each of its long options."""
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")
    missing = []
    for path, command in leaves(app, "supervisor"):
        if f"`{path}" not in page:
            missing.append(path)
        missing += [
            f"{path} {option}"
            for param in command.params
            if param.param_type_name == "option" and not param.hidden
            for option in param.opts[-1:]
            if option not in {"--help", "--json"} and option not in page
        ]
    assert not missing


def leaves(command: Command, path: str) -> Iterator[tuple[str, Command]]:
    if is_group(command):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from leaves(inner, f"{path} {name}")
    else:
        yield path, command


# --- tables -----------------------------------------------------------------------------------------------------------


def test_configuration_page_shows_the_defaults() -> None:
    """The block in the configuration page is valid, and is what holds without a file, but for init's rate."""
    (fence,) = [f for f in fences(ROOT / "docs" / "reference" / "configuration.md") if f.info == "toml"]
    assert parse(fence.text) == Config(ipc=IpcConfig(rollout=1.0))


def test_configuration_page_names_every_key() -> None:
    """Every key that supervisor.toml may have is in the block."""
    (fence,) = [f for f in fences(ROOT / "docs" / "reference" / "configuration.md") if f.info == "toml"]
    shown = tomllib.loads(fence.text)
    assert {name: set(keys) for name, keys in SECTIONS.items()} == {name: set(shown[name]) for name in SECTIONS}
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    assert [key for key in PHASE if key not in page] == []


@pytest.mark.parametrize("name", ["README.md", "docs/reference/exit-codes.md"])
def test_exit_codes_are_those_of_the_program(name: str) -> None:
    """The tables of exit codes have a row for each code that there is, and no other."""
    page = (ROOT / name).read_text("utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert rows == {int(code) for code in Exit}


def test_documents_page_names_all_documents_and_kinds() -> None:
    """Thirteen documents and all kinds of message."""
    page = (ROOT / "docs" / "reference" / "documents.md").read_text("utf-8")
    assert [d.file for d in DEFAULT.documents if f"`{d.file}`" not in page] == []
    assert [kind for kind in KINDS if f"`{kind}:`" not in page] == []
    assert len(DEFAULT.documents) == 13
    assert set(re.findall(r"^\| `([A-Z_]+)\.md` \|", page, re.MULTILINE)) == set(STRATEGIC)


def test_events_page_names_all_types() -> None:
    """Every well-known type of event."""
    page = (ROOT / "docs" / "reference" / "events.md").read_text("utf-8")
    assert [kind for kind in WELL_KNOWN_TYPES if f"`{kind}`" not in page] == []


def test_the_example_needs_nothing_that_is_not_there() -> None:
    """Every file that the example's expected outcome names is in the example, or is made by its TERTIARY_OBJECTIVES."""
    alerts = ROOT / "examples" / "alerts"
    made = (alerts / "crew" / "TERTIARY_OBJECTIVES.md").read_text("utf-8")
    expected = tomllib.loads((ROOT / "examples" / "alerts-expected.toml").read_text("utf-8"))
    names = [entry["file"] for entry in expected["lint"]]
    names += [name for entry in expected["delivered"] for name in entry["files"]]
    assert [name for name in names if not (alerts / name).exists() and f"file={name}" not in made] == []
    sections = re.findall(r"^## (.+)$", made, re.MULTILINE)
    assert [entry["section"] for entry in expected["delivered"] if entry["section"] not in sections] == []


def test_formats_page_has_the_numbers_of_the_code() -> None:
    """One row per format, with the number that the code writes; a new number without a line here fails."""
    page = (ROOT / "docs" / "reference" / "formats.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|`]+?) \| (\d+) \|", page, re.MULTILINE)
    assert dict(rows) == {
        "workspace": str(workspace.FORMATS["format"]),
        "spools": str(spool.FORMAT),
        "configuration": str(config.FORMAT),
        "history": str(replay.VERSION),
        "archive": str(archive.FORMAT),
        "journal": str(journal_reader.FORMAT),
        "rollout": str(rollout.FORMAT),
        "status": str(status.FORMAT),
        "control API": str(endpoint.FORMAT),
        "work trees' cache": str(folders.CACHE_VERSION),
        "last look at your files": str(glance.VERSION),
        "control pipe": str(control.VERSION),
        "frame of events": str(frames.VERSION),
        "queue key": str(queue.KEY_VERSION),
    }


NUMBERED = re.compile(r"^_?([A-Z]+_)?(FORMAT|VERSION) = \d", re.MULTILINE)


def test_no_format_is_without_a_row() -> None:
    """Every module that numbers a format is one of those that the page speaks of."""
    packages = ("ipc", "docs_store", "actors", "supervisor")
    found = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if NUMBERED.search(path.read_text("utf-8"))
    }
    modules = (
        workspace,
        spool,
        config,
        replay,
        archive,
        journal_reader,
        rollout,
        status,
        endpoint,
        folders,
        glance,
        control,
        frames,
    )
    assert found == {Path(str(module.__file__)).relative_to(ROOT).as_posix() for module in (*modules, queue)}


def test_tests_that_a_page_names_are_there() -> None:
    """Whoever reads which test shows something can find it."""
    named_tests = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text("utf-8"))}
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named_tests
    assert named_tests - there == set()
