-- In each database of such a server.
ALTER SCHEMA public OWNER TO pg_database_owner;
GRANT USAGE ON SCHEMA public TO supabase_postgres, anon, authenticated, service_role;
GRANT CREATE ON SCHEMA public TO supabase_postgres;
CREATE SCHEMA extensions AUTHORIZATION supabase_postgres;
GRANT USAGE ON SCHEMA extensions TO anon, authenticated, service_role;
-- Supabase lets its owner create trusted extensions by an extension of its own.
CREATE EXTENSION vector WITH SCHEMA extensions;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE supabase_postgres IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;

CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin;
GRANT USAGE ON SCHEMA auth TO supabase_postgres, anon, authenticated, service_role;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email text);
ALTER TABLE auth.users OWNER TO supabase_auth_admin;
GRANT ALL ON auth.users TO supabase_postgres;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
AS $$
    SELECT coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
