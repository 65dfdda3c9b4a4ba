"""Windows services: a thin host for one crew, and the service control manager as seen by the command line.

The host does nothing itself. It starts `supervisor run` with the same Python in a job that ends with it, reports the
service as running once the crew's control API answers (or after a while without one), and passes STOP, PRESHUTDOWN and
SHUTDOWN on as a `stop` through that API, with rising checkpoints until the crew has gone. Needs pywin32, and an
administrator to install.
"""

from __future__ import annotations

import sys

assert sys.platform == "win32"

import argparse
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from ipc import job_object
from ipc.process import python_command
from supervisor.control.client import find_running
from supervisor.exits import Exit, UsageError, UserError
from supervisor.workspace import Workspace, find

from .definition import START_WITHIN, STOP_WITHIN, Service
from .hosting import (
    ACCEPTED,
    STALL,
    Course,
    Ended,
    Reported,
    after_refusal,
    ended,
    image_path,
    is_end,
    is_there,
    recovery,
)
from .installed import ServiceError, State, Status

try:
    import pywintypes
    import servicemanager
    import win32service
    import win32serviceutil
except ImportError as error:
    raise ServiceError("Windows services need the package pywin32: pip install pywin32") from error

STEP = 0.25  # seconds between two looks
UNASKED = "the crew has opened no control API: it runs, and at a stop it will be ended without being asked"
BREAKAWAY_FREE = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP | 0x4  # 0x4: suspended
FAILED = 1066  # ERROR_SERVICE_SPECIFIC_ERROR: the code beside it is ours
NO_SUCH_SERVICE, ALREADY_RUNNING, MARKED, EXISTS, DENIED = 1060, 1056, 1072, 1073, 5

STATES: dict[int, State] = {
    win32service.SERVICE_STOPPED: "stopped",
    win32service.SERVICE_START_PENDING: "starting",
    win32service.SERVICE_STOP_PENDING: "stopping",
    win32service.SERVICE_RUNNING: "running",
}


class Host(win32serviceutil.ServiceFramework):  # type: ignore[misc]  # pywin32 has no types
    """One service's process, as the service control manager sees it."""

    _svc_name_ = ""  # set before the dispatcher makes the one object
    workspace: Workspace
    command: tuple[str, ...]

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments)
        self._stop = threading.Event()
        self._state = win32service.SERVICE_START_PENDING

    def GetAcceptedControls(self) -> int:  # noqa: N802 - pywin32's name
        return ACCEPTED

    def SvcStop(self) -> None:  # noqa: N802
        self._report(win32service.SERVICE_STOP_PENDING)
        self._stop.set()

    def SvcShutdown(self) -> None:  # noqa: N802
        self.SvcStop()

    def SvcOtherEx(self, control: int, _event: int, _data: Any) -> None:  # noqa: N802
        if is_end(control):
            self.SvcStop()

    def SvcInterrogate(self) -> None:  # noqa: N802
        self._report(self._state)

    def SvcRun(self) -> None:  # noqa: N802
        """Called by pywin32 in the service's main thread; the service is over when this returns."""
        self._report(win32service.SERVICE_START_PENDING)
        end = self._host()
        if end.why:
            servicemanager.LogErrorMsg(f"{self._svc_name_}: {end.why}")
        self.ReportServiceStatus(
            win32service.SERVICE_STOPPED,
            win32ExitCode=FAILED if end.is_error else 0,
            svcExitCode=end.code if end.is_error else 0,
        )

    def _report(self, state: int) -> None:
        """With a checkpoint that the framework makes a higher one each time: a sign of life."""
        self._state = state
        self.ReportServiceStatus(state, waitHint=int(STALL * 1000))

    def _host(self) -> Ended:
        """Run the crew to its end."""
        file = self.workspace.logs / "service.log"
        with file.open("ab") as log:
            job = job_object.JobObject()
            try:
                child = _start(self.command, self.workspace, log.fileno(), job)
                code = self._follow(child, job)
            finally:
                job.close()
        return ended(code, asked=self._stop.is_set(), log=file)

    def _follow(self, child: subprocess.Popen[bytes], job: job_object.JobObject) -> int | None:
        """Until the crew has ended, by itself or because we were told; None if it had to be ended."""
        course = Course.begun(time.monotonic())
        has_heard = False
        while child.poll() is None:
            answers = course.state is Reported.START_PENDING and find_running(self.workspace) is not None
            now = time.monotonic()
            before, course = course, course.next(now, answers=answers, asked=self._stop.is_set())
            if course is not before:
                self._report(course.state)
            if course.state is Reported.RUNNING and before.state is not course.state and not answers:
                servicemanager.LogWarningMsg(f"{self._svc_name_}: {UNASKED}; see {self.workspace.logs}")
            if course.is_overdue(now):
                job.terminate()
                child.wait()
                return None
            if course.state is Reported.STOP_PENDING:
                has_heard = has_heard or self._ask_to_stop()
                time.sleep(STEP)
            else:
                self._stop.wait(STEP)
        return child.returncode

    def _ask_to_stop(self) -> bool:
        """Whether the crew has heard; one that has only just begun to listen is asked again."""
        try:
            client = find_running(self.workspace)
            if client is None:
                return False
            client.command("stop")
        except UserError as error:
            servicemanager.LogWarningMsg(f"{self._svc_name_}: {error}")
            return False
        return True


def _start(
    command: Sequence[str], workspace: Workspace, log: int, job: job_object.JobObject
) -> subprocess.Popen[bytes]:
    """Start the crew inside the job: it does nothing before it is a member."""
    start, environ = python_command()
    child = subprocess.Popen(
        [*start, *command[1:]],
        cwd=workspace.root,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **environ},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        creationflags=BREAKAWAY_FREE,
    )
    handle = int(child._handle)  # type: ignore[attr-defined]  # noqa: SLF001 - the handle is what a job takes
    job.add(handle)
    job_object.resume(handle)
    return child


def main(arguments: Sequence[str]) -> NoReturn:
    """What the service control manager starts: `python -P -m supervisor.service.windows --name NAME WORKSPACE`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("workspace", type=Path)
    given = parser.parse_args(arguments)
    workspace = find(given.workspace)
    workspace.make_folders()
    for stream in ("stdout", "stderr"):  # a service has none
        if getattr(sys, stream) is None:
            setattr(sys, stream, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for our whole life
    Host._svc_name_ = given.name  # how pywin32 is told
    Host.workspace = workspace
    Host.command = Service(workspace=workspace.root, python=Path(sys.executable), name=given.name).command
    servicemanager.Initialize(given.name, sys.executable)
    servicemanager.PrepareToHostSingle(Host)
    servicemanager.StartServiceCtrlDispatcher()
    sys.exit(0)


class WindowsServices:
    """The service control manager, for the command line."""

    def install(self, service: Service) -> None:
        """Delayed automatic start, recovery by restarts, time enough to stop; the same Python as now.

        `UsageError` for a path that the manager would change.
        """
        start, environ = python_command()
        host = [*start, "-P", "-m", "supervisor.service.windows", "--name", service.name, str(service.workspace)]
        try:
            line = image_path(host)
        except ValueError as error:
            raise UsageError(str(error)) from error
        with _Scm(win32service.SC_MANAGER_ALL_ACCESS) as scm:
            try:
                handle = win32service.CreateService(
                    *(scm, service.name, service.description, win32service.SERVICE_ALL_ACCESS),
                    *(win32service.SERVICE_WIN32_OWN_PROCESS, win32service.SERVICE_AUTO_START),
                    *(win32service.SERVICE_ERROR_NORMAL, line),
                    *(None, 0, None, None, None),  # LocalSystem
                )
            except pywintypes.error as error:
                raise _said(error, service) from error
            try:
                self._configure(handle, service)
                _set_environment(service.name, {"PATH": service.path, **environ})
            except BaseException:
                win32service.DeleteService(handle)
                raise
            finally:
                win32service.CloseServiceHandle(handle)

    @staticmethod
    def _configure(handle: Any, service: Service) -> None:
        actions = [(win32service.SC_ACTION_RESTART, pause) for pause in recovery()]
        settings = (
            (win32service.SERVICE_CONFIG_DESCRIPTION, f"{service.description}: a crew of four on that repository"),
            (
                win32service.SERVICE_CONFIG_FAILURE_ACTIONS,
                {"ResetPeriod": 600, "RebootMsg": "", "Command": "", "Actions": actions},
            ),
            (win32service.SERVICE_CONFIG_FAILURE_ACTIONS_FLAG, True),  # an end with an error counts as a failure too
            (win32service.SERVICE_CONFIG_PRESHUTDOWN_INFO, (STOP_WITHIN + 15) * 1000),
            (win32service.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, True),
        )
        for what, value in settings:
            try:
                win32service.ChangeServiceConfig2(handle, what, value)
            except pywintypes.error as error:
                if error.winerror not in (50, 120, 124):  # not supported here: an old system, or Wine
                    raise _said(error, service) from error

    def uninstall(self, service: Service) -> None:
        """Stop it and take it away."""
        if self.status(service).state != "stopped":
            self.stop(service)
        with _Opened(service) as handle:
            win32service.DeleteService(handle)

    def start(self, service: Service) -> None:
        """Start it and wait until it runs."""
        with _Opened(service) as handle:
            try:
                win32service.StartService(handle, None)
            except pywintypes.error as error:
                if error.winerror != ALREADY_RUNNING:
                    raise _said(error, service) from error
        self._wait(service, "running", START_WITHIN)

    def stop(self, service: Service) -> None:
        """Stop it and wait until it has; one that is starting just now is asked once it listens."""
        until = time.monotonic() + START_WITHIN
        while not self._is_stopping(service, last=time.monotonic() >= until):
            time.sleep(STEP)
        self._wait(service, "stopped", STOP_WITHIN + 15)

    def _is_stopping(self, service: Service, *, last: bool) -> bool:
        """Ask it to stop; False if it is to be asked again, which the `last` time is its refusal."""
        with _Opened(service) as handle:
            try:
                win32service.ControlService(handle, win32service.SERVICE_CONTROL_STOP)
            except pywintypes.error as error:
                then = after_refusal(error.winerror, self.status(service).state)
                if then == "fail" or (then == "again" and last):
                    raise _said(error, service) from error
                return then == "wait"
        return True

    def status(self, service: Service) -> Status:
        """Its state, with the exit code of the last run where that was an error."""
        try:
            with _Opened(service) as handle:
                said = win32service.QueryServiceStatusEx(handle)
        except ServiceError as error:
            if error.exit == Exit.NONE_RUNNING:
                return Status("not installed")
            raise
        state = STATES.get(said["CurrentState"], "stopped")
        if state == "stopped" and said["Win32ExitCode"] == FAILED:
            return Status("failed", f"supervisor run ended with {said['ServiceSpecificExitCode']}")
        return Status(state, f"process {said['ProcessId']}" if said["ProcessId"] else "")

    def _wait(self, service: Service, wanted: Literal["running", "stopped"], within: float) -> None:
        until = time.monotonic() + within
        while not (is_so := is_there((found := self.status(service)).state, wanted)):
            if is_so is False:
                raise ServiceError(
                    f"{service.name} has not come up: {found.detail or 'it ended at once'}; see its logs"
                )
            if time.monotonic() >= until:
                raise ServiceError(f"{service.name} is {found.state} and not {wanted} after {within:g} s")
            time.sleep(STEP)


class _Scm:
    """A handle of the manager."""

    def __init__(self, access: int) -> None:
        self._access = access

    def __enter__(self) -> Any:
        try:
            self._handle = win32service.OpenSCManager(None, None, self._access)
        except pywintypes.error as error:
            raise _said(error, None) from error
        return self._handle

    def __exit__(self, *error: object) -> None:
        win32service.CloseServiceHandle(self._handle)


class _Opened:
    """A handle of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> Any:
        with _Scm(win32service.SC_MANAGER_CONNECT) as scm:
            try:
                self._handle = win32service.OpenService(scm, self._service.name, win32service.SERVICE_ALL_ACCESS)
            except pywintypes.error as error:
                raise _said(error, self._service) from error
        return self._handle

    def __exit__(self, *error: object) -> None:
        win32service.CloseServiceHandle(self._handle)


def _said(error: Any, service: Service | None) -> ServiceError:
    """The manager's refusal in words that say what to do."""
    name = service.name if service else "the service control manager"
    if error.winerror == NO_SUCH_SERVICE:
        return ServiceError(
            f"{name} is not installed; `supervisor service install` does that", exit_code=Exit.NONE_RUNNING
        )
    if error.winerror == EXISTS:
        return ServiceError(f"{name} is installed already; `supervisor service uninstall` takes it away")
    if error.winerror == MARKED:
        return ServiceError(f"{name} is being taken away; close what still shows it, such as the Services window")
    if error.winerror == DENIED:
        return ServiceError(f"{name}: access is denied; use a prompt that was opened as administrator")
    return ServiceError(f"{name}: {error.strerror} (error {error.winerror}, {error.funcname})")


def _set_environment(name: str, environ: dict[str, str]) -> None:
    """The service's own variables; a virtual environment's Python is the base one plus one of them."""
    import winreg

    path = rf"SYSTEM\CurrentControlSet\Services\{name}"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_SET_VALUE) as key:
        values = [f"{variable}={value}" for variable, value in environ.items() if value]
        winreg.SetValueEx(key, "Environment", 0, winreg.REG_MULTI_SZ, values)


if __name__ == "__main__":
    main(sys.argv[1:])
