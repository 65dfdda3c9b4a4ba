"""Documents that several processes write together: messages and their states in a history, Markdown as its view.

store = Store.open("crew")
store.post("user", Draft(to="qa", kind="Assess", text="look at the parser"))
store.start_epoch("qa", 1, died=False)
mailbox = Mailbox(store, "qa", 1)
task = mailbox.claim()
mailbox.finish(task, Outcome(result="done", detail="nothing found"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mailbox import AsyncMailbox, Mailbox
    from .messages import Draft, Message, Outcome, State, Status, Task
    from .store import FinishResult, Posted, Store, Verdict
    from .topology import DEFAULT, Document, Operation, Topology

__all__ = [
    "DEFAULT",
    "AsyncMailbox",
    "Document",
    "Draft",
    "FinishResult",
    "Mailbox",
    "Message",
    "Operation",
    "Outcome",
    "Posted",
    "State",
    "Status",
    "Store",
    "Task",
    "Topology",
    "Verdict",
]

_WHERE = {
    "mailbox": {"AsyncMailbox", "Mailbox"},
    "messages": {"Draft", "Message", "Outcome", "State", "Status", "Task"},
    "store": {"FinishResult", "Posted", "Store", "Verdict"},
    "topology": {"DEFAULT", "Document", "Operation", "Topology"},
}


def __getattr__(name: str) -> Any:
    """Import on first use: a short-lived process that wants the lock alone does not pay for the rest."""
    for module, names in _WHERE.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
