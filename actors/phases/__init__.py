"""The four phases' policies, by key."""

from collections.abc import Mapping

from .debugging import DEBUGGING
from .developer import DEVELOPER
from .planning import PLANNING
from .policy import OutOfPolicyError, Policy
from .qa import QA

POLICIES: Mapping[str, Policy] = {policy.key: policy for policy in (PLANNING, DEVELOPER, QA, DEBUGGING)}

__all__ = ["DEBUGGING", "DEVELOPER", "PLANNING", "POLICIES", "QA", "OutOfPolicyError", "Policy"]
