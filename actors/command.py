"""How a module of ours is started in an interpreter of its own."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

from ipc.process import python_command


def own_command(module: str, environ: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
    """The command, and its whole environment made from `environ` (None: ours).

    Ours are found whatever the user's PYTHONPATH and working directory hold; the former is left out.
    """
    command, extra = python_command()
    full = dict(os.environ if environ is None else environ) | extra
    full.pop("PYTHONPATH", None)
    root = Path(__file__).resolve().parent.parent
    if root not in {Path(folder).resolve() for folder in site.getsitepackages()}:
        full["PYTHONPATH"] = str(root)  # run from a checkout
    return [*command, "-P", "-X", "utf8", "-m", module], full
