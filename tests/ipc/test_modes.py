"""The choice of the transport: flags, then environment, then the rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ipc.errors import ModeError
from ipc.modes import determine_ipc_mode, determine_ipc_mode_with_reason


@pytest.mark.parametrize(
    ("options", "environ", "drawn", "mode"),
    [
        ({"cli_use_queue_ipc": True, "cli_use_stdout": True}, {"QUEUE_IPC_MODE": "stdout"}, 0.9, "queue"),
        ({"cli_use_stdout": True}, {"QUEUE_IPC_MODE": "queue"}, 0.0, "stdout"),
        ({}, {"QUEUE_IPC_MODE": "QUEUE", "QUEUE_IPC_ROLLOUT": "0"}, 0.9, "queue"),
        ({}, {"QUEUE_IPC_MODE": "Fallback", "QUEUE_IPC_ROLLOUT": "1"}, 0.0, "stdout"),
        ({}, {"QUEUE_IPC_MODE": "stdout"}, 0.0, "stdout"),
        ({}, {"QUEUE_IPC_ROLLOUT": "0.5"}, 0.4999, "queue"),
        ({}, {"QUEUE_IPC_ROLLOUT": "0.5"}, 0.5, "stdout"),
        ({}, {"QUEUE_IPC_ROLLOUT": "0"}, 0.0, "stdout"),
        ({}, {"QUEUE_IPC_ROLLOUT": "1.0"}, 0.9999, "queue"),
        ({}, {}, 0.0999, "queue"),
        ({}, {}, 0.1, "stdout"),
        ({"default_rate": 1.0}, {}, 0.9999, "queue"),
        ({"default_rate": 1.0}, {"QUEUE_IPC_MODE": "stdout"}, 0.0, "stdout"),
    ],
)
def test_precedence(options: Any, environ: Mapping[str, str], drawn: float, mode: str) -> None:
    """Flags beat the environment, the environment beats the rollout, the queue flag beats the stdout flag."""
    assert determine_ipc_mode(environ=environ, rng=lambda: drawn, **options) == mode


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QUEUE_IPC_MODE", "que"),
        ("QUEUE_IPC_ROLLOUT", "half"),
        ("QUEUE_IPC_ROLLOUT", "1.1"),
        ("QUEUE_IPC_ROLLOUT", "-0.1"),
        ("QUEUE_IPC_ROLLOUT", "nan"),
    ],
)
def test_a_bad_value_is_named(variable: str, value: str) -> None:
    """A bad value is an error that names the variable and the value, whatever would have decided."""
    with pytest.raises(ModeError, match=variable) as caught:
        determine_ipc_mode(cli_use_stdout=True, environ={variable: value})
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("options", "environ", "word"),
    [
        ({"cli_use_queue_ipc": True}, {}, "--use-queue-ipc"),
        ({"cli_use_stdout": True}, {}, "--use-stdout"),
        ({}, {"QUEUE_IPC_MODE": "queue"}, "QUEUE_IPC_MODE"),
        ({}, {"QUEUE_IPC_ROLLOUT": "1"}, "QUEUE_IPC_ROLLOUT"),
        ({}, {}, "configuration"),
    ],
)
def test_the_reason_names_what_decided(options: Any, environ: Mapping[str, str], word: str) -> None:
    """The sibling says why."""
    assert word in determine_ipc_mode_with_reason(environ=environ, rng=lambda: 0.5, **options).reason
