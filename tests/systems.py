"""What differs between systems in tests of processes: how one is killed or held, and what its exit code then is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil

SIGKILL = 9  # Windows has no such name, but `os.kill(pid, 9)` there is TerminateProcess with 9 as the exit code
KILLED = 9 if sys.platform == "win32" else -9  # what ended by that
ENDED = 1 if sys.platform == "win32" else -9  # what we ended: by its job on Windows, by SIGKILL elsewhere
BY_KILL = "exited with code 9" if sys.platform == "win32" else "signal 9"
# For Popen: as in a terminal of its own. Ctrl-C is told to all that share a console, and this one has no window.
if sys.platform == "win32":
    OWN_CONSOLE: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW}
else:
    OWN_CONSOLE: dict[str, Any] = {"start_new_session": True}


def hold(pid: int) -> None:
    """Stop a process where it is: SIGSTOP; on Windows each of its threads is suspended, which is done on return."""
    process = psutil.Process(pid)
    process.suspend()
    while sys.platform != "win32" and process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)


def let_go(pid: int) -> None:
    psutil.Process(pid).resume()


def press_ctrl_c(pid: int) -> None:
    """SIGINT to the group that the process leads; on Windows Ctrl-C to the console that it has for itself."""
    if sys.platform != "win32":
        os.killpg(pid, signal.SIGINT)
        return
    code = (
        "import ctypes; k = ctypes.WinDLL('kernel32', use_last_error=True); k.FreeConsole()\n"
        f"for call in (lambda: k.AttachConsole({pid}), lambda: k.SetConsoleCtrlHandler(None, 1),\n"
        "             lambda: k.GenerateConsoleCtrlEvent(0, 0)):\n"
        "    if not call(): raise ctypes.WinError(ctypes.get_last_error())\n"
    )
    subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, check=True, timeout=60)
