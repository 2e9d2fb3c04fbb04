-- Who is signed in on the pages. A session is known by the SHA-256 of its cookie's value, so that a copy of this
-- table opens nothing.

CREATE TABLE app.session (
    id bytea CONSTRAINT session_pkey PRIMARY KEY
        CONSTRAINT session_id_length CHECK (octet_length(id) = 32),
    subject text NOT NULL,
    -- The client that signed in with its secret, and the SHA-256 of what its secret was checked against: another
    -- secret ends the session. Null for a person whom the OpenID Connect issuer signed in.
    client_id text,
    secret_mark bytea,
    scopes text[] NOT NULL,
    claims text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT session_client_marked CHECK ((client_id IS NULL) = (secret_mark IS NULL))
);

CREATE INDEX session_expires_at_idx ON app.session (expires_at);

-- All processes hear of the end of a session, and of nothing else: a sign-in concerns only who signs in.
CREATE TRIGGER tally_delete AFTER DELETE ON app.session REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
