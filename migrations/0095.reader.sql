-- The rights that a reader role had before Tally, so that `tally uninstall` takes away no more than Tally gave.

CREATE TABLE app.reader (
    name text CONSTRAINT reader_pkey PRIMARY KEY,
    -- The statements that would revoke them.
    had text[] NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
