import platform
import subprocess
import sys

import pytest

from ipc.memory import give_back

CODE = """
import gc, psutil
from ipc.memory import give_back
held = [bytes(4000) for _ in range(20_000)]
ring = []
ring.append((ring, held))
last = bytes(4000)
full = psutil.Process().memory_info().rss
del held, ring
kept = psutil.Process().memory_info().rss
give_back()
print(full - kept, kept - psutil.Process().memory_info().rss, len(last))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps what is free")
def test_what_is_free_goes_back_to_the_system() -> None:
    """Garbage too; what lies below something that is in use stays ours without it."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    by_itself, given_back, _ = map(int, run.stdout.split())
    assert by_itself < 10_000_000
    assert given_back > 60_000_000


def test_it_is_harmless_everywhere() -> None:
    """Where the C library has no such call, garbage is collected, and that is all."""
    give_back()
    give_back()
