"""A pytest plugin that writes what happens, as it happens, to a file: one JSON object per line.

It is copied out and runs in the project's own interpreter, so it needs nothing but the standard library, Python 3.8 and
pytest 6, and imports nothing of ours. What the lines mean for the run as a whole is judged by `checks`.
"""

from __future__ import annotations

import json
import linecache
import os
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_MOST_TEXT = 16000
_MOST_FRAMES = 60
_MOST_LOCALS = 12
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Reporter:
    """Appends lines to the file; a thread of its own says where a test is stuck."""

    def __init__(self, path: str, root: str, hang: float, skip: set[str], packages: list[str]) -> None:
        self.root = os.path.realpath(root)
        self.hang = hang
        self.skip = skip
        self.packages = packages
        self.lock = threading.Lock()
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self.main = threading.get_ident()
        self.current: tuple[str, float] | None = None  # what runs, since when; replaced as a whole
        self.pending: dict[str, Any] = {}  # why a module could not be collected
        self.never = threading.Event()
        self.owner = os.getpid()
        threading.Thread(target=self._watch, name="phase-reporter", daemon=True).start()

    def say(self, kind: str, **fields: Any) -> None:
        if os.getpid() != self.owner:
            return  # a test forked, and the child runs our hooks too
        fields["t"] = kind
        data = json.dumps(fields).encode("ascii") + b"\n"
        with self.lock:
            while data:
                data = data[os.write(self.file, data) :]

    def begin(self, what: str) -> None:
        self.current = (what, time.monotonic())

    def end(self) -> None:
        self.current = None

    def _watch(self) -> None:
        told = None
        while not self.never.wait(min(1.0, self.hang / 4)):
            current = self.current
            if current is None or current is told or time.monotonic() - current[1] < self.hang:
                continue
            told = current
            frame = sys._current_frames().get(self.main)  # noqa: SLF001 - documented, and the only way
            frames: list[dict[str, Any]] = []
            while frame is not None and len(frames) < _MOST_FRAMES:
                frames.append(self.frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
                frame = frame.f_back
            frames.reverse()
            while len(frames) > 1 and not frames[0]["inside"] and any(one["inside"] for one in frames):
                del frames[0]
            self.say("stuck", id=current[0], frames=frames)

    def frame(self, path: str, line: int, name: str, local: dict[str, str] | None = None) -> dict[str, Any]:
        full = os.path.realpath(path)
        made = path.startswith("<")  # "<frozen importlib._bootstrap>", "<string>": no file at all
        inside = not made and full.startswith(self.root + os.sep)
        shown = path if made else os.path.relpath(full, self.root).replace(os.sep, "/") if inside else full
        source = linecache.getline(path, line).strip()
        return {
            "file": shown,
            "line": line,
            "function": name,
            "source": source[:500],
            "inside": inside and "/site-packages/" not in "/" + shown,
            "locals": local or {},
        }

    def failure(self, excinfo: Any) -> dict[str, Any]:
        frames = []
        entries = list(excinfo.traceback)
        for entry in entries[:10] + entries[10:][-_MOST_FRAMES:]:
            local: dict[str, str] = {}
            if os.path.realpath(str(entry.path)).startswith(self.root + os.sep):
                for name, it in list(entry.frame.f_locals.items()):
                    if type(it) in _PLAIN and not name.startswith("@") and len(local) < _MOST_LOCALS:
                        local[name] = _cut(repr(it), 120)
            frames.append(self.frame(str(entry.path), entry.lineno + 1, entry.frame.code.raw.co_name, local))
        value: BaseException | None = excinfo.value
        causes: list[dict[str, str]] = []
        while value is not None and len(causes) < 5:
            after = value.__cause__ or (None if value.__suppress_context__ else value.__context__)
            if after is not None:
                causes.append({"exception": type(after).__name__, "message": _message(after)})
            value = after
        syntax = {}
        if isinstance(excinfo.value, SyntaxError) and excinfo.value.filename:
            wrong = excinfo.value
            syntax = self.frame(str(wrong.filename), wrong.lineno or 0, "")
        while len(frames) > 1 and not frames[0]["inside"] and any(frame["inside"] for frame in frames):
            del frames[0]  # pytest's own way to the test
        name, message = excinfo.type.__name__, _message(excinfo.value)
        doctest = _doctest(excinfo.value)
        if doctest is not None:
            path, line, where, message = doctest
            name, frames = "DocTestFailure", [self.frame(path, line, where)]
        return {
            "syntax": syntax,
            "exception": name,
            "message": message,
            "frames": frames,
            "causes": causes,
        }

    # -- pytest's hooks

    def pytest_collectstart(self, collector: Any) -> None:
        if isinstance(collector, pytest.Module):
            self.say("collecting", id=collector.nodeid)
            self.begin(collector.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        self.end()
        if report.failed:
            error = self.pending.pop(report.nodeid, None) or {}
            self.say("collect_error", id=report.nodeid, text=_cut(str(report.longrepr), _MOST_TEXT), **error)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Generator[None, Any, None]:
        outcome = yield
        report = outcome.get_result()
        call = getattr(report, "call", None)
        excinfo = getattr(call, "excinfo", None)
        if report.failed and excinfo is not None:
            value = excinfo.value
            cause = value.__cause__  # pytest wraps what the import raised
            if cause is not None and cause.__traceback__ is not None:
                excinfo = pytest.ExceptionInfo.from_exc_info((type(cause), cause, cause.__traceback__))
            self.pending[collector.nodeid] = {"failure": self.failure(excinfo)}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        if self.skip:
            gone = [item for item in items if item.nodeid in self.skip]
            items[:] = [item for item in items if item.nodeid not in self.skip]
            config.hook.pytest_deselected(items=gone)

    def pytest_collection_finish(self, session: Any) -> None:
        self.end()
        self.say("collected", n=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self.say("begin", id=nodeid, file=str(location[0]).replace(os.sep, "/"), line=(location[1] or 0) + 1)
        self.begin(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:  # noqa: ARG002 - pytest's signature
        self.end()
        self.say("finish", id=nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:  # noqa: ARG002 - pytest's signature
        outcome = yield
        report = outcome.get_result()
        fields = {
            "id": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "seconds": report.duration,
            "xfail": hasattr(report, "wasxfail"),
        }
        if report.failed:
            if call.excinfo is not None:
                fields["failure"] = self.failure(call.excinfo)
            fields["text"] = _cut(str(report.longrepr), _MOST_TEXT)
            fields["output"] = _cut("\n".join(f"-- {name}\n{text}" for name, text in report.sections), 4000)
        self.say("report", **fields)

    def pytest_internalerror(self, excrepr: Any) -> None:
        self.say("internal", text=_cut(str(excrepr), _MOST_TEXT))

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        self.end()
        elsewhere = {}
        for name in self.packages:
            module = sys.modules.get(name)
            file = getattr(module, "__file__", None)
            if file and not os.path.realpath(file).startswith(self.root + os.sep):
                elsewhere[name] = file
        self.say("end", status=int(exitstatus), elsewhere=elsewhere)
        if "hypothesis" not in sys.modules:  # its summary would import all of it, to say nothing: a second a run
            plugins = session.config.pluginmanager
            if plugins.has_plugin("hypothesispytest"):
                plugins.unregister(name="hypothesispytest")


def _doctest(value: object) -> tuple[str, int, str, str] | None:
    """File, line, name and difference of a doctest's (first) failure; None for anything else."""
    first = (getattr(value, "failures", None) or [value])[0]
    test, example, got = (getattr(first, name, None) for name in ("test", "example", "got"))
    if test is None or example is None or got is None or not getattr(test, "filename", None):
        return None
    line = (test.lineno or 0) + example.lineno + 1
    gave, wanted = _cut(got.strip(), 300) or "nothing", _cut(example.want.strip(), 300) or "nothing"
    return test.filename, line, test.name, f"`{_cut(example.source.strip(), 300)}` gave {gave}, wanted {wanted}"


def _message(value: object) -> str:
    try:
        return _cut(str(value), 4000)
    except Exception as error:  # noqa: BLE001 - a __str__ of somebody's that fails
        return f"({type(value).__name__} whose text cannot be made: {type(error).__name__})"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return text[: most // 4] + "\n… cut …\n" + text[-(most - most // 4) :]


def pytest_configure(config: Any) -> None:
    """Begin to report, if the environment names a file to report to."""
    path = os.environ.get("PHASE_REPORT_FILE")
    if not path or hasattr(config, "workerinput"):
        return
    skip = set()
    if os.environ.get("PHASE_REPORT_SKIP"):
        skip = set(json.loads(Path(os.environ["PHASE_REPORT_SKIP"]).read_text(encoding="utf-8")))
    packages = [name for name in os.environ.get("PHASE_REPORT_PACKAGES", "").split(",") if name]
    hang = float(os.environ.get("PHASE_REPORT_HANG", "60"))
    reporter = Reporter(path, os.environ["PHASE_REPORT_ROOT"], hang, skip, packages)
    reporter.say("start", pytest=pytest.__version__, python=sys.version.split()[0])
    config.pluginmanager.register(reporter, "phase-reporter")
