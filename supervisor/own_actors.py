"""Whether the actors that `supervisor.toml` names can be used, found out before anything starts.

Their code is imported in a process of its own (`actors.judge`), as a worker would do it: what it prints or breaks does
not touch the supervisor. Ask only once the configuration is trusted.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from docs_store.topology import as_data

from .child import worker_command
from .config import FILE, Config, ConfigError, Mistake, line_of
from .exits import Exit, UserError
from .workspace import Workspace

PATIENCE = 60.0  # seconds for the imports of all of them


def require_usable_actors(workspace: Workspace, config: Config, *, patience: float = PATIENCE) -> None:
    """Raise `ConfigError` with every actor that cannot be used, and why. Blocks."""
    wrong = wrong_actors(workspace, config, patience=patience)
    if wrong:
        source = workspace.config.read_text("utf-8")
        raise ConfigError(
            FILE,
            [
                Mistake(line_of(source, "phases", phase, "actor"), f"phases.{phase}.actor", why)
                for phase, why in wrong.items()
            ],
        )


def wrong_actors(workspace: Workspace, config: Config, *, patience: float = PATIENCE) -> Mapping[str, str]:
    """What is wrong with the actors, by phase; starts nothing where there are none."""
    actors = {key: phase.actor for key, phase in config.phases.items() if phase.actor}
    if not actors:
        return {}
    command, environ = worker_command(module="actors.judge")
    asked = {"workspace": str(workspace.root), "topology": as_data(config.topology), "actors": actors}
    try:
        done = subprocess.run(
            command, env=environ, input=json.dumps(asked).encode(), capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(actors, f"importing it has not ended within {patience:g} s")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        text = f"the actors of {workspace.config} could not be looked at (exit {done.returncode}): {last}"
        raise UserError(text, exit_code=Exit.CONFIGURATION)
    if not done.stdout:
        text = f"the actors of {workspace.config} could not be looked at: an import ended the process"
        raise UserError(text, exit_code=Exit.CONFIGURATION)
    found: dict[str, str] = json.loads(done.stdout)
    return found
