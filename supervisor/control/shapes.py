"""What goes in and out of the control API, as types: bodies are checked against them, the OpenAPI document shows them.

More keys may be added to answers; a body with a key that is not known is a mistake of its sender.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client sends."""


class Nothing(Body, frozen=True):
    """Nothing needs to be said."""


class RestartBody(Body, frozen=True):
    """Which phase gets a new worker; with `all`, every one, each ready before the next is touched."""

    phase: str = ""
    all: bool = False


class HoldBody(Body, frozen=True):
    """No phase: all of them."""

    phase: str | None = None


class TaskBody(Body, frozen=True):
    """`text` may begin with its kind, as in `Issue: …`; `priority` is HIGH, MEDIUM or LOW."""

    text: str
    to: str = "planning"
    priority: str = "MEDIUM"


class AnswerBody(Body, frozen=True):
    """`id` as the inbox shows it."""

    id: str
    text: str


class ReplyOut(msgspec.Struct, kw_only=True):
    """What became of a command. With status 409 `ok` is false: refused, or done only as far as `text` says."""

    ok: bool
    text: str
    data: dict[str, Any]


class Problem(msgspec.Struct, kw_only=True):
    """What was wrong: a word for programs, a sentence for people."""

    code: str
    text: str


class ErrorOut(msgspec.Struct, kw_only=True):
    """Why a request was refused."""

    error: Problem


class PhaseOut(msgspec.Struct, kw_only=True):
    """One phase now; `state` is one of ten words, from starting to quarantined, `task` an id or null."""

    title: str
    pid: int | None
    epoch: int
    state: str
    task: str | None
    text: str
    pct: int
    restarts: int
    mode: str
    step: str
    detail: str
    mode_reason: str = ""


class QueueOut(msgspec.Struct, kw_only=True):
    """Frames in the queue, and how many fit."""

    depth: int
    capacity: int


class StatusOut(msgspec.Struct, kw_only=True):
    """The crew now; `head` is the history's last record.

    `latency` counts rows by worker and upper bound in seconds, `latency_total` over all workers.
    """

    pid: int | None
    workspace: str
    phases: dict[str, PhaseOut]
    queue: QueueOut
    counters: dict[str, int]
    workers: dict[str, dict[str, int]] = {}
    latency: dict[str, dict[str, int]] = {}
    latency_total: dict[str, int] = {}
    head: int
    notes: list[str] = []
    dirty: list[str] = []


class EventOut(msgspec.Struct, kw_only=True):
    """`data` is base64 or null."""

    cursor: str
    worker: str
    epoch: int
    seq: int
    type: str
    phase: str
    step: str
    pct: int
    detail: str
    summary: dict[str, Any]
    data: str | None
    timestamp: float
    transport: str


class EventsOut(msgspec.Struct, kw_only=True):
    """`cursor` is where to go on; `more` says that there was more than `limit` when this was read."""

    events: list[EventOut]
    cursor: str
    more: bool


class DocumentOut(msgspec.Struct, kw_only=True):
    """One document: the record that last touched it, and when."""

    name: str
    file: str
    role: str
    phase: str | None
    record: int
    updated: str


class DocumentsOut(msgspec.Struct, kw_only=True):
    """All of them."""

    documents: list[DocumentOut]


class DocumentTextOut(msgspec.Struct, kw_only=True):
    """A document as it is on record after record `record`."""

    name: str
    file: str
    record: int
    text: str


class ReasonOut(msgspec.Struct, kw_only=True):
    """One decision, or what led to one, with its inputs."""

    at: float
    cursor: str
    what: str
    text: str
    inputs: dict[str, Any]


class WhyOut(msgspec.Struct, kw_only=True):
    """Everything that explains a phase, oldest first."""

    phase: str
    reasons: list[ReasonOut]


class WaitingOut(msgspec.Struct, kw_only=True):
    """One thing that waits for the user; `id` is what an answer takes, or a restart where `what` is "given up"."""

    id: str
    what: str
    phase: str
    kind: str
    priority: str
    text: str
    request: str
    since: str
    about: str
    options: list[str]


class InboxOut(msgspec.Struct, kw_only=True):
    """All that waits, oldest first; phases that were given up come last."""

    items: list[WaitingOut]


class ModeOut(msgspec.Struct, kw_only=True):
    """What became of the audits of one mode; latencies are seconds from an event to its commit, rates 0–1."""

    runs: int
    completed: int
    failed: int
    interrupted: int
    running: int
    fallbacks: int
    dropped: int
    coalesced: int
    latency_p50: float | None
    latency_p99: float | None
    success_rate: float | None


class RolloutOut(msgspec.Struct, kw_only=True):
    """`current_stage` is 0.1 … 1.0, `stage_index` 0 … 4; `rate` is the one in force; `reasons` are what is missing."""

    started: bool
    current_stage: float
    stage_index: int
    rate: float
    rate_source: str
    rolled_back: bool
    rollback_reason: str | None
    stage_began: float | None
    stage_served: float
    stage_lasts: float
    validation_matches: int
    validation_matches_needed: int
    verdict: str
    reasons: list[str]
    audits_run: int
    queue_mode_count: int
    stdout_mode_count: int
    queue_mode_percent: float
    stdout_mode_percent: float
    fallback_count: int
    max_fallback_rate: float
    success_rate: float | None
    failures: int
    modes: dict[str, ModeOut]
