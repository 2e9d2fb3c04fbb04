"""Everything that talks to Postgres, and the only home of asyncpg."""
