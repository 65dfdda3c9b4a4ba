"""Whole runs on repositories that are not as one would wish: a finding or a clear message each, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pygit2
import pytest

from actors.trees import Trees
from docs_store.topology import DEFAULT
from supervisor.exits import Exit
from tests.e2e.conftest import Shop
from tests.systems import SIGKILL

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]


def check(shop: Shop) -> None:
    """What holds after every run: no traceback of ours, a history that verifies."""
    assert "Traceback" not in shop.output
    shop.say("docs", "verify")


def test_no_git_and_no_git_program(shop: Shop, tmp_path: Path) -> None:
    """A folder without git, on a machine without the program, is worked on like any other."""
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    without = Shop(shop.root, {**shop.environ, "PATH": str(tools)})
    assert not (shop.root / ".git").exists()
    assert without.run() == 0, shop.output
    assert "import json" not in shop.read("shop/cart.py")
    check(shop)


def test_the_users_git_stays_untouched(shop: Shop) -> None:
    """Index, branches, stash and objects of the user's repository are byte for byte as they were."""
    person = pygit2.Signature("A", "a@example.org")
    repository = pygit2.init_repository(shop.root)
    repository.index.add_all()
    repository.index.write()
    repository.create_commit("HEAD", person, person, "begin", repository.index.write_tree(), [])
    shop.write("shop/cart.py", "for = later\n")
    repository.stash(person, "for later")
    repository.free()
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")

    def state() -> dict[str, bytes]:
        folder = shop.root / ".git"
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = state()
    assert shop.run() == 0, shop.output
    assert state() == before
    assert "import json" not in shop.read("shop/cart.py")
    check(shop)


def test_no_tests(shop: Shop) -> None:
    """A project without tests is told so, and looked at all the same."""
    shutil.rmtree(shop.root / "tests")
    code = shop.run()
    assert code in (Exit.DONE, Exit.WORK_REMAINS)
    assert "no tests" in shop.read("crew/QA_WRITE.md")
    check(shop)


def test_no_python_at_all(shop: Shop) -> None:
    """A folder with no Python in it ends without an error of ours."""
    shutil.rmtree(shop.root / "tests")
    shutil.rmtree(shop.root / "shop")
    (shop.root / "pyproject.toml").unlink()
    shop.write("notes.txt", "Nothing to run here.\n")
    assert shop.run() in (Exit.DONE, Exit.WORK_REMAINS)
    assert "no Python file" in shop.read("crew/QA_WRITE.md")
    check(shop)


def test_tests_that_hang_and_tests_that_end_the_interpreter(shop: Shop) -> None:
    """Each is a finding with its name and line; the other tests still count."""
    shop.write("supervisor.toml", "[project]\nhang = 2.0\n")
    shop.write(
        "tests/test_bad.py",
        """
        import os
        import time


        def test_waits_for_ever():
            time.sleep(600)


        def test_ends_everything():
            os._exit(3)


        def test_is_fine():
            pass
        """,
    )
    assert shop.run() == Exit.WORK_REMAINS, shop.output
    said = shop.read("crew/QA_WRITE.md")
    assert "2 passed" in said
    assert "test_waits_for_ever hangs: stopped after 2 s" in said
    assert "test_ends_everything ends the interpreter: exit code 3" in said
    check(shop)


def test_files_that_cannot_be_read_as_python(shop: Shop) -> None:
    """A syntax error, a source that is not UTF-8, a NUL byte, a broken test: findings, and the rest goes on."""
    shop.write("shop/broken.py", "def half(:\n    pass\n")
    (shop.root / "shop/latin.py").write_bytes(b'NAME = "caf\xe9"\n')
    (shop.root / "shop/declared.py").write_bytes(b'# -*- coding: latin-1 -*-\nNAME = "caf\xe9"\n')
    (shop.root / "shop/nul.py").write_bytes(b"A = 1\0\n")
    shop.write("tests/test_broken.py", "from shop.broken import half\n\n\ndef test_half():\n    assert half\n")
    assert shop.run() == Exit.WORK_REMAINS, shop.output
    said = shop.read("crew/QA_WRITE.md") + shop.read("crew/PLANNING_READ.md")
    assert "shop/broken.py" in said
    assert "1 passed, 1 not importable" in said
    assert "shop/latin.py" in said
    assert (shop.root / "shop/latin.py").read_bytes() == b'NAME = "caf\xe9"\n'
    check(shop)


def test_a_configuration_file_of_the_project_that_is_damaged(shop: Shop) -> None:
    """A pyproject.toml that is no TOML is said to be so; nothing of ours fails over it."""
    shop.write("pyproject.toml", "[project\nname = shop\n")
    assert shop.run() in (Exit.DONE, Exit.WORK_REMAINS)
    assert "pyproject.toml" in shop.read("crew/QA_WRITE.md")
    check(shop)


def test_packages_named_like_ours(shop: Shop) -> None:
    """A repository's own packages called ipc, actors or supervisor are what its tests see; we see ours."""
    for name in ("ipc", "actors", "supervisor", "docs_store"):
        shop.write(f"{name}/__init__.py", f'"""Theirs."""\n\nWHOSE = "theirs: {name}"\n')
        shop.write(
            f"tests/test_{name}.py",
            f"import {name}\n\n\ndef test_whose():\n    assert {name}.WHOSE == 'theirs: {name}'\n",
        )
    outside = Shop(shop.root, shop.environ)
    # `python -m` puts the current folder first on the path, which is theirs: people have the console script.
    process = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "run", "--until-idle", "--plain"],
        cwd=outside.root,
        env=outside.environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "5 passed" in shop.read("crew/QA_WRITE.md")


# -- disks and permissions


def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own, where we may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, to mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filling(filler: Path) -> Iterator[None]:
    """Take up every byte that becomes free, until the end; then give all back."""
    enough = threading.Event()

    def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while not enough.wait(0.005):
                with suppress(OSError):  # full again
                    while True:
                        file.write(b"x" * 512)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "shop" / "crew", "size=1m")


@pytest.mark.only_on("linux", reason="a small file system is mounted")
def test_a_full_disk_is_an_alarm_and_work_goes_on_when_there_is_space(small_disk: Path, shop: Shop) -> None:
    """While the history cannot grow, work pauses with a clear alarm; nothing is lost, and it resumes by itself."""
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")

    with shop.watch() as run:
        run.until(lambda event: event["type"] == "phase_start" and event["phase"] == "qa")
        with filling(small_disk / "filler"):
            refused = run.until(lambda event: event["step"] == "trouble")
            assert re.search(r"\.history.*(No space left|bytes were written).*Make room", refused["detail"])
            assert run.process.poll() is None
        assert run.wait() == 0, run.told()
    assert run.deaths == []  # nobody died of it
    assert "import json" not in shop.read("shop/cart.py")
    shop.say("docs", "verify")


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "shop" / ".supervisor", "size=20m")


@pytest.mark.only_on("linux", reason="a small file system is mounted")
def test_a_full_disk_under_the_journal_and_the_trees(small_state: Path, shop: Shop) -> None:
    """Where neither events nor task trees find room the work waits, with one alarm; nothing is lost or there twice."""
    shop.write("shop/cart.py", "import json\n\n\ndef total(prices):\n    return sum(prices)\n")
    with shop.watch() as run:
        run.until(lambda event: event["type"] == "phase_start" and event["phase"] == "qa")
        with filling(small_state / "filler"):
            deadline = time.monotonic() + 60.0
            while "could not be written" not in said(shop):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.kill(run.pid("debugging"), SIGKILL)  # whose successor finds no room for its epoch either
            time.sleep(1.5)  # it tries once a second: an error there would end the run
            assert run.process.poll() is None
        assert run.wait() == 0, run.told()
    alarms = [event for event in run.events if event["step"] == "journal" and event["type"] == "phase_error"]
    assert len(alarms) <= 1
    assert set(run.deaths) == {"debugging"}
    assert "import json" not in shop.read("shop/cart.py")
    shop.say("docs", "verify")
    events = shop.events()
    assert len({(event["worker"], event["epoch"], event["seq"]) for event in events}) == len(events)


def said(shop: Shop) -> str:
    """What the supervisor said in its log, and on standard error where the log had no room."""
    logs = (shop.root / ".supervisor" / "logs").glob("supervisor*")
    texts = [
        path.read_text(encoding="utf-8", errors="replace")
        for path in (*logs, shop.root.parent / f"{shop.root.name}.err")
    ]
    return "".join(texts)


@pytest.fixture(params=["crew"])
def read_only(shop: Shop, request: pytest.FixtureRequest) -> Iterator[Callable[[bool], None]]:
    """Makes a folder (crew/) read-only, also for root: a bind mount that may not be written to."""
    if sys.platform != "linux" or os.geteuid() != 0:

        def by_mode(on: bool) -> None:  # noqa: FBT001
            (shop.root / request.param).chmod(0o500 if on else 0o700)

        yield by_mode
        by_mode(on=False)
        return
    crew = str(shop.root / request.param)
    bound = subprocess.run(["mount", "--bind", crew, crew], capture_output=True, text=True, check=False)
    if bound.returncode:
        pytest.skip(f"root may write anywhere, and no mount is allowed here: {bound.stderr.strip()}")

    def by_mount(on: bool) -> None:  # noqa: FBT001
        command = ["mount", "-o", f"remount,bind,{'ro' if on else 'rw'}", crew]
        deadline = time.monotonic() + 20.0
        while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            assert "busy" in done.stderr, done.stderr  # somebody writes just now
            assert time.monotonic() < deadline
            time.sleep(0.005)

    try:
        yield by_mount
    finally:
        subprocess.run(["umount", "-l", crew], check=True)


@pytest.mark.only_on("posix", reason="a folder's mode")
def test_a_folder_without_write_permission_is_refused_at_the_start(
    shop: Shop, read_only: Callable[[bool], None]
) -> None:
    """A crew/ that cannot be written to is a clear error, and the run after it was put right is fine."""
    read_only(True)
    assert shop.run() == Exit.CONFIGURATION
    assert "crew cannot be written to" in shop.output
    assert "Traceback" not in shop.output
    read_only(False)
    assert shop.run() == 0, shop.output
    check(shop)


@pytest.mark.only_on("posix", reason="a folder's mode")
@pytest.mark.parametrize("read_only", ["shop"], indirect=True)
def test_a_fix_that_cannot_be_delivered_is_put_to_the_user(shop: Shop, read_only: Callable[[bool], None]) -> None:
    """Sources that may not be written to are left as they are; the user is asked, nothing of ours fails."""
    source = "import json\n\n\ndef total(prices):\n    return sum(prices)\n"
    shop.write("shop/cart.py", source)
    read_only(True)
    assert shop.run() == Exit.WORK_REMAINS, shop.output
    (waiting,) = shop.ask("inbox")
    assert "shop/cart.py" in str(waiting)
    assert "ead-only" in str(waiting) or "ermission" in str(waiting)
    assert shop.read("shop/cart.py") == source
    check(shop)


@pytest.mark.only_on("posix", reason="a folder's mode")
def test_a_folder_that_becomes_read_only_is_an_alarm(shop: Shop, read_only: Callable[[bool], None]) -> None:
    """Work pauses with an alarm, and goes on when the folder can be written to again."""
    with shop.watch() as run:
        run.until(lambda event: event["type"] == "phase_start" and event["phase"] == "qa")
        read_only(True)
        run.until(lambda event: event["step"] in ("documents", "trouble") and "ead-only" in event["detail"])
        assert run.process.poll() is None
        read_only(False)
        assert run.wait() == 0, run.told()
    assert run.deaths == []
    shop.say("docs", "verify")


def test_a_huge_repository(shop: Shop) -> None:
    """10⁵ files: progress is shown, ignored folders are skipped, and the run ends."""
    shop.write(".gitignore", shop.read(".gitignore") + "/generated/\n")
    for top, count in (("data", 100), ("generated", 400)):
        for number in range(count):
            folder = shop.root / top / f"{number:03}"
            folder.mkdir(parents=True)
            for inner in range(1000 if top == "data" else 100):
                (folder / f"{inner:04}.txt").write_bytes(b"%d" % inner)
    with shop.watch() as run:
        first = run.until(lambda event: event["step"] == "snapshot" and event["type"] == "progress")
        assert "files" in first["detail"]
        counted = run.until(lambda event: event["step"] == "snapshot" and event["type"] == "log_entry")
        assert run.wait() == 0, run.told()
    count = int(counted["detail"].split()[2])
    assert 100_000 <= count < 100_100


def test_a_history_cut_behind_the_last_record_of_a_worker_is_noticed(shop: Shop) -> None:
    """Also what a worker put on record last is missed, though the supervisor has not written since."""
    assert shop.run() == 0, shop.output
    segment = max((shop.root / "crew" / ".history").glob("*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["by"] in {phase.key for phase in DEFAULT.phases}
    segment.write_bytes(b"".join(lines[:-1]))
    assert shop.run() != 0
    assert "wiped or cut" in shop.output


def test_a_damaged_shadow_repository_ends_the_run_with_words(shop: Shop) -> None:
    """What git cannot read is no error of ours: the run says so, ends, and leaves nothing running."""
    Trees.open(shop.root, shop.root / ".supervisor").snapshot("before")
    commit = (shop.root / ".supervisor/shadow.git/refs/heads/user").read_text().strip()
    damaged = shop.root / ".supervisor/shadow.git/objects" / commit[:2] / commit[2:]
    damaged.chmod(0o600)
    damaged.write_bytes(b"rubbish")
    assert shop.run() == 1
    assert "git could not do 'snapshot'" in shop.output
    assert "shadow.git is damaged" in shop.output
    assert "our fault" not in shop.output
    (shop.root / ".supervisor/shadow.git").rename(shop.root.parent / "away")
    assert shop.run() == 0, shop.output
