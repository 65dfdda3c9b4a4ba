"""Asks a process group on Windows to end by Ctrl-Break, as SIGTERM does elsewhere. When it is asked is `ipc.process`.

`os.kill` is not used for that: where the event cannot be sent (no console, as under `supervisor start`), CPython 3.11
goes on to TerminateProcess, and a process that was to be asked is ended (python/cpython#87128).
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _CTRL_BREAK = 1
    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.GenerateConsoleCtrlEvent.argtypes = (wintypes.DWORD, wintypes.DWORD)

    def send_break(group: int) -> None:
        """Ctrl-Break to a group of our console; OSError where that cannot be, and nothing has happened."""
        if not _kernel.GenerateConsoleCtrlEvent(_CTRL_BREAK, group):
            raise ctypes.WinError(ctypes.get_last_error())
