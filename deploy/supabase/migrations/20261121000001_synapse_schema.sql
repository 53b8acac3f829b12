-- Synapse's schema for a new Supabase project; one that has it is upgraded by `python synapse.py database upgrade`.
-- Written from the files in database/; change those and run `python -m deploy.write_supabase`.

BEGIN;

-- Supabase has pgvector in a schema of its own.
SET LOCAL search_path = public, extensions;

-- Two first starts take turns, and with `database upgrade`, too.
SELECT pg_advisory_xact_lock(hashtext('synapse schema'));

CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
DO $$
DECLARE
    other text;
BEGIN
    SELECT version_num INTO other FROM alembic_version WHERE version_num <> '0006';
    IF FOUND THEN
        RAISE EXCEPTION 'init.sql makes schema version 0006, but this database is at version %', other
            USING HINT = 'Run `python synapse.py database upgrade` instead.';
    END IF;
END
$$;
INSERT INTO alembic_version (version_num) VALUES ('0006') ON CONFLICT DO NOTHING;

-- database/extension.sql

-- Before anything names its types. Where it is installed already, it stays where it is.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA extensions;

-- database/filter_functions.sql

-- What the filter translator calls. Immutable, so that they may be indexed, and never raising, whatever metadata holds.
-- None calls another that an index uses: CREATE INDEX and ANALYZE run with a search_path that has not our schema.

-- The number that a value is compared as, or NULL: true is 1 and false is 0, as in Python. PostgreSQL writes it out in line.
CREATE OR REPLACE FUNCTION synapse_number(value jsonb) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE jsonb_typeof(value)
               WHEN 'number' THEN value::numeric
               WHEN 'boolean' THEN value::boolean::int::numeric
           END
$$;

-- The text of a JSON string, or NULL; of a long one its first 500 characters, as an index entry has at most 2,704 bytes.
CREATE OR REPLACE FUNCTION synapse_text(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN jsonb_typeof(value) = 'string' THEN left(value #>> '{}', 500) END
$$;

-- The instant that a JSON string names, or NULL: ISO 8601 with a full date, as haystack.utils.filters reads it.
-- `zone` is the offset of the filter's own date. With one, the result is in UTC, and text without an offset counts as being
-- in the filter's. Without one (NULL), the result is the text's wall clock, whatever its offset.
CREATE OR REPLACE FUNCTION synapse_instant(value jsonb, zone interval) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 50
AS $$
DECLARE
    iso text COLLATE "C";
BEGIN
    IF jsonb_typeof(value) IS DISTINCT FROM 'string' THEN
        RETURN NULL;
    END IF;
    iso := value #>> '{}';
    -- The usual forms go to PostgreSQL's own parser, many times as fast as what follows; it reads these alike under any
    -- setting. What it would refuse, and the 29th of February, is left to the rest.
    IF (CASE WHEN length(iso) = 10 THEN iso ~ '^[0-9]{4}-[0-9][0-9]-[0-9][0-9]$'
             ELSE iso ~ ('^[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?'
                         '(?:$|Z$|[+-](?:0[0-9]|1[0-4]):[0-5][0-9]$)') AND substr(iso, 12, 2) < '24'
        END)
       AND iso >= '0001' AND substr(iso, 6, 2) BETWEEN '01' AND '12' AND substr(iso, 9, 2) >= '01'
       AND (substr(iso, 9, 2) <= '28' OR (substr(iso, 9, 2) <= '30' AND substr(iso, 6, 2) <> '02')
            OR (substr(iso, 9, 2) = '31' AND substr(iso, 6, 2) IN ('01', '03', '05', '07', '08', '10', '12')))
    THEN
        RETURN CASE WHEN zone IS NULL THEN iso::timestamp
                    WHEN right(iso, 1) = 'Z' OR (length(iso) > 10 AND left(right(iso, 6), 1) IN ('+', '-'))
                        THEN iso::timestamptz AT TIME ZONE 'UTC'
                    ELSE iso::timestamp - zone END;
    END IF;
    IF iso NOT LIKE '____-__-__%' THEN
        RETURN NULL;
    END IF;
    DECLARE
        part text[];
        year int;
        month int;
        day int;
        hour int;
        minute int;
        second int;
        fraction text;
        shift interval;
        wall_clock timestamp;
    BEGIN
        -- 1-3 date; 4 hour, then 5-7 minute, second, fraction with colons or 8-10 without; 11 Z; 12-13 sign and hours of the
        -- offset, then 14-16 its minutes, seconds, fraction with colons or 17-19 without
        part := regexp_match(iso,
            '^([0-9]{4})-([0-9]{2})-([0-9]{2})'
            '(?:[Tt ]([0-9]{2})'
            '(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?)?'
            '(?: ?(?:([Zz])|([+-])([0-9]{2})'
            '(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?|([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]+))?)?)?))?)?$');
        IF part IS NULL THEN
            RETURN NULL;
        END IF;
        year := part[1];
        month := part[2];
        day := part[3];
        hour := coalesce(part[4], '0');
        minute := coalesce(part[5], part[8], '0');
        second := coalesce(part[6], part[9], '0');
        fraction := rpad(left(coalesce(part[7], part[10], '0'), 6), 6, '0');
        IF year < 1 OR month NOT BETWEEN 1 AND 12 OR day < 1 OR hour > 24 OR minute > 59 OR second > 59
            OR day > (CASE WHEN month IN (4, 6, 9, 11) THEN 30
                           WHEN month <> 2 THEN 31
                           WHEN year % 4 = 0 AND (year % 100 <> 0 OR year % 400 = 0) THEN 29
                           ELSE 28 END)
        THEN
            RETURN NULL;
        END IF;
        -- 24:00 is the end of the day; Python knows no day after its last, and no such time with seconds in the offset.
        IF hour = 24 AND (minute > 0 OR second > 0 OR fraction <> '000000' OR part[15] IS NOT NULL OR part[18] IS NOT NULL
                          OR (year = 9999 AND month = 12 AND day = 31))
        THEN
            RETURN NULL;
        END IF;
        wall_clock := make_date(year, month, day)
            + make_interval(hours => hour, mins => minute, secs => second)
            + fraction::int * interval '1 microsecond';
        IF part[12] IS NOT NULL THEN
            shift := make_interval(hours => part[13]::int,
                                   mins => coalesce(part[14], part[17], '0')::int,
                                   secs => coalesce(part[15], part[18], '0')::int)
                + rpad(left(coalesce(part[16], part[19], '0'), 6), 6, '0')::int * interval '1 microsecond';
            IF shift >= interval '24 hours' THEN
                RETURN NULL;
            END IF;
            shift := CASE part[12] WHEN '-' THEN -shift ELSE shift END;
        ELSIF part[11] IS NOT NULL THEN
            shift := interval '0';
        END IF;
        RETURN wall_clock - coalesce(CASE WHEN zone IS NOT NULL THEN coalesce(shift, zone) END, interval '0');
    END;
END
$$;

-- The value as Python compares it: true is 1 and false is 0, at any depth.
CREATE OR REPLACE FUNCTION synapse_comparable(value jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN jsonb_typeof(value) = 'boolean' THEN to_jsonb(value::boolean::int)
        WHEN jsonb_typeof(value) = 'array' THEN
            (SELECT coalesce(jsonb_agg(synapse_comparable(item) ORDER BY place), '[]')
               FROM jsonb_array_elements(value) WITH ORDINALITY AS items (item, place))
        WHEN jsonb_typeof(value) = 'object' THEN
            (SELECT coalesce(jsonb_object_agg(key, synapse_comparable(item)), '{}')
               FROM jsonb_each(value) AS items (key, item))
        ELSE value
    END;
END
$$;

-- database/keyword_functions.sql

-- Keyword search by BM25 on PostgreSQL's own lexemes. Beside each documents table stand two others, kept by its triggers,
-- whoever writes: <table>_keywords has a row per document with its terms and how much each counts in it, and <table>_terms
-- has how many documents each term has. A term is a lexeme, hashed together with its language.

-- The text search configuration of a language: an ISO 639 code such as en or en-US, or a configuration's name.
CREATE OR REPLACE FUNCTION synapse_text_search(language text, fallback text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE split_part(translate(lower(language), '_', '-'), '-', 1)
        WHEN 'ar' THEN 'arabic' WHEN 'hy' THEN 'armenian' WHEN 'eu' THEN 'basque' WHEN 'ca' THEN 'catalan'
        WHEN 'da' THEN 'danish' WHEN 'nl' THEN 'dutch' WHEN 'en' THEN 'english' WHEN 'fi' THEN 'finnish'
        WHEN 'fr' THEN 'french' WHEN 'de' THEN 'german' WHEN 'el' THEN 'greek' WHEN 'hi' THEN 'hindi'
        WHEN 'hu' THEN 'hungarian' WHEN 'id' THEN 'indonesian' WHEN 'ga' THEN 'irish' WHEN 'it' THEN 'italian'
        WHEN 'lt' THEN 'lithuanian' WHEN 'ne' THEN 'nepali' WHEN 'no' THEN 'norwegian' WHEN 'nb' THEN 'norwegian'
        WHEN 'nn' THEN 'norwegian' WHEN 'pt' THEN 'portuguese' WHEN 'ro' THEN 'romanian' WHEN 'ru' THEN 'russian'
        WHEN 'sr' THEN 'serbian' WHEN 'es' THEN 'spanish' WHEN 'sv' THEN 'swedish' WHEN 'ta' THEN 'tamil'
        WHEN 'tr' THEN 'turkish' WHEN 'yi' THEN 'yiddish'
        WHEN 'arabic' THEN 'arabic' WHEN 'danish' THEN 'danish' WHEN 'dutch' THEN 'dutch' WHEN 'english' THEN 'english'
        WHEN 'finnish' THEN 'finnish' WHEN 'french' THEN 'french' WHEN 'german' THEN 'german' WHEN 'italian' THEN 'italian'
        WHEN 'portuguese' THEN 'portuguese' WHEN 'russian' THEN 'russian' WHEN 'spanish' THEN 'spanish'
        WHEN 'swedish' THEN 'swedish' WHEN 'simple' THEN 'simple'
        ELSE fallback
    END
$$;

-- The terms of a text, in order and at most 16,000, as a sparsevec holds no more; behind them, in the same array, how often each
-- stands in the text. What lies beyond 200,000 characters is left out: a tsvector holds 1 MB. One value and not rows, so that a
-- bulk load parses with all its workers: what stands in FROM, they do not share.
CREATE OR REPLACE FUNCTION synapse_terms(configuration text, content text) RETURNS integer[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN (
        SELECT coalesce((array_agg(term))[:16000] || (array_agg(frequency))[:16000], '{}')
          FROM (SELECT (hashtextextended(lexeme, hashtext(configuration)) & 1073741823)::integer % 999999999 + 1 AS term,
                       sum(cardinality(positions))::integer AS frequency
                  FROM unnest(to_tsvector(configuration::regconfig, left(content, 200000)))
                 GROUP BY 1
                 ORDER BY 1) AS found
    );
END
$$;

-- BM25's weight of each term before it is multiplied by the term's rarity, with k1 = 1.2 and b = 0.75 (Robertson & Zaragoza,
-- 2009): below 2.2.
CREATE OR REPLACE FUNCTION synapse_weights(terms integer[], frequencies integer[], relative_length double precision) RETURNS sparsevec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ('{' || coalesce(string_agg(term || ':' || (2.2::float8 * frequency / (frequency + shift))::real, ','), '')
            || '}/1000000000')::sparsevec
      FROM (SELECT 0.3::float8 + 0.9::float8 * relative_length AS shift) AS of_the_length,
           unnest(terms, frequencies) AS found (term, frequency)
$$;

-- Documents' terms as a SELECT: `source` gives id, text and language.
CREATE OR REPLACE FUNCTION synapse_parsing(source text, functions text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT format('
        SELECT id, language, terms, frequencies, (SELECT coalesce(sum(frequency), 0)::integer FROM unnest(frequencies) AS frequency)
                   AS length
          FROM (SELECT id, language, found[:cardinality(found) / 2] AS terms,
                       found[cardinality(found) / 2 + 1:] AS frequencies
                  FROM (SELECT id, language, %2$s.synapse_terms(language, text) AS found FROM (%1$s) AS documents OFFSET 0)
                    AS parsed) AS halves', source, functions)
$$;

-- The statement that takes documents out of both tables ('out': `source` gives their ids) or puts them in ('in': `source` gives
-- their terms). Nobody waits for <table>_terms: rows that another transaction has locked are passed over and a row of
-- one's own is put beside them. Who reads sums them up; the next writer that finds them free makes them one again.
CREATE OR REPLACE FUNCTION synapse_keywords_statement(direction text, source text, keywords text, terms text, functions text)
RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    changes text := format('
        changes AS MATERIALIZED (
            SELECT term, NULL AS language, %1$s count(*) AS documents, NULL::bigint AS length
              FROM changed, unnest(terms) AS term
             GROUP BY term
             UNION ALL
            SELECT 0, language, %1$s count(*), %1$s sum(length) FROM changed GROUP BY language
        ), folded AS (
            DELETE FROM %2$s
             WHERE ctid = ANY (ARRAY(SELECT known.ctid FROM %2$s AS known WHERE known.term IN (SELECT term FROM changes)
                                        FOR UPDATE OF known SKIP LOCKED))
            RETURNING term, language, documents, length
        )
        INSERT INTO %2$s (term, language, documents, length)
        SELECT term, language, sum(documents), sum(length)
          FROM (TABLE changes UNION ALL TABLE folded) AS parts
         GROUP BY term, language
        HAVING sum(documents) <> 0 OR sum(length) <> 0', CASE direction WHEN 'out' THEN '-' ELSE '' END, terms);
BEGIN
    IF direction = 'out' THEN
        RETURN format('
            WITH changed AS (
                DELETE FROM %s WHERE document_id IN (%s) RETURNING language, length, terms
            ), ', keywords, source) || changes;
    END IF;
    RETURN format('
        WITH changed AS MATERIALIZED (
            %1$s
        ), averages AS MATERIALIZED (
            SELECT language, greatest(sum(length) / nullif(sum(documents), 0), 1)::real AS average
              FROM (SELECT language, documents, length FROM %3$s WHERE term = 0
                     UNION ALL
                    SELECT language, count(*), sum(length) FROM changed GROUP BY language) AS parts
             GROUP BY language
        ), filed AS (
            INSERT INTO %4$s (document_id, language, length, pivot, terms, weights)
            SELECT id, language, length, average, terms, %2$s.synapse_weights(terms, frequencies, length / average)
              FROM changed JOIN averages USING (language)
        ), ', source, functions, terms, keywords) || changes;
END
$$;

-- The trigger of a documents table. Its argument is the text search configuration of documents without a language.
CREATE OR REPLACE FUNCTION synapse_update_keywords() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    keywords text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_keywords');
    terms text := format('%I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_terms');
    functions text := (SELECT pronamespace::regnamespace
                         FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
                        WHERE tgrelid = TG_RELID AND tgname = TG_NAME);
    texts text := format('id, concat_ws(E''\n'', meta ->> ''title'', meta ->> ''heading'', content) AS text,
                          %s.synapse_text_search(meta ->> ''language'', %L) AS language', functions, TG_ARGV[0]);
    statement text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('TRUNCATE %s, %s', keywords, terms);
        RETURN NULL;
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        EXECUTE format('SELECT %s.synapse_keywords_statement(''out'', $1, $2, $3, $4)', functions) INTO statement
          USING CASE TG_OP WHEN 'DELETE' THEN 'SELECT id FROM removed'
                ELSE format('SELECT id FROM (SELECT %1$s FROM removed EXCEPT SELECT %1$s FROM written) AS changed', texts) END,
                keywords, terms, functions;
        EXECUTE statement;
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        EXECUTE format('SELECT %1$s.synapse_keywords_statement(''in'', %1$s.synapse_parsing($1, $4), $2, $3, $4)', functions)
           INTO statement
          USING CASE TG_OP WHEN 'INSERT' THEN format('SELECT %s FROM written', texts)
                ELSE format('SELECT %1$s FROM written EXCEPT SELECT %1$s FROM removed', texts) END,
                keywords, terms, functions;
        EXECUTE statement;
    END IF;
    RETURN NULL;
END
$$;

-- The two tables beside a documents table, still empty, with the triggers that keep them; returns whether they are new.
-- Writers wait until it is committed, and are kept account of from then on.
CREATE OR REPLACE FUNCTION synapse_create_keywords(place text, table_name text, language text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    keywords text := table_name || '_keywords';
    terms text := table_name || '_terms';
BEGIN
    IF EXISTS (SELECT FROM pg_trigger
                WHERE tgrelid = format('%I.%I', place, table_name)::regclass AND tgname = 'synapse_keywords_insert') THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS %1$I.%2$I, %1$I.%3$I', place, keywords, terms);  -- left by a documents table of this name
    EXECUTE format(
        'CREATE TABLE %I.%I (
            document_id varchar(128) PRIMARY KEY,
            language text NOT NULL,
            length integer NOT NULL,
            pivot real NOT NULL,
            terms integer[] NOT NULL,
            weights sparsevec NOT NULL
        ) WITH (toast_tuple_target = 8160)', place, keywords);  -- in line: each search reads thousands of rows
    -- How many documents have a term, possibly in several parts. Term 0 stands for all documents of a language: how many, and
    -- how many words they have together.
    EXECUTE format(
        'CREATE TABLE %I.%I (term integer NOT NULL, language text, documents bigint NOT NULL, length bigint)', place, terms);
    EXECUTE format('CREATE INDEX %I ON %I.%I (term)', terms || '_term', place, terms);
    PERFORM synapse_bind_table(place, keywords, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
    PERFORM synapse_bind_table(place, terms, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
    EXECUTE format(
        'CREATE TRIGGER synapse_keywords_insert AFTER INSERT ON %I.%I REFERENCING NEW TABLE AS written
            FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', place, table_name, language);
    EXECUTE format(
        'CREATE TRIGGER synapse_keywords_update AFTER UPDATE ON %I.%I REFERENCING OLD TABLE AS removed NEW TABLE AS written
            FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', place, table_name, language);
    EXECUTE format(
        'CREATE TRIGGER synapse_keywords_delete AFTER DELETE ON %I.%I REFERENCING OLD TABLE AS removed
            FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', place, table_name, language);
    EXECUTE format(
        'CREATE TRIGGER synapse_keywords_truncate AFTER TRUNCATE ON %I.%I
            FOR EACH STATEMENT EXECUTE FUNCTION synapse_update_keywords(%L)', place, table_name, language);
    RETURN true;
END
$$;

-- Put documents that were there before the triggers into both tables: the next `at_most` behind the id `after`, while others read
-- and write. Returns the last id looked at, NULL at the end, and how many were filed. A document that is filed here cannot change
-- before this is committed, and what changed before has been filed by its writer: each is counted once.
CREATE OR REPLACE FUNCTION synapse_file_keywords(
    documents_table regclass, after text, at_most integer, OUT last_id text, OUT filed integer
)
LANGUAGE plpgsql
AS $$
DECLARE
    place text;
    name text;
    functions text;
    fallback text;
    ids text[];
    statement text;
BEGIN
    SELECT quote_ident(nspname), relname, pronamespace::regnamespace, convert_from(trim(trailing '\x00' FROM tgargs), 'UTF8')
      INTO STRICT place, name, functions, fallback
      FROM pg_trigger
      JOIN pg_proc ON pg_proc.oid = tgfoid
      JOIN pg_class ON pg_class.oid = tgrelid
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE tgrelid = documents_table AND tgname = 'synapse_keywords_insert';
    EXECUTE format('SELECT array_agg(id), max(id) FROM (SELECT id FROM %s WHERE %s ORDER BY id LIMIT $2) AS next',
                   documents_table, CASE WHEN after IS NULL THEN 'true' ELSE 'id > $1' END)
       INTO ids, last_id USING after, at_most;
    EXECUTE format('SELECT array_agg(id)
                      FROM (SELECT id FROM %1$s AS d
                             WHERE id = ANY ($1) AND NOT EXISTS (SELECT FROM %2$s WHERE document_id = d.id)
                             ORDER BY id
                               FOR SHARE) AS held',
                   documents_table, place || '.' || quote_ident(name || '_keywords'))
       INTO ids USING ids;
    filed := coalesce(cardinality(ids), 0);
    IF filed = 0 THEN
        RETURN;
    END IF;
    -- A statement of its own sees what was filed while this waited for a document.
    EXECUTE format('SELECT %1$s.synapse_keywords_statement(''in'', %1$s.synapse_parsing($1, $4), $2, $3, $4)', functions)
       INTO statement
      USING format('SELECT id, concat_ws(E''\n'', meta ->> ''title'', meta ->> ''heading'', content) AS text,
                           %s.synapse_text_search(meta ->> ''language'', %L) AS language
                      FROM %s
                     WHERE id = ANY (%L::text[]) AND NOT EXISTS (SELECT FROM %s.%I WHERE document_id = id)',
                   functions, fallback, documents_table, ids, place, name || '_keywords'),
            place || '.' || quote_ident(name || '_keywords'), place || '.' || quote_ident(name || '_terms'), functions;
    EXECUTE statement;
END
$$;

-- Fill both tables anew from the documents, after a bulk load with the triggers disabled; returns how many documents there are.
-- Needs the owner; nobody writes meanwhile, and keyword searches wait.
CREATE OR REPLACE FUNCTION synapse_rebuild_keywords(documents_table regclass) RETURNS bigint
LANGUAGE plpgsql
SET parallel_setup_cost = 0
SET parallel_tuple_cost = 0
AS $$
DECLARE
    place text;
    name text;
    functions text;
    fallback text;
    keywords text;
    terms text;
    statement text;
    filed bigint;
BEGIN
    SELECT quote_ident(nspname), relname, pronamespace::regnamespace, convert_from(trim(trailing '\x00' FROM tgargs), 'UTF8')
      INTO STRICT place, name, functions, fallback
      FROM pg_trigger
      JOIN pg_proc ON pg_proc.oid = tgfoid
      JOIN pg_class ON pg_class.oid = tgrelid
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE tgrelid = documents_table AND tgname = 'synapse_keywords_insert';
    keywords := place || '.' || quote_ident(name || '_keywords');
    terms := place || '.' || quote_ident(name || '_terms');
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', documents_table);
    EXECUTE format('TRUNCATE %s, %s', keywords, terms);
    EXECUTE format('DROP INDEX IF EXISTS %s.%I', place, name || '_keywords_terms');
    -- Parsed into a table of its own, which PostgreSQL does with all its workers; an INSERT it does not.
    EXECUTE format('SELECT %s.synapse_parsing($1, $2)', functions) INTO statement
      USING format('SELECT id, concat_ws(E''\n'', meta ->> ''title'', meta ->> ''heading'', content) AS text,
                           %s.synapse_text_search(meta ->> ''language'', %L) AS language
                      FROM %s', functions, fallback, documents_table),
            functions;
    EXECUTE 'CREATE TEMPORARY TABLE synapse_parsed ON COMMIT DROP AS ' || statement;
    EXECUTE format('SELECT %s.synapse_keywords_statement(''in'', ''TABLE synapse_parsed'', $1, $2, $3)', functions) INTO statement
      USING keywords, terms, functions;
    EXECUTE statement;
    DROP TABLE synapse_parsed;
    -- Every search reads the whole list of pending entries: at most 1 MB of it, half a millisecond.
    EXECUTE format('CREATE INDEX %I ON %s USING gin (terms) WITH (gin_pending_list_limit = 1024)', name || '_keywords_terms',
                   keywords);
    EXECUTE format('SELECT count(*) FROM %s', keywords) INTO filed;
    RETURN filed;
END
$$;

-- database/tenancy_functions.sql

-- Tenants. Each has a role of its own, which a transaction takes, and its documents with their ledger in a schema of its own:
-- `synapse_tenant_acme` and `tenant_acme`; the tenant `default` has the schema public. On these tables, the only policy is that
-- the tenant's role may do everything, so that no condition stands between a filter and its index: under a policy that looks
-- at rows or settings, PostgreSQL gives jsonb and array operators no index, as they are not leakproof.

-- The tenant whose role the transaction has taken; NULL where none is taken. For policies of tables that all tenants share.
CREATE OR REPLACE FUNCTION synapse_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN starts_with(current_user, 'synapse_tenant_') THEN substr(current_user, 16) END
$$;

-- Close a table or view to everyone but its owner; to Supabase's API roles, too, who get new ones by default.
CREATE OR REPLACE FUNCTION synapse_close(place text, name text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    role_name text;
BEGIN
    EXECUTE format('REVOKE ALL ON %I.%I FROM PUBLIC', place, name);
    FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON %I.%I FROM %I', place, name, role_name);
    END LOOP;
END
$$;

-- Whether programs from before tenants (schema versions below 0004) are let in: they use the default tenant's tables as
-- `synapse_app`, and take no role. An upgrade that finds documents leaves it so, until `database upgrade --finish`.
CREATE OR REPLACE FUNCTION synapse_lets_old_programs_in() RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS given
                    WHERE oid = to_regclass('public.sources') AND given.grantee = to_regrole('synapse_app'))
       AND to_regrole('synapse_tenant_default') IS NOT NULL
$$;

-- Tables of the default tenant that are open to programs from before tenants; `sources`, which tells, last.
CREATE OR REPLACE FUNCTION synapse_tables_of_old_programs() RETURNS SETOF text
LANGUAGE sql STABLE
AS $$
    SELECT relname
      FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
       AND relname NOT IN ('alembic_version', 'embedding_models', 'tenants')
       AND EXISTS (SELECT FROM aclexplode(relacl) AS given WHERE given.grantee = to_regrole('synapse_app'))
       AND to_regrole('synapse_tenant_default') IS NOT NULL
     ORDER BY relname = 'sources', relname
$$;

-- Take one of them from programs from before tenants.
CREATE OR REPLACE FUNCTION synapse_shut_out_old_programs(name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON public.%I FROM synapse_app', name);
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = format('public.%I', name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('ALTER POLICY synapse_tenant ON public.%I TO synapse_tenant_default', name);
    END IF;
END
$$;

-- Close a table to everyone but its tenant, as its schema tells; Supabase's API roles and the owner included. Elsewhere, and where
-- there are no roles of tenants, the application's role itself may use it.
CREATE OR REPLACE FUNCTION synapse_bind_table(place text, name text, rights text DEFAULT 'SELECT, INSERT, UPDATE, DELETE')
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    tenant text := CASE WHEN place = 'public' THEN 'default' WHEN starts_with(place, 'tenant_') THEN substr(place, 8) END;
    bound text := (SELECT rolname FROM pg_roles WHERE rolname = 'synapse_tenant_' || tenant);
    application text := (SELECT rolname FROM pg_roles WHERE rolname = 'synapse_app');
    lets_old_programs_in boolean := place = 'public' AND synapse_lets_old_programs_in();
BEGIN
    PERFORM synapse_close(place, name);
    IF application IS NOT NULL AND (bound IS NULL OR lets_old_programs_in) THEN
        EXECUTE format('GRANT %s ON %I.%I TO synapse_app', rights, place, name);
    ELSIF application IS NOT NULL THEN
        EXECUTE format('REVOKE ALL ON %I.%I FROM synapse_app', place, name);
    END IF;
    IF bound IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT %s ON %I.%I TO %I', rights, place, name, bound);
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = format('%I.%I', place, name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', place, name);
        EXECUTE format('CREATE POLICY synapse_tenant ON %I.%I TO %I%s USING (true) WITH CHECK (true)', place, name, bound,
                       CASE WHEN lets_old_programs_in THEN ', synapse_app' ELSE '' END);
    END IF;
END
$$;

-- Open a table of the default tenant again, to its role and to programs from before tenants: for a downgrade.
CREATE OR REPLACE FUNCTION synapse_unbind_table(name text, rights text DEFAULT 'SELECT, INSERT, UPDATE, DELETE') RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF to_regrole('synapse_app') IS NOT NULL THEN
        EXECUTE format('GRANT %s ON public.%I TO synapse_app', rights, name);
    END IF;
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = format('public.%I', name)::regclass AND polname = 'synapse_tenant') THEN
        EXECUTE format('DROP POLICY synapse_tenant ON public.%I', name);
        EXECUTE format('ALTER TABLE public.%I DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', name);
    END IF;
END
$$;

-- Give a table that all tenants share, with a column `tenant`, to the tenants: each sees and writes its own rows.
CREATE OR REPLACE FUNCTION synapse_bind_rows(name text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
    EXECUTE format('DROP POLICY IF EXISTS synapse_tenant_rows ON %I', name);
    EXECUTE format(
        'CREATE POLICY synapse_tenant_rows ON %I USING (tenant = synapse_tenant()) WITH CHECK (tenant = synapse_tenant())', name);
    PERFORM synapse_close('public', name);
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_tenant', name);
    END IF;
END
$$;

-- The role of a tenant, taken by `synapse_app` and by the owner; what is there already stays.
CREATE OR REPLACE FUNCTION synapse_create_tenant_role(tenant text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    bound text := 'synapse_tenant_' || tenant;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = bound) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', bound);
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- in another database of this server, just now
    END;
    -- Taken, never inherited: without a tenant, the application sees nothing. An owner that policies bind inherits it. What is
    -- granted already is left: roles belong to all databases of a server, and may be another owner's to grant.
    IF NOT pg_has_role(bound, 'synapse_tenant', 'USAGE') THEN
        EXECUTE format('GRANT synapse_tenant TO %I', bound);
    END IF;
    IF NOT pg_has_role('synapse_app', bound, 'SET') THEN
        EXECUTE format('GRANT %I TO synapse_app WITH INHERIT FALSE, SET TRUE', bound);
    END IF;
    IF NOT pg_has_role(bound, 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET TRUE', bound);
    END IF;
END
$$;

-- A tenant with its role, its schema, its ledger and a documents table per embedding model; what is there already stays.
CREATE OR REPLACE FUNCTION synapse_create_tenant(tenant text) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    place text := CASE tenant WHEN 'default' THEN 'public' ELSE 'tenant_' || tenant END;
    bound text := 'synapse_tenant_' || tenant;
    path text := current_setting('search_path');
    name text;
    model record;
BEGIN
    IF tenant !~ '^[a-z][a-z0-9_]{0,39}$' THEN
        RAISE EXCEPTION 'a tenant''s name has 1 to 40 of a to z, 0 to 9 and _, a letter first, but is %', tenant
            USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('synapse schema'));
    PERFORM synapse_create_tenant_role(tenant);

    IF tenant <> 'default' THEN
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', place);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', place, bound);
        FOREACH name IN ARRAY ARRAY['sources', 'source_texts', 'source_chunks', 'metadata_fields'] LOOP
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I.%I (LIKE public.%I INCLUDING ALL)', place, name, name);
        END LOOP;
        IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = format('%I.sources', place)::regclass AND contype = 'f') THEN
            EXECUTE format('ALTER TABLE %I.sources ADD FOREIGN KEY (model) REFERENCES public.embedding_models (name)', place);
            FOREACH name IN ARRAY ARRAY['source_texts', 'source_chunks'] LOOP
                EXECUTE format('ALTER TABLE %I.%I ADD FOREIGN KEY (model, source) REFERENCES %I.sources
                                    ON UPDATE CASCADE ON DELETE CASCADE', place, name, place);
            END LOOP;
        END IF;
    END IF;
    FOREACH name IN ARRAY ARRAY['sources', 'source_texts', 'source_chunks', 'metadata_fields'] LOOP
        PERFORM synapse_bind_table(place, name,
            CASE name WHEN 'metadata_fields' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END);
    END LOOP;
    PERFORM set_config('search_path', CASE tenant WHEN 'default' THEN path ELSE place || ', public, extensions' END, true);
    FOR model IN SELECT * FROM public.embedding_models LOOP
        PERFORM synapse_create_documents_table(
            model.table_name, model.dimension, model.vector_type, model.language,
            partitions => coalesce((to_jsonb(model) ->> 'partitions')::integer, 1));  -- of versions that know partitions
    END LOOP;
    PERFORM set_config('search_path', path, true);
    INSERT INTO public.tenants (name) VALUES (tenant) ON CONFLICT DO NOTHING;
END
$$;

-- A model's documents table for every tenant that has none of that name yet.
DROP FUNCTION IF EXISTS synapse_create_tenants_documents(text, integer, text, text);  -- before partitions
CREATE OR REPLACE FUNCTION synapse_create_tenants_documents(
    table_name text, dimension integer, vector_type text, language text, partitions integer DEFAULT 1
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    path text := current_setting('search_path');
    place text;
BEGIN
    FOR place IN SELECT CASE tenants.name WHEN 'default' THEN 'public' ELSE 'tenant_' || tenants.name END FROM public.tenants LOOP
        IF to_regclass(format('%I.%I', place, table_name)) IS NULL THEN
            PERFORM set_config('search_path', place || ', public, extensions', true);
            PERFORM synapse_create_documents_table(table_name, dimension, vector_type, language, partitions => partitions);
        END IF;
    END LOOP;
    PERFORM set_config('search_path', path, true);
END
$$;

-- Everything of a tenant: its schema, its rows in the tables that all tenants share, its role. Returns the rows that went, by table.
CREATE OR REPLACE FUNCTION synapse_drop_tenant(tenant text) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    bound text := 'synapse_tenant_' || tenant;
    counts jsonb := '{}';
    shared record;
    gone bigint;
BEGIN
    IF tenant = 'default' OR NOT EXISTS (SELECT FROM public.tenants WHERE name = tenant) THEN
        RAISE EXCEPTION 'a tenant other than default was expected, but % is none', tenant USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('synapse schema'));
    PERFORM set_config('role', bound, true);  -- the policies of shared tables bind an owner, too
    FOR shared IN SELECT polrelid::regclass AS name FROM pg_policy WHERE polname = 'synapse_tenant_rows' ORDER BY polrelid LOOP
        EXECUTE format('WITH gone AS (DELETE FROM %s RETURNING 1) SELECT count(*) FROM gone', shared.name) INTO gone;
        counts := counts || jsonb_build_object(shared.name::text, gone);
    END LOOP;
    PERFORM set_config('role', 'none', true);
    EXECUTE format('DROP SCHEMA %I CASCADE', 'tenant_' || tenant);
    DELETE FROM public.tenants WHERE name = tenant;
    EXECUTE format('DROP OWNED BY %I', bound);
    BEGIN
        EXECUTE format('DROP ROLE %I', bound);
    EXCEPTION WHEN dependent_objects_still_exist THEN NULL;  -- a tenant of that name in another database of this server
    END;
    RETURN counts;
END
$$;

-- database/create_documents_table.sql

-- One table of documents per embedding model, in exactly pgvector-haystack's layout, with its index and its keyword tables.
-- Brings a table that is there already, made by a plain store or an earlier version, to the same state.
-- Called by the schema versions, by init.sql, by `models add` and by SynapseDocumentStore.create_table().
-- A new table may be cut into partitions by hash of id, each with an index of its own; a table that is there stays as it is cut.
DROP FUNCTION IF EXISTS synapse_create_documents_table(text, integer, text, text, integer, integer);  -- before partitions
CREATE OR REPLACE FUNCTION synapse_create_documents_table(
    table_name text,
    dimension integer,
    vector_type text DEFAULT 'vector',
    language text DEFAULT 'english',
    m integer DEFAULT 8,
    ef_construction integer DEFAULT 48,
    partitions integer DEFAULT 1
) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    most integer := CASE vector_type WHEN 'vector' THEN 2000 WHEN 'halfvec' THEN 4000 END;
    place text := current_schema();  -- what is dropped is named in full: the path goes on to other schemas
    is_new boolean := to_regclass(format('%I.%I', place, table_name)) IS NULL;
    name text;
    role_name text;
BEGIN
    IF most IS NULL THEN
        RAISE EXCEPTION 'vector_type must be vector or halfvec, but is %', vector_type USING ERRCODE = '22023';
    END IF;
    IF dimension NOT BETWEEN 1 AND most THEN
        RAISE EXCEPTION 'an HNSW index on % takes 1 to % dimensions, but the model gives %', vector_type, most, dimension
            USING ERRCODE = '22023';
    END IF;
    IF length(table_name) NOT BETWEEN 1 AND 48 THEN
        RAISE EXCEPTION 'a documents table''s name has 1 to 48 characters, but % has %', table_name, length(table_name)
            USING ERRCODE = '22023';
    END IF;
    IF partitions NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'a documents table has 1 to 1024 partitions, but % were asked for', partitions USING ERRCODE = '22023';
    END IF;

    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS %I (
            id varchar(128) PRIMARY KEY,
            embedding %s(%s),
            content text,
            blob_data bytea,
            blob_meta jsonb,
            blob_mime_type varchar(255),
            meta jsonb
        ) %s', table_name, vector_type, dimension, CASE WHEN partitions > 1 THEN 'PARTITION BY HASH (id)' ELSE '' END);
    -- In line, an exact scan reads vectors four times as fast as from TOAST; a page must still hold a row. Nothing here locks a
    -- table that is complete: an upgrade passes by tables that are in use.
    IF dimension * (CASE vector_type WHEN 'vector' THEN 4 ELSE 2 END) <= 4096
       AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = format('%I.%I', place, table_name)::regclass
                          AND attname = 'embedding' AND attstorage = 'p') THEN
        EXECUTE format('ALTER TABLE %I ALTER COLUMN embedding SET STORAGE PLAIN', table_name);
    END IF;
    -- Reached through the table alone: nobody is given a right on a partition, and row-level security is on there without a policy.
    FOR number IN 0 .. CASE WHEN is_new AND partitions > 1 THEN partitions - 1 ELSE -1 END LOOP
        name := table_name || '_p' || number;
        EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                       name, table_name, partitions, number);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'synapse_app') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', name, role_name);
        END LOOP;
    END LOOP;
    -- Half of pgvector's links, found again by twice the ef_search: the same recall in the same time, and writes twice as fast.
    IF to_regclass(format('%I.%I', place, table_name || '_hnsw_index')) IS NULL
       AND coalesce(obj_description(format('%I.%I', place, table_name)::regclass, 'pg_class') NOT LIKE 'synapse bulk load %', true) THEN
        EXECUTE format(
            'CREATE INDEX %I ON %I USING hnsw (embedding %s_cosine_ops) WITH (m = %s, ef_construction = %s)',
            table_name || '_hnsw_index', table_name, vector_type, m, ef_construction);
    END IF;
    IF synapse_create_keywords(place, table_name, language) THEN
        EXECUTE format('DROP INDEX IF EXISTS %I.%I', place, table_name || '_keyword_index');  -- of who has no keyword tables
        PERFORM synapse_rebuild_keywords(format('%I.%I', place, table_name)::regclass);
    END IF;

    FOREACH name IN ARRAY ARRAY[table_name, table_name || '_keywords', table_name || '_terms'] LOOP
        PERFORM synapse_bind_table(place, name, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE');
    END LOOP;
END
$$;

-- database/schema_versions/versions/0001.sql

-- The application role reads and writes; it does not own, so that row-level security binds it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        CREATE ROLE synapse_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'synapse_app is not made: this user may not create roles; the application connects as the owner';
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- One row per embedding model; questions go to the active one.
CREATE TABLE IF NOT EXISTS embedding_models (
    name text PRIMARY KEY,
    model text NOT NULL,
    dimension integer NOT NULL CHECK (dimension > 0),
    vector_type text NOT NULL DEFAULT 'vector' CHECK (vector_type IN ('vector', 'halfvec')),
    language text NOT NULL DEFAULT 'english',
    table_name text NOT NULL UNIQUE,
    active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS embedding_models_one_active ON embedding_models (active) WHERE active;

-- The ledger: what each source looked like when its chunks were written. A reason means that it is quarantined.
CREATE TABLE IF NOT EXISTS sources (
    model text NOT NULL REFERENCES embedding_models (name),
    source text NOT NULL,
    root text NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    checked_at_ns bigint NOT NULL,
    content_hash text NOT NULL,
    meta_hash text NOT NULL,
    fingerprint text NOT NULL,
    reason text,
    title text,
    mime_type text,
    chunks integer NOT NULL DEFAULT 0,
    indexed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, source)
);

-- Converted text, so that a citation can be opened at its place.
CREATE TABLE IF NOT EXISTS source_texts (
    model text NOT NULL,
    source text NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (model, source),
    FOREIGN KEY (model, source) REFERENCES sources ON UPDATE CASCADE ON DELETE CASCADE
);

-- Which documents are a source's chunks, in reading order.
CREATE TABLE IF NOT EXISTS source_chunks (
    model text NOT NULL,
    document_id varchar(128) NOT NULL,
    source text NOT NULL,
    position integer NOT NULL,
    PRIMARY KEY (model, document_id),
    FOREIGN KEY (model, source) REFERENCES sources ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS source_chunks_by_source ON source_chunks (model, source, position);

-- Closed to everyone, Supabase's API roles included, but the application role.
DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['alembic_version', 'embedding_models', 'sources', 'source_texts', 'source_chunks'] LOOP
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_app', table_name);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        REVOKE INSERT, UPDATE, DELETE ON alembic_version, embedding_models FROM synapse_app;
    END IF;
END
$$;

-- The default model, where there is none yet.
SELECT synapse_create_documents_table('documents_all_minilm_l6_v2', 384)
 WHERE NOT EXISTS (SELECT FROM embedding_models);
INSERT INTO embedding_models (name, model, dimension, table_name, active)
SELECT 'all-minilm-l6-v2', 'sentence-transformers/all-MiniLM-L6-v2', 384, 'documents_all_minilm_l6_v2', true
 WHERE NOT EXISTS (SELECT FROM embedding_models);

-- database/schema_versions/versions/0002.sql

-- Metadata fields that are filtered often: each has an index of its own on the documents table.
CREATE TABLE IF NOT EXISTS metadata_fields (
    table_name text NOT NULL,
    name text NOT NULL,
    type text NOT NULL CHECK (type IN ('number', 'text', 'boolean', 'date')),
    index_name text NOT NULL,
    declared_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, name)
);
DO $$
DECLARE
    role_name text;
BEGIN
    REVOKE ALL ON metadata_fields FROM PUBLIC;
    FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON metadata_fields FROM %I', role_name);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        GRANT SELECT ON metadata_fields TO synapse_app;
    END IF;
END
$$;

-- database/schema_versions/versions/0003.sql

-- Migrations: what each run made, and how far it is. A run is told from others by its source's fingerprint and its targets.
CREATE TABLE IF NOT EXISTS migration_runs (
    id text PRIMARY KEY,
    source_kind text NOT NULL,
    source text NOT NULL,
    fingerprint text NOT NULL,
    options jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    attempts integer NOT NULL DEFAULT 1,
    receipt jsonb
);

-- One row per part of the source and table: the position moves in the transaction that writes the batch before it.
CREATE TABLE IF NOT EXISTS migration_parts (
    run text NOT NULL REFERENCES migration_runs ON DELETE CASCADE,
    part text NOT NULL,
    name text NOT NULL,
    table_name text NOT NULL,
    created_model text,
    switched_from text,
    position jsonb,
    inserted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run, part)
);

-- Documents that a run put into a table that it did not make, and, as they were, those that it replaced or left as they were.
CREATE TABLE IF NOT EXISTS migration_rows (
    run text NOT NULL REFERENCES migration_runs ON DELETE CASCADE,
    table_name text NOT NULL,
    document_id varchar(128) NOT NULL,
    original jsonb,
    PRIMARY KEY (run, table_name, document_id)
);
DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['migration_runs', 'migration_parts', 'migration_rows'] LOOP
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
            EXECUTE format('GRANT SELECT ON %I TO synapse_app', table_name);
        END IF;
    END LOOP;
END
$$;

-- database/schema_versions/versions/0004.sql

-- The tenants that there are. `default` is who nobody else is: its tables stand in public.
CREATE TABLE IF NOT EXISTS tenants (
    name text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);
DO $$
BEGIN
    PERFORM synapse_close('public', name) FROM unnest(ARRAY['tenants', 'embedding_models', 'alembic_version', 'migration_runs',
                                                            'migration_parts', 'migration_rows']) AS name;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_app') THEN
        RETURN;  -- whoever may create no role has no tenants but `default`, whose role the application then is
    END IF;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
            CREATE ROLE synapse_tenant NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN
            RAISE NOTICE 'tenants are not made: this user may not create roles';
            RETURN;
        WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    -- What every tenant may read of what belongs to none.
    GRANT SELECT ON tenants TO synapse_app;
    GRANT SELECT ON embedding_models, alembic_version TO synapse_app, synapse_tenant;
    PERFORM synapse_create_tenant_role('default');
END
$$;

-- database/schema_versions/versions/0004_default_tenant.sql

-- What there is belongs to the tenant `default`.
DO $$
BEGIN
    IF to_regrole('synapse_tenant_default') IS NOT NULL THEN
        PERFORM synapse_create_tenant('default');
        GRANT SELECT ON migration_runs, migration_parts, migration_rows TO synapse_tenant_default;
    END IF;
END
$$;

-- database/schema_versions/versions/0004_old_programs_out.sql

-- Nobody uses a new database without taking the role of a tenant.
SELECT synapse_shut_out_old_programs(name) FROM synapse_tables_of_old_programs() AS name;

-- database/schema_versions/versions/0005.sql

-- Users and conversations. The tenant stands first in every key and every reference, so that no row points into another's.
CREATE TABLE IF NOT EXISTS users (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, name)
);

-- Of a key's secret only its SHA-256 is kept, and its first characters, so that people can tell keys apart.
CREATE TABLE IF NOT EXISTS api_keys (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    label text NOT NULL,
    secret_hash bytea NOT NULL CHECK (length(secret_hash) = 32),
    prefix text NOT NULL,
    daily_tokens bigint CHECK (daily_tokens >= 0),
    requests_per_minute integer CHECK (requests_per_minute >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, secret_hash),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS api_keys_user_id_idx ON api_keys (tenant, user_id);

-- The number of messages also numbers them: taking the next two locks the row, so that turns at once get places of their own.
CREATE TABLE IF NOT EXISTS chat_sessions (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    title text NOT NULL,
    message_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS chat_sessions_user_id_idx ON chat_sessions (tenant, user_id, updated_at, id);

CREATE TABLE IF NOT EXISTS chat_messages (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    session_id uuid NOT NULL,
    position integer NOT NULL,
    role text NOT NULL CHECK (role IN ('user', 'assistant')),
    content text NOT NULL,
    citations jsonb NOT NULL DEFAULT '[]',
    model text,
    timings_ms jsonb NOT NULL DEFAULT '{}',
    supported boolean,
    extractive boolean,
    interrupted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, session_id, position),
    FOREIGN KEY (tenant, session_id) REFERENCES chat_sessions (tenant, id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS feedback (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    message_id uuid NOT NULL,
    mark smallint NOT NULL CHECK (mark IN (1, -1)),
    comment text,
    given_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, message_id),
    FOREIGN KEY (tenant, message_id) REFERENCES chat_messages (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS feedback_given_at_idx ON feedback (tenant, given_at);

-- One row per question. It outlives the conversation, as limits and sums are made from it, and says nothing of what was asked.
CREATE TABLE IF NOT EXISTS usage_logs (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT now(),
    user_id uuid NOT NULL,
    key_id uuid,
    kind text NOT NULL,
    model text,
    tokens_in bigint NOT NULL DEFAULT 0 CHECK (tokens_in >= 0),
    tokens_out bigint NOT NULL DEFAULT 0 CHECK (tokens_out >= 0),
    tokens_estimated boolean NOT NULL DEFAULT false,
    supported boolean,
    interrupted boolean NOT NULL DEFAULT false,
    milliseconds double precision,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, user_id) REFERENCES users (tenant, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant, key_id) REFERENCES api_keys (tenant, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS usage_logs_at_idx ON usage_logs (tenant, at);
CREATE INDEX IF NOT EXISTS usage_logs_user_id_idx ON usage_logs (tenant, user_id, at);
CREATE INDEX IF NOT EXISTS usage_logs_key_id_idx ON usage_logs (tenant, key_id, at);

DO $$
DECLARE
    table_name text;
    role_name text;
BEGIN
    FOREACH table_name IN ARRAY
        ARRAY['users', 'api_keys', 'chat_sessions', 'chat_messages', 'feedback', 'usage_logs']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
        EXECUTE format('DROP POLICY IF EXISTS synapse_tenant_rows ON %I', table_name);
        EXECUTE format(
            'CREATE POLICY synapse_tenant_rows ON %I USING (tenant = synapse_tenant()) WITH CHECK (tenant = synapse_tenant())',
            table_name
        );
        EXECUTE format('REVOKE ALL ON %I FROM PUBLIC', table_name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %I', table_name, role_name);
        END LOOP;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'synapse_tenant') THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO synapse_tenant', table_name);
        END IF;
    END LOOP;
END
$$;

-- database/schema_versions/versions/0006.sql

-- What `recall` measured: how much of the exact answer a table's index finds, with the settings of that time.
CREATE TABLE IF NOT EXISTS recall_certificates (
    tenant text NOT NULL DEFAULT synapse_tenant(),
    table_name text NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now(),
    ef_search integer,
    top_k integer NOT NULL,
    recall double precision NOT NULL CHECK (recall BETWEEN 0 AND 1),
    lower double precision NOT NULL CHECK (lower BETWEEN 0 AND 1),
    certificate jsonb NOT NULL,
    PRIMARY KEY (tenant, table_name, measured_at)
);
SELECT synapse_bind_rows('recall_certificates');

-- Into how many partitions a model's documents tables are cut, each with an index of its own.
ALTER TABLE embedding_models
    ADD COLUMN IF NOT EXISTS partitions integer NOT NULL DEFAULT 1 CHECK (partitions BETWEEN 1 AND 1024);

-- Supabase has pgvector in a schema of its own, which only its own roles may use.
DO $$
BEGIN
    IF has_schema_privilege(to_regnamespace('extensions'), 'USAGE WITH GRANT OPTION') AND to_regrole('synapse_tenant') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA extensions TO synapse_app, synapse_tenant;
    END IF;
END
$$;

-- database/observation_views.sql

-- Views for whoever watches the database. Each is `security_invoker` and names only what the role that asks may read: a tenant sees
-- its own tables and rows, the owner everybody's. Conversations and usage are bound to a tenant's role even for the owner, unless
-- it is a superuser. Days are days in UTC. Columns may be added here, at the end; to change one, drop its view first.

-- Tables of this program that the current role may read; no tenant means that all share it. A partition counts as what it is a
-- part of.
CREATE OR REPLACE VIEW synapse_tables WITH (security_invoker = true) AS
SELECT c.oid AS relation,
       CASE WHEN shared.found THEN NULL WHEN n.nspname = 'public' THEN 'default' ELSE substr(n.nspname, 8) END AS tenant,
       n.nspname AS schema_name,
       c.relname AS table_name,
       c.relkind AS kind
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND (n.nspname = 'public' OR starts_with(n.nspname, 'tenant_'))
  JOIN pg_catalog.pg_class whole ON whole.oid = coalesce(pg_partition_root(c.oid), c.oid)
 CROSS JOIN LATERAL (
           SELECT n.nspname = 'public'
              AND whole.relname IN ('alembic_version', 'api_keys', 'chat_messages', 'chat_sessions', 'embedding_models', 'feedback',
                                    'migration_parts', 'migration_rows', 'migration_runs', 'recall_certificates', 'tenants',
                                    'usage_logs', 'users') AS found
       ) AS shared
 WHERE c.relkind IN ('r', 'p')
   AND (shared.found
        OR whole.relname IN ('metadata_fields', 'source_chunks', 'source_texts', 'sources')
        OR EXISTS (SELECT FROM public.embedding_models m
                    WHERE whole.relname IN (m.table_name, m.table_name || '_keywords', m.table_name || '_terms')))
   AND has_schema_privilege(n.oid, 'USAGE')
   AND has_table_privilege(c.oid, 'SELECT');

-- Bytes of each table, its indexes and what is out of line; rows as the planner estimates them, or before its first look as they
-- were counted when they were written; and rows that wait for VACUUM.
CREATE OR REPLACE VIEW synapse_table_sizes WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       (CASE WHEN c.reltuples < 0 THEN coalesce(s.n_live_tup, 0) ELSE c.reltuples END)::bigint AS estimated_rows,
       coalesce(s.n_dead_tup, 0) AS dead_rows,
       pg_relation_size(t.relation) AS heap_bytes,
       pg_indexes_size(t.relation) AS index_bytes,
       pg_total_relation_size(t.relation) - pg_relation_size(t.relation) - pg_indexes_size(t.relation) AS other_bytes,
       pg_total_relation_size(t.relation) AS total_bytes,
       greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
       greatest(s.last_analyze, s.last_autoanalyze) AS last_analyze
  FROM public.synapse_tables t
  JOIN pg_catalog.pg_class c ON c.oid = t.relation
  LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = t.relation
 WHERE t.kind = 'r';

-- What each index is for: how often it was used since the statistics were reset, when last, and what it costs.
CREATE OR REPLACE VIEW synapse_index_use WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       c.relname AS index_name,
       a.amname AS method,
       coalesce(s.idx_scan, 0) AS scans,
       coalesce(s.idx_tup_read, 0) AS rows_read,
       s.last_idx_scan AS last_used,
       pg_relation_size(i.indexrelid) AS bytes,
       i.indisvalid AS valid,
       i.indisunique AS is_unique  -- it keeps a rule, and is needed even if nothing reads it
  FROM public.synapse_tables t
  JOIN pg_catalog.pg_index i ON i.indrelid = t.relation
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am a ON a.oid = c.relam
  LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
 WHERE t.kind = 'r';

-- How much of what was read stood in PostgreSQL's own memory; what the operating system had in its cache counts as read.
CREATE OR REPLACE VIEW synapse_cache_hits WITH (security_invoker = true) AS
SELECT t.tenant,
       t.schema_name,
       t.table_name,
       coalesce(s.heap_blks_hit, 0) AS heap_hits,
       coalesce(s.heap_blks_read, 0) AS heap_reads,
       s.heap_blks_hit::double precision / nullif(s.heap_blks_hit + s.heap_blks_read, 0) AS heap_hit_ratio,
       coalesce(s.idx_blks_hit, 0) AS index_hits,
       coalesce(s.idx_blks_read, 0) AS index_reads,
       s.idx_blks_hit::double precision / nullif(s.idx_blks_hit + s.idx_blks_read, 0) AS index_hit_ratio
  FROM public.synapse_tables t
  LEFT JOIN pg_catalog.pg_statio_all_tables s ON s.relid = t.relation
 WHERE t.kind = 'r';

-- Every ledger that the current role may read, summed per day. A source that changes moves to the day when it was indexed again.
CREATE OR REPLACE FUNCTION synapse_ledger_days()
RETURNS TABLE (tenant text, day date, model text, sources bigint, chunks bigint, bytes bigint)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    ledger record;
BEGIN
    FOR ledger IN SELECT t.tenant, t.schema_name FROM public.synapse_tables t WHERE t.table_name = 'sources' LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L::text, (indexed_at AT TIME ZONE ''UTC'')::date, model, count(*), sum(chunks), sum(size)::bigint
               FROM %I.sources WHERE reason IS NULL GROUP BY 2, 3', ledger.tenant, ledger.schema_name);
    END LOOP;
END
$$;

-- What came in per day: sources with their chunks and bytes, once per embedding model that holds them, and conversations, of
-- which NULL means that this role sees none.
CREATE OR REPLACE VIEW synapse_growth WITH (security_invoker = true) AS
WITH indexed AS (
    SELECT tenant, day, sum(sources)::bigint AS sources, sum(chunks)::bigint AS chunks, sum(bytes)::bigint AS bytes
      FROM public.synapse_ledger_days()
     GROUP BY tenant, day
), talked AS (
    SELECT tenant, (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS conversations
      FROM public.chat_sessions
     GROUP BY 1, 2
)
SELECT tenant,
       day,
       coalesce(i.sources, 0) AS sources,
       coalesce(i.chunks, 0) AS chunks,
       coalesce(i.bytes, 0) AS bytes,
       CASE WHEN row_security_active('public.chat_sessions') AND public.synapse_tenant() IS NULL THEN NULL
            ELSE coalesce(t.conversations, 0) END AS conversations
  FROM indexed i
  FULL JOIN talked t USING (tenant, day);

-- Sources that are kept out, with the reason, in every ledger that the current role may read.
CREATE OR REPLACE FUNCTION synapse_quarantine() RETURNS TABLE (tenant text, model text, source text, reason text, since timestamptz)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    ledger record;
BEGIN
    FOR ledger IN SELECT t.tenant, t.schema_name FROM public.synapse_tables t WHERE t.table_name = 'sources' LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L::text, model, source, reason, indexed_at FROM %I.sources WHERE reason IS NOT NULL',
            ledger.tenant, ledger.schema_name);
    END LOOP;
END
$$;
CREATE OR REPLACE VIEW synapse_quarantined_sources WITH (security_invoker = true) AS
SELECT tenant, model, source, reason, since FROM public.synapse_quarantine();

-- What pg_stat_statements knows of queries on documents tables, where it is there: installed, loaded, and open to this role. It
-- shows everybody's statements to members of pg_read_all_stats, and to others those that they ran themselves.
CREATE OR REPLACE FUNCTION synapse_statements()
RETURNS TABLE (tenant text, statement text, calls bigint, mean_ms double precision, max_ms double precision,
               total_ms double precision)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    place text := (SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                    WHERE e.extname = 'pg_stat_statements');
BEGIN
    IF place IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        SELECT CASE WHEN starts_with(r.rolname, 'synapse_tenant_') THEN substr(r.rolname, 16) END, s.query, s.calls,
               s.mean_exec_time, s.max_exec_time, s.total_exec_time
          FROM %I.pg_stat_statements s
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid
         WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
           AND s.query ~* '^\s*(--[^\n]*\n\s*)*(SELECT|WITH)\M'
           AND s.query !~* '\m(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\M'
           AND EXISTS (SELECT FROM public.embedding_models m WHERE strpos(s.query, m.table_name) > 0)
        $query$, place);
EXCEPTION
    -- Installed but not in shared_preload_libraries; or closed to this role; or older than PostgreSQL 13's.
    WHEN object_not_in_prerequisite_state OR insufficient_privilege OR undefined_table OR undefined_column THEN RETURN;
END
$$;

-- Where the time goes: statements by pg_stat_statements, where it is there, and questions per day and kind as the service and the
-- commands measured them, from question to answer. Milliseconds; pg_stat_statements knows no percentiles and no days.
CREATE OR REPLACE VIEW synapse_slow_retrievals WITH (security_invoker = true) AS
SELECT 'pg_stat_statements' AS measured_by,
       tenant,
       NULL::date AS day,
       statement AS what,
       calls,
       mean_ms,
       NULL::double precision AS p50_ms,
       NULL::double precision AS p95_ms,
       max_ms,
       total_ms
  FROM public.synapse_statements()
 UNION ALL
SELECT 'usage_logs',
       tenant,
       (at AT TIME ZONE 'UTC')::date,
       kind,
       count(*),
       avg(milliseconds),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY milliseconds),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY milliseconds),
       max(milliseconds),
       sum(milliseconds)
  FROM public.usage_logs
 WHERE milliseconds IS NOT NULL
 GROUP BY 2, 3, 4;

-- Closed to everyone, Supabase's API roles included, but the application's roles.
DO $$
DECLARE
    name text;
    role_name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['synapse_tables', 'synapse_table_sizes', 'synapse_index_use', 'synapse_cache_hits',
                                'synapse_growth', 'synapse_quarantined_sources', 'synapse_slow_retrievals'] LOOP
        PERFORM synapse_close('public', name);
        FOR role_name IN SELECT rolname FROM pg_roles WHERE rolname IN ('synapse_app', 'synapse_tenant') LOOP
            EXECUTE format('GRANT SELECT ON public.%I TO %I', name, role_name);
        END LOOP;
    END LOOP;
END
$$;

COMMIT;
