-- Who did what to which thing; written in the transaction of the deed.

CREATE TABLE app.audit (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_pkey PRIMARY KEY,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    request_id text,
    -- SHA-256 of the thing's JSON before and after; null where there was none.
    before_hash text,
    after_hash text
);
