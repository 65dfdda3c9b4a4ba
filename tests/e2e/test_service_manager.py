"""What systemd hears from a real run: ready after all phases, the watchdog, a reload, the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.conftest import LIMIT, Shop, end

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.only_on("posix", reason="systemd's protocol is of Unix"),
]


def test_a_service_manager_is_told_how_we_are(shop: Shop) -> None:
    """READY when every phase has a worker that is ready, WATCHDOG while the owner's loop turns, RELOADING, STOPPING."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(Path(folder) / "n")
        manager.bind(path)
        manager.settimeout(LIMIT)
        process = subprocess.Popen(
            shop.command("run", "--quiet"),
            cwd=shop.root,
            env={**shop.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "600000"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        heard: list[str] = []

        def hear(word: str) -> None:
            while True:
                message = manager.recv(4096).decode()
                heard.append(message)
                if message.startswith(word):
                    return

        try:
            hear("READY=1")
            phases = shop.ask("status")["phases"]
            assert all(phase["state"] not in {"starting", "stopped"} for phase in phases.values())
            assert any("READY=1" in message for message in heard)
            hear("WATCHDOG=1")
            hear("WATCHDOG=1")
            (shop.root / "supervisor.toml").write_text("[restart]\nrestarts = 4\n")
            os.kill(process.pid, signal.SIGHUP)
            hear("RELOADING=1")
            hear("READY=1")
            for worker in shop.workers():
                assert "NOTIFY_SOCKET" not in worker.environ()
            process.send_signal(signal.SIGTERM)
            hear("STOPPING=1")
            assert "EXTEND_TIMEOUT_USEC" in heard[-1]
            assert process.wait(LIMIT) in {1, 130}
        finally:
            end(process)
