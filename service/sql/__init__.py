"""Reading SQL text; pure: nothing here asks a database."""
