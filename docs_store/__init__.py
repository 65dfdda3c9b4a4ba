"""docs_store."""
