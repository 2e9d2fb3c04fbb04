-- Signed links to dashboards. The link's token is signed and not stored; a row says whether it still holds.

CREATE TABLE app.link (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT link_pkey PRIMARY KEY,
    dashboard_id text NOT NULL
        CONSTRAINT link_dashboard_id_fkey REFERENCES catalog.dashboard (id) ON DELETE CASCADE,
    parameters jsonb NOT NULL CONSTRAINT link_parameters_object CHECK (jsonb_typeof(parameters) = 'object'),
    -- Web origins whose pages may show the link in a frame.
    embed text[] NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

CREATE INDEX link_dashboard_id_idx ON app.link (dashboard_id, id);

-- All processes hear of the end of a link, and of nothing else.
CREATE TRIGGER tally_update AFTER UPDATE ON app.link REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_delete AFTER DELETE ON app.link REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
