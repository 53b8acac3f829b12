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
