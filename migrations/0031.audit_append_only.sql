-- The audit only grows: not even the role that writes it may change or remove a row. The trigger holds for
-- a superuser too, whom privileges do not bind.

REVOKE UPDATE, DELETE, TRUNCATE ON app.audit FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON app.audit FROM %I', current_user);
END
$$;

CREATE FUNCTION app.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%I.%I only grows', TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$$;

CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON app.audit
    FOR EACH STATEMENT EXECUTE FUNCTION app.refuse_change();
