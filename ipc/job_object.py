"""A Windows Job Object that ends everything in it when its last handle is closed: the tree of one process.

Only the five calls that this takes, through ctypes. Which process gets one, and when it is ended, is `ipc.process`.
"""

from __future__ import annotations

import sys
import threading

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _KILL_ON_JOB_CLOSE = 0x2000
    _BASIC_PROCESS_ID_LIST = 3
    _EXTENDED_LIMIT_INFORMATION = 9
    _MORE_DATA = 234

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
    _kernel.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    _kernel.QueryInformationJobObject.argtypes = (
        wintypes.HANDLE,
        ctypes.c_int,
        ctypes.c_void_p,
        wintypes.DWORD,
        ctypes.c_void_p,
    )
    _kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    _kernel.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
    _kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    _ntdll = ctypes.WinDLL("ntdll")
    _ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)

    class JobObject:
        """Owns the one handle, which is not inheritable: when this process dies, however, so does the job.

        Nobody is in a job that was closed; any thread may ask, also while another closes it.
        """

        def __init__(self) -> None:
            self._lock = threading.RLock()
            self._handle = _kernel.CreateJobObjectW(None, None)
            if not self._handle:
                raise ctypes.WinError(ctypes.get_last_error())
            limits = _ExtendedLimits()
            limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
            if not _kernel.SetInformationJobObject(
                self._handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            ):
                error = ctypes.WinError(ctypes.get_last_error())
                self.close()
                raise error

        def add(self, process_handle: int) -> None:
            """Put a process, best a suspended one, into the job; what it starts later is in it too."""
            if not _kernel.AssignProcessToJobObject(self._handle, process_handle):
                raise ctypes.WinError(ctypes.get_last_error())

        def pids(self) -> list[int]:
            """The processes that are in the job now."""
            with self._lock:
                return self._pids() if self._handle else []

        def _pids(self) -> list[int]:
            room = 64
            while True:

                class List(ctypes.Structure):
                    _fields_ = (
                        ("assigned", wintypes.DWORD),
                        ("listed", wintypes.DWORD),
                        ("ids", ctypes.c_size_t * room),
                    )

                found = List()
                if _kernel.QueryInformationJobObject(
                    self._handle, _BASIC_PROCESS_ID_LIST, ctypes.byref(found), ctypes.sizeof(found), None
                ):
                    return list(found.ids[: found.listed])
                if ctypes.get_last_error() != _MORE_DATA:
                    raise ctypes.WinError(ctypes.get_last_error())
                room *= 4

        def terminate(self) -> None:
            """End every process of the job."""
            with self._lock:
                if self._handle and not _kernel.TerminateJobObject(self._handle, 1):
                    raise ctypes.WinError(ctypes.get_last_error())

        def close(self) -> None:
            """Give up the handle, and with it every process of the job."""
            with self._lock:
                if self._handle:
                    _kernel.CloseHandle(self._handle)
                    self._handle = None

    def resume(process_handle: int) -> None:
        """Let a process run that was started suspended (`subprocess` keeps no handle of its first thread)."""
        status = _ntdll.NtResumeProcess(process_handle)
        if status != 0:
            raise OSError(f"a suspended process could not be resumed: NTSTATUS {status & 0xFFFFFFFF:#x}")
