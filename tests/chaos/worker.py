"""A worker for chaos: emits as it is told and keeps a witness, one byte on disk per `emit` that has returned.

Run as a script by `station.py`, with one JSON argument. The control pipe is its stdin, markers go to its stdout.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ipc import control
from ipc.emitter import Emitter
from ipc.spool import Spool, SpoolLock


def listen(emitter: Emitter) -> None:
    """Acks and redirects; the end of the pipe means that the supervisor is gone."""
    with os.fdopen(0, "rb", buffering=0) as stdin:
        for line in stdin:
            match control.decode_down(line):
                case control.Ack() as ack:
                    emitter.ack(ack)
                case control.Redirect(address=address, key=key):
                    emitter.redirect(address, key)
                case control.Switch(mode=mode, reason=reason):
                    emitter.switch(mode, reason)
                case _:
                    pass
    os._exit(7)


def main() -> None:
    """Emit `count` rounds, `pause` seconds apart; each is `progress` progress events and one critical event."""
    told = json.loads(sys.argv[1])
    folder = Path(told["folder"])
    worker, epoch = told["worker"], told["epoch"]
    lock = SpoolLock.take(folder)
    emitter = Emitter(
        worker=worker,
        epoch=epoch,
        nonce=told["nonce"],
        spool=Spool(folder, lock) if told["spool"] else None,
        address=told["address"],
        key=bytes.fromhex(told["key"]),
        marker_fd=1,
        mode=told["mode"],
    )
    if sys.platform != "win32":
        os.set_blocking(1, False)
    threading.Thread(target=listen, args=(emitter,), daemon=True).start()
    screenshot = random.Random(0).randbytes(told["screenshot"])
    witness = os.open(told["witness"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    longest = 0.0
    for i in range(told["count"]):
        for n in range(told["progress"]):
            began = time.perf_counter()
            emitter.emit(worker, f"step {n % 3}", detail=str(i))
            longest = max(longest, time.perf_counter() - began)
            os.write(witness, b"p")
        began = time.perf_counter()
        data = screenshot if screenshot and not i % 10 else None
        emitter.emit(worker, "x", detail=str(i), type="screenshot" if data else "finding", data=data)
        longest = max(longest, time.perf_counter() - began)
        os.write(witness, b"c")
        if told["pause"]:
            time.sleep(told["pause"])
    print(json.dumps({"worker": worker, "epoch": epoch, "emitted": longest}), file=sys.stderr, flush=True)
    drained = emitter.drain(told["patience"])
    facts = {"worker": worker, "epoch": epoch, "longest": longest, "drained": drained, **asdict(emitter.statistics())}
    print(json.dumps(facts), file=sys.stderr, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
