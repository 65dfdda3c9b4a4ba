"""A phase of your own: it tells Planning about text that is run as code, and about secrets written into the code."""

import re

from actors import Context, Draft, Outcome, PhaseActor, Task

RISKS = {
    "text that is run as code": re.compile(r"\b(eval|exec)\("),
    "a secret in the code": re.compile(r"(?i)(password|secret|token|api_?key)\w*\s*=\s*[\"'][^\"']{8,}"),
}


class SecurityActor(PhaseActor):
    tells = {"planning": {"Issue"}}

    async def perform(self, task: Task, context: Context) -> Outcome:
        tree, found, posts = await context.checkout(), 0, []
        for path in sorted(tree.rglob("*.py")):
            name = path.relative_to(tree).as_posix()
            context.say("scanning", detail=name)
            for number, line in enumerate(path.read_text("utf-8", "replace").split("\n"), start=1):
                for risk in (risk for risk, pattern in RISKS.items() if pattern.search(line)):
                    found, thread = found + 1, f"security: {risk}: {name}"
                    if not await context.mailbox.reported(thread):
                        posts.append(Draft(to="planning", kind="Issue", text=f"{name}:{number}: {risk}", thread=thread))
        said = f"{found} risk(s), {len(posts)} of them new"
        return Outcome(result="done", detail=said, report=(said,), posts=tuple(posts))
