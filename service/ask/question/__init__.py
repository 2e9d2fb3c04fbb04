"""Turn a reading into a question to the schema, its SQL and its title. No I/O."""
