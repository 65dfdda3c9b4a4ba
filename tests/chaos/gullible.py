"""A supervisor for the control: it takes every event for a new one, so that what is sent twice is there twice."""

from __future__ import annotations

import sys

import ipc.sequence
from supervisor.cli.main import main
from tests.chaos.station import accept_all

if __name__ == "__main__":
    ipc.sequence.judge_frame = accept_all
    sys.exit(main())
