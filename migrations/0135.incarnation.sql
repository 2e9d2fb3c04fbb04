-- The secret with which nodes sign the results that they share. Postgres empties an unlogged table when it
-- recovers from a crash, is promoted or comes out of a backup: in each case transactions may be lost whose
-- numbers are then given again. The next node makes a new secret, so that no older shared result counts.

CREATE UNLOGGED TABLE app.incarnation (
    only_row boolean NOT NULL DEFAULT true CONSTRAINT incarnation_only_row CHECK (only_row),
    secret bytea NOT NULL CONSTRAINT incarnation_secret_length CHECK (length(secret) = 32),
    CONSTRAINT incarnation_pkey PRIMARY KEY (only_row)
);
