import os
from pathlib import Path

import pytest

from actors.drivers.builtin.implement import Applied, Change, Refused, apply, specs

DOCUMENT = """# TERTIARY_OBJECTIVES

What is spelled out.

## Daily digest

Send one mail a day.

Depends on: Templates, `Mail queue`

```python file=alerts/digest.py
def digest(alerts):
    return "\\n".join(str(a) for a in alerts)
```

Then in `alerts/mail.py`:

```python
def send(text):
    return len(text)
```

```diff
--- a/alerts/config.py
+++ b/alerts/config.py
@@ -1 +1,2 @@
 LEVEL = 1
+DIGEST = True
```

```bash
alerts --digest
```

## [x] Templates

- [x] done

````python
# alerts/templates.py

PLAIN = '''
```
'''
````

## Broken

```python
x = 1
```

```python title="a.py"
never closed

---
Last Updated: 2026-01-01T00:00:00Z
<!-- rev:1 abc -->
"""


def test_a_section_is_a_task_with_its_changes() -> None:
    """Title, what it depends on, tick, files and blocks; shell examples are only shown."""
    digest, templates, _ = specs(DOCUMENT)
    assert (digest.title, digest.ticked, digest.depends) == ("Daily digest", False, ("Templates", "Mail queue"))
    assert digest.files == ("alerts/digest.py", "alerts/mail.py", "alerts/config.py")
    assert [c.kind for c in digest.changes] == ["code", "code", "diff"]
    assert digest.changes[0].text == 'def digest(alerts):\n    return "\\n".join(str(a) for a in alerts)\n'
    assert DOCUMENT.split("\n")[digest.changes[0].line - 1].startswith("```python file")
    assert (templates.title, templates.ticked, templates.files) == ("Templates", True, ("alerts/templates.py",))
    assert templates.changes[0].text == "PLAIN = '''\n```\n'''\n"


def test_what_cannot_be_understood_is_said_with_its_line() -> None:
    """A block without a file and one without an end are no changes but problems."""
    broken = specs(DOCUMENT)[2]
    assert broken.changes == ()
    assert "names no file" in broken.problems[0]
    assert "never closed" in broken.problems[1]
    assert DOCUMENT.split("\n")[int(broken.problems[0].split("line ")[1].split()[0]) - 1] == "```python"


@pytest.mark.parametrize(
    "before",
    [
        "File: alerts/x.py\n```python",
        "**`alerts/x.py`**\n\n```python",
        "`alerts/x.py`:\n```python",
        "### alerts/x.py\n```python",
        "Create `alerts/x.py` (new):\n```python",
        "```python alerts/x.py",
        "```python:alerts/x.py",
        '```python title="alerts/x.py"',
        "```python {file='alerts/x.py'}",
        "```python path=alerts/x.py",
        "```python\n# alerts/x.py",
        "```py\n# file: alerts/x.py",
        "> ```python file=alerts/x.py",
    ],
)
def test_ways_to_name_a_file(before: str) -> None:
    """Each usual way of saying which file a block is meant for."""
    quote = "> " if before.startswith(">") else ""
    (spec,) = specs(f"## T\n\n{before}\n{quote}x = 1\n{quote}```\n")
    assert [(c.file, c.text) for c in spec.changes] == [("alerts/x.py", "x = 1\n")]


def test_subsections_under_a_general_heading_are_the_tasks() -> None:
    """`## Objectives` with `### Task` headings: each of these is a task; elsewhere they belong to theirs."""
    found = specs("## Objectives\n\n### One\n\na\n\n### Two\n\nb\n\n## Three\n\n### part\n\nc\n")
    assert [s.title for s in found] == ["One", "Two", "Three"]
    assert "c" in found[2].body


def code(file: str, text: str, **more: object) -> Change:
    return Change(kind="code", file=file, text=text, **more)  # type: ignore[arg-type]


def diff(text: str) -> Change:
    return Change(kind="diff", file="", text=text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "alerts/__init__.py": "",
        "alerts/mail.py": (
            '"""Mail."""\n\nimport os\nfrom .base import Handler\n\nPORT = 25\n\n\n'
            "class Mail(Handler):\n    retries = 3\n\n"
            "    def send(self, text):  # keep me\n        return os.getpid()\n\n"
            "    def close(self):\n        pass\n\n\n"
            "# about helper\ndef helper():\n    return 1   # odd   spacing\n\n\n"
            'if __name__ == "__main__":\n    helper()\n'
        ),
        "alerts/base.py": "class Handler:\n    pass\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def test_a_new_file_is_written_and_again_is_nothing(tree: Path) -> None:
    """The second time there is nothing left to do."""
    change = code("alerts/new/digest.py", "X = 1\n")
    assert apply(tree, [change]) == Applied(files=("alerts/new/digest.py",))
    assert (tree / "alerts/new/digest.py").read_bytes() == b"X = 1\n"
    assert apply(tree, [change]) == Applied(files=())


def test_functions_methods_constants_and_imports_find_their_places(tree: Path) -> None:
    """Replaced in place, added at the end before the main guard; everything else byte for byte."""
    before = (tree / "alerts/mail.py").read_text()
    snippet = (
        "import os\nimport sys\nfrom .base import Handler\n\nPORT = 587\nHOST = 'x'\n\n\n"
        "class Mail(Handler):\n    ...\n\n    def send(self, text):\n        return sys.argv\n\n"
        "    def open(self):\n        return 1\n\n\n"
        "def helper():\n    return 2\n\n\n# why\n@property\ndef fresh():\n    return 3\n"
    )
    assert apply(tree, [code("alerts/mail.py", snippet)]) == Applied(files=("alerts/mail.py",))
    after = (tree / "alerts/mail.py").read_text()
    assert after == (
        '"""Mail."""\n\nimport os\nfrom .base import Handler\nimport sys\n\nHOST = \'x\'\n\nPORT = 587\n\n\n'
        "class Mail(Handler):\n    retries = 3\n\n    def send(self, text):\n        return sys.argv\n\n"
        "    def close(self):\n        pass\n\n    def open(self):\n        return 1\n\n\n"
        "# about helper\ndef helper():\n    return 2\n\n\n"
        "# why\n@property\ndef fresh():\n    return 3\n\n\n"
        'if __name__ == "__main__":\n    helper()\n'
    )
    assert before != after
    assert apply(tree, [code("alerts/mail.py", snippet)]) == Applied(files=())


def test_a_whole_class_takes_the_place_of_the_old_one(tree: Path) -> None:
    """Without a bare `...` the class is as the example says, no more."""
    assert isinstance(
        apply(tree, [code("alerts/mail.py", "class Mail:\n    def send(self):\n        return 0\n")]), Applied
    )
    text = (tree / "alerts/mail.py").read_text()
    assert "def close" not in text
    assert "PORT = 25\n\n\nclass Mail:\n    def send(self):\n        return 0\n\n\n# about helper\n" in text


def test_a_bare_method_goes_to_its_class(tree: Path) -> None:
    """By the name given, or because only one class has it; indented as that class is."""
    assert isinstance(
        apply(tree, [code("alerts/mail.py", "def send(self, text):\n    return '''a\n  b'''\n")]), Applied
    )
    assert (
        "    def send(self, text):\n        return '''a\n  b'''\n\n    def close"
        in (tree / "alerts/mail.py").read_text()
    )
    change = code("alerts/mail.py", "def ping(self):\n    pass\n", inside="Mail")
    assert isinstance(apply(tree, [change]), Applied)
    assert "        pass\n\n    def ping(self):\n        pass\n\n\n# about" in (tree / "alerts/mail.py").read_text()
    result = apply(tree, [code("alerts/mail.py", "def unknown(self):\n    pass\n")])
    assert isinstance(result, Refused)
    assert "which class" in result.reason


def test_line_ends_encoding_and_the_rest_stay(tree: Path) -> None:
    """A CRLF file stays one, a declared encoding is obeyed, a byte order mark is kept."""
    (tree / "dos.py").write_bytes(b"# -*- coding: latin-1 -*-\r\nA = '\xe9'\r\n\r\n\r\ndef f():\r\n    return 1\r\n")
    (tree / "bom.py").write_bytes(b"\xef\xbb\xbfdef f():\n    return 1\n")
    snippet = "def f():\n    return 'ü'\n"
    assert isinstance(apply(tree, [code("dos.py", snippet), code("bom.py", snippet)]), Applied)
    assert (tree / "dos.py").read_bytes() == (
        b"# -*- coding: latin-1 -*-\r\nA = '\xe9'\r\n\r\n\r\ndef f():\r\n    return '\xfc'\r\n"
    )
    assert (tree / "bom.py").read_bytes() == "\ufeffdef f():\n    return 'ü'\n".encode()


def test_a_file_of_mixed_line_ends_is_refused(tree: Path) -> None:
    """Putting something in would have to change lines that nobody mentioned."""
    (tree / "mixed.py").write_bytes(b"a = 1\r\nb = 2\r\n\r\n\ndef f():\r\n    return 1\r\n")
    result = apply(tree, [code("mixed.py", "def f():\n    return 2\n")])
    assert isinstance(result, Refused)
    assert "mixes line ends" in result.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (code("../x.py", "x = 1\n"), "no path inside"),
        (code("/etc/passwd", "x"), "no path inside"),
        (code("a\\..\\..\\x.py", "x = 1\n"), "no path inside"),
        (code("C:/x.py", "x = 1\n"), "no path inside"),
        (code("crew/QA_READ.md", "x"), "not the crew's"),
        (code("a/.git/config", "x"), "not the crew's"),
        (code(".GIT/config", "x"), "not the crew's"),
        (code("link/x.py", "x = 1\n"), "symbolic link"),
        (code("alerts", "x"), "is a folder"),
        (code("alerts/mail.py/x.py", "x = 1\n"), "is a file"),
        (code("alerts/new.py", "def f(:\n"), "does not parse"),
        (code("alerts/mail.py", "print('hi')\n"), "no clear place"),
        (diff("--- a/../../x\n+++ b/../../x\n@@ -1 +1 @@\n-a\n+b\n"), "no path inside"),
        (diff("nothing\n"), "no lines"),
    ],
)
def test_what_must_not_or_cannot_be_done_is_refused(tree: Path, change: Change, words: str) -> None:
    """Paths that leave the tree, places that are not ours, broken code: refused, and nothing is written."""
    (tree / "link").symlink_to(os.path.realpath(tree.parent))
    before = {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    result = apply(tree, [code("fine.py", "x = 1\n"), change])
    assert isinstance(result, Refused)
    assert words in result.reason
    assert {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()} == before


def test_an_existing_file_that_is_no_python_needs_the_word_whole(tree: Path) -> None:
    """Nobody's configuration is written over because a block happens to name it."""
    (tree / "a.toml").write_text("x = 1\n")
    assert isinstance(apply(tree, [code("a.toml", "x = 2\n")]), Refused)
    assert apply(tree, [code("a.toml", "x = 2\n", whole=True)]) == Applied(files=("a.toml",))


def test_what_does_not_exist_yet_is_named(tree: Path) -> None:
    """A missing module of the project and a missing name in one that is there; other people's packages are theirs."""
    text = "import requests\nfrom alerts.templates import render\nfrom alerts.base import Handler, Other\n"
    text += "from . import mail\n"
    result = apply(tree, [code("alerts/digest.py", text)])
    assert isinstance(result, Refused)
    assert set(result.needs) == {"alerts.templates", "alerts.base.Other", "alerts.base"}
    assert result.reason == "it imports what is not there yet: alerts.base.Other, alerts.templates"
    both = [
        code("alerts/digest.py", "from alerts.templates import render\n"),
        code("alerts/templates.py", "render = 1\n"),
    ]
    assert isinstance(apply(tree, both), Applied)


def test_an_import_that_was_missing_before_is_not_the_tasks_fault(tree: Path) -> None:
    """Only what the change brings in counts."""
    (tree / "alerts/old.py").write_text("import alerts.gone\n\n\ndef f():\n    pass\n")
    assert isinstance(apply(tree, [code("alerts/old.py", "def f():\n    return 1\n")]), Applied)


def test_a_diff_makes_changes_and_deletes(tree: Path) -> None:
    """Three files in one diff; the counts in its headers may be wrong."""
    text = (
        "diff --git a/alerts/base.py b/alerts/base.py\nindex 1..2 100644\n"
        "--- a/alerts/base.py\n+++ b/alerts/base.py\n"
        "@@ -1,9 +1,7 @@ class Handler\n class Handler:\n-    pass\n+    x = 1\n"
        "--- /dev/null\n+++ b/alerts/made.py\n@@ -0,0 +1 @@\n+y = 1\n"
        "--- a/alerts/__init__.py\n+++ /dev/null\n"
    )
    assert apply(tree, [diff(text)]) == Applied(files=("alerts/__init__.py", "alerts/base.py", "alerts/made.py"))
    assert (tree / "alerts/base.py").read_text() == "class Handler:\n    x = 1\n"
    assert (tree / "alerts/made.py").read_text() == "y = 1\n"
    assert not (tree / "alerts/__init__.py").exists()
