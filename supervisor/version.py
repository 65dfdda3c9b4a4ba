"""Which release this is, as it was installed."""

from __future__ import annotations


def version() -> str:
    """Such as "0.1.0"; "" for sources that are not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("phase-supervisor")
    except PackageNotFoundError:
        return ""
