"""What a reading asks of a schema, as SQL and as a title; pure."""
