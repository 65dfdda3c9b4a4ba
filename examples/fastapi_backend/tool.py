"""A tool as its author would write it: three lines say how far it is, everything else it prints is log text."""

from __future__ import annotations

import sys
import time

from ipc import Emitter

emit = Emitter.from_env().emit
pages = int(sys.argv[1]) if len(sys.argv) > 1 else 7

emit("audit", "scanning", 0, f"{pages} pages")
for page in range(1, pages + 1):
    time.sleep(0.02)
    emit("audit", "reading", 100 * page // pages, f"page {page}")
    if page % 3 == 0:
        emit("audit", "problem", type="finding", detail=f"page {page} has no title", summary={"page": page})
print("read everything there was")
emit("audit", "done", 100, "audit complete", summary={"pages": pages, "findings": pages // 3})
