"""A small task list whose records are enriched from an external API."""
