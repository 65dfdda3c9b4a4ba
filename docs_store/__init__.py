"""Documents that several processes write together: messages and their states in a history, Markdown as its view.

store = Store.open("crew")
store.post("user", Draft(to="qa", kind="Assess", text="look at the parser"))
store.start_epoch("qa", 1, died=False)
mailbox = Mailbox(store, "qa", 1)
task = mailbox.claim()
mailbox.finish(task, Outcome(result="done", detail="nothing found"))
"""

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
