-- Who may ask for tokens, beside the clients of AUTH_CLIENTS. A revoked one stays, so that its name in the
-- audit goes on meaning one thing.

CREATE TABLE app.api_client (
    id text CONSTRAINT api_client_pkey PRIMARY KEY
        CONSTRAINT api_client_id_form CHECK (id ~ '^[A-Za-z0-9._~@/-]{1,128}$'),
    -- Hexadecimal SHA-256 of a secret that we made, argon2id of a chosen one.
    secret_hash text NOT NULL
        CONSTRAINT api_client_secret_hash_form CHECK (secret_hash ~ '^([0-9a-f]{64}|\$argon2id\$[!-~]+)$'),
    scopes text[] NOT NULL CONSTRAINT api_client_scopes_some CHECK (cardinality(scopes) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
