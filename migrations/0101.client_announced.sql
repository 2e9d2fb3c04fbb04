-- A revoked client is heard of at once, so that its open streams end.

DO $$
BEGIN
    PERFORM app.watch('app.api_client', 'tally_catalog');
END
$$;
