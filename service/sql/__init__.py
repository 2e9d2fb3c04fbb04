"""Parse, validate and parameterise SQL text; pure: nothing here queries a database."""
