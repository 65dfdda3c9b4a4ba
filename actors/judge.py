"""Judges the actors that a configuration names, in a process of its own: `python -P -m actors.judge`.

A JSON object on standard input says which: `workspace`, `topology`, `actors` by phase. The answer (phase: why not) goes
to what was standard output; what the imports print goes elsewhere. The workspace's code is imported as a worker
would do it: ours first, theirs last.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from docs_store.topology import from_data

from .own import ActorError, find, is_loop, made, require_usable
from .worker import extend_path


def judged(asked: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong, by phase; nothing for those that can be used."""
    topology = from_data(asked["topology"])
    wrong = {}
    for phase, name in asked["actors"].items():
        try:
            found = find(name)
            require_usable(found, name, phase, topology)
            if not is_loop(found):
                made(found, name)
        except ActorError as error:
            wrong[phase] = str(error)
        except SystemExit as error:
            wrong[phase] = f"the import of {name.partition(':')[0]} ended the process (exit {error.code})"
    return wrong


def main() -> None:
    """Read, judge, answer."""
    answer = os.dup(1)
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.read())
    os.chdir(asked["workspace"])
    extend_path(asked["workspace"])
    os.write(answer, json.dumps(judged(asked)).encode())


if __name__ == "__main__":
    main()
