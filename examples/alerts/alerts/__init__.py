"""Watch a host, and tell somebody when a rule is broken."""

__version__ = "0.4.0"
