"""Writes a Windows DLL that holds no code: each name it exports is forwarded to a function of another DLL.

Wine 8 lacks `bcryptprimitives.dll`, of which programs written in Rust (pydantic, ruff, watchfiles) want one function,
`ProcessPrng(buffer, length)`: random bytes. `advapi32.SystemFunction036` is the same under an older name.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_ALIGNED, _PAGE = 0x200, 0x1000  # in the file, in memory
_BASE = 0x180000000


def forwarding_dll(name: str, forwards: Mapping[str, str]) -> bytes:
    """The bytes of `name`, a DLL for x86-64; `forwards` is {exported name: "dll.function"}."""
    exports = _exports(name, dict(sorted(forwards.items())), at=_PAGE)
    padded = exports.ljust(-(-len(exports) // _ALIGNED) * _ALIGNED, b"\0")
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)  # x86-64, one section, executable DLL
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        *(0x20B, 14, 0, 0, len(padded), 0, 0, _PAGE),  # PE32+; no code and no entry point
        *(_BASE, _PAGE, _ALIGNED),
        *(6, 0, 0, 0, 6, 0, 0),  # versions
        *(2 * _PAGE, _ALIGNED, 0),  # size of image and of headers
        *(3, 0x100),  # console, NX
        *(0x100000, 0x1000, 0x100000, 0x1000, 0, 16),
    )
    directories = struct.pack("<II", _PAGE, len(exports)).ljust(16 * 8, b"\0")
    section = struct.pack("<8sIIIIIIHHI", b".edata", len(exports), _PAGE, len(padded), _ALIGNED, 0, 0, 0, 0, 0x40000040)
    head = dos + b"PE\0\0" + coff + optional + directories + section
    return head.ljust(_ALIGNED, b"\0") + padded


def _exports(name: str, forwards: Mapping[str, str], *, at: int) -> bytes:
    """The export directory at address `at`: its header, three tables, and then every string."""
    count = len(forwards)
    functions = 40
    names = functions + 4 * count
    ordinals = names + 4 * count
    strings = ordinals + 2 * count
    text = bytearray()

    def place(string: str) -> int:
        address = at + strings + len(text)
        text.extend(string.encode("ascii") + b"\0")
        return address

    called = place(name)
    exported = [place(export) for export in forwards]
    targets = [place(target) for target in forwards.values()]  # an address within the directory means a forwarder
    header = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, called, 1, count, count, at + functions, at + names, at + ordinals)
    tables = struct.pack(f"<{count}I{count}I{count}H", *targets, *exported, *range(count))
    return header + tables + bytes(text)
