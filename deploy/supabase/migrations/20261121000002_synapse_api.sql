-- Search through Supabase's API: who may read what, functions for RPC, grants. It may be run again at any time.
-- Written from the files in deploy/supabase/; change those and run `python -m deploy.write_supabase`.

BEGIN;

-- Supabase has pgvector in a schema of its own.
SET LOCAL search_path = public, extensions;

-- deploy/supabase/access.sql

-- Who may read what through Supabase's API. The tables themselves stay closed to anon and authenticated; they search through
-- the functions below, which look at this table.

-- A right to read: of a source of the ledger, whose chunks it covers now and after it is indexed again, or of one document, such
-- as a migrated one, that no ledger knows. A reader is a user of Supabase; none stands for everybody, signed in or not. Rights
-- are never taken from metadata: documents bring theirs along, and would say themselves who may read them.
CREATE TABLE IF NOT EXISTS document_readers (
    source text,
    document_id varchar(128),
    reader uuid REFERENCES auth.users (id) ON DELETE CASCADE,
    CHECK (num_nonnulls(source, document_id) = 1),
    UNIQUE NULLS NOT DISTINCT (source, reader, document_id)
);
CREATE INDEX IF NOT EXISTS document_readers_document_id_idx ON document_readers (document_id, reader);
CREATE INDEX IF NOT EXISTS document_readers_reader_idx ON document_readers (reader);
ALTER TABLE document_readers ENABLE ROW LEVEL SECURITY;

-- Whether row-level security does not bind who asks: service_role, the owner in the SQL editor. A SECURITY DEFINER function
-- changes current_user, but not the setting by which the API has taken its role.
CREATE OR REPLACE FUNCTION synapse_sees_all() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = ''
AS $$
    SELECT rolsuper OR rolbypassrls
      FROM pg_catalog.pg_roles
     WHERE rolname = CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END
$$;

-- Whether who asks may read a document of the active model, for policies: the second line, should somebody ever grant SELECT.
CREATE OR REPLACE FUNCTION synapse_may_read(document text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = public, extensions, pg_temp
AS $$
    SELECT synapse_sees_all()
        OR EXISTS (SELECT FROM document_readers
                    WHERE document_id = document AND (reader = auth.uid() OR reader IS NULL))
        OR EXISTS (SELECT FROM source_chunks c JOIN document_readers r ON r.source = c.source
                    WHERE c.model = (SELECT name FROM embedding_models WHERE active)
                      AND c.document_id = document AND (r.reader = auth.uid() OR r.reader IS NULL))
$$;

-- deploy/supabase/search_functions.sql

-- Search through Supabase's API, in the documents of the active model, of the tenant `default`, that who asks may read. The first
-- functions do the work and are nobody's to call. The last three are the API; they run as the owner, whom no policy that looks
-- at rows binds, so that indexes serve.

-- How many documents are wanted: 1 to 200, which is what none stands for, too.
CREATE OR REPLACE FUNCTION synapse_match_count(match_count integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF match_count < 1 THEN
        RAISE EXCEPTION 'match_count must be at least 1, but is %', match_count USING ERRCODE = '22023';
    END IF;
    RETURN least(match_count, 200);
END
$$;

-- The condition that a document passes, twice: of all documents, and of one, named `near`, that a search comes by; and whether
-- comparing all that pass is cheap, as they are few. Values are parameters of the statement: $3 the filter, $4 who asks, $5 the
-- model.
CREATE OR REPLACE FUNCTION synapse_passing(
    filter jsonb, reader uuid, model text, OUT of_all text, OUT of_one text, OUT are_few boolean
)
LANGUAGE plpgsql
SET search_path = public, extensions, pg_temp
AS $$
DECLARE
    readable text := '
        SELECT document_id FROM document_readers WHERE document_id IS NOT NULL AND (reader = $4 OR reader IS NULL)
         UNION ALL
        SELECT c.document_id FROM document_readers r JOIN source_chunks c ON c.model = $5 AND c.source = r.source
         WHERE r.reader = $4 OR r.reader IS NULL';
    one_readable text := '
        SELECT true FROM document_readers r WHERE r.document_id = near.id AND (r.reader = $4 OR r.reader IS NULL)';
    one_by_source text := '
        SELECT true FROM source_chunks c JOIN document_readers r ON r.source = c.source
         WHERE c.model = $5 AND c.document_id = near.id AND (r.reader = $4 OR r.reader IS NULL)';
    plan json;
BEGIN
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'filter must be an object, the metadata that documents must have, but is %', jsonb_typeof(filter)
            USING ERRCODE = '22023';
    END IF;
    of_all := CASE filter WHEN '{}' THEN 'true' ELSE 'meta @> $3' END;
    of_one := of_all;
    are_few := false;
    IF synapse_sees_all() THEN
        RETURN;
    END IF;
    -- The planner knows how many that are, but not how many of a UNION are different, and would take any list for a short one.
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || readable INTO plan USING NULL::text, 0, filter, reader, model;
    are_few := (plan -> 0 -> 'Plan' ->> 'Plan Rows')::float8 <= 3500;
    of_all := of_all || CASE WHEN are_few THEN format(' AND id IN (%s)', readable)
                             ELSE format(' AND (EXISTS (%s) OR EXISTS (%s))', one_readable, one_by_source) END;
    -- LIMIT keeps PostgreSQL from making a list of all that may be read first.
    of_one := of_one || format(' AND coalesce((%s LIMIT 1), (%s LIMIT 1))', one_readable, one_by_source);
END
$$;

-- The nearest documents, nearest first. Where comparing every document that passes is cheap, that is done. Elsewhere, the 500
-- that come first in the index's own order are looked at, and where too few of them pass, every document that passes is compared
-- after all. An iterative scan would go on instead, but its order is too loose far away: it found 88 to 93 of the nearest 100.
CREATE OR REPLACE FUNCTION synapse_nearest(
    query_embedding vector, wanted integer, filter jsonb, OUT ids varchar[], OUT distances double precision[]
)
LANGUAGE plpgsql
SET search_path = public, extensions, pg_temp
SET random_page_cost = 1.1
SET jit = off
AS $$
DECLARE
    model record;
    reader uuid := auth.uid();
    passing record;
    sorted text := 'SELECT array_agg(id ORDER BY distance, id), array_agg(distance ORDER BY distance, id) FROM (%s) AS found';
    index record;
    reach integer;
    exactly text;
    along text;
    plan json;
    before text[];
BEGIN
    SELECT name, table_name, dimension, vector_type INTO STRICT model FROM embedding_models WHERE active;
    IF query_embedding IS NULL OR vector_dims(query_embedding) <> model.dimension THEN
        RAISE EXCEPTION 'query_embedding must have % dimensions, as model % gives them, but has %',
            model.dimension, model.name, coalesce(vector_dims(query_embedding)::text, 'none') USING ERRCODE = '22023';
    END IF;
    passing := synapse_passing(filter, reader, model.name);
    -- The sum keeps the HNSW index out. NaN, of zeros, is greater than any number.
    exactly := format('
        SELECT id, distance
          FROM (SELECT id, embedding <=> $1::%1$s AS distance FROM %2$I AS near
                 WHERE embedding IS NOT NULL AND %3$s
                 ORDER BY (embedding <=> $1::%1$s) + 0
                 LIMIT $2) AS compared
         WHERE distance <> ''NaN''', model.vector_type, model.table_name, passing.of_all);
    -- What the index is on, such as the embeddings in half precision, must be named, or it is not used.
    SELECT pg_get_indexdef(indexrelid, 1, false) AS of,
           CASE WHEN opcname LIKE 'halfvec%' THEN 'halfvec' ELSE 'vector' END AS type,
           (SELECT ceil(sqrt(option_value::float8))::text
              FROM pg_options_to_table(reloptions) WHERE option_name = 'lists') AS probes
      INTO index
      FROM pg_index
      JOIN pg_class c ON c.oid = indexrelid
      JOIN pg_am a ON a.oid = relam
      JOIN pg_opclass o ON o.oid = indclass[0]
     WHERE indrelid = to_regclass(quote_ident(model.table_name)) AND indisvalid AND indpred IS NULL
       AND amname IN ('hnsw', 'ivfflat') AND opcname LIKE '%cosine_ops'
     ORDER BY amname, relname
     LIMIT 1;
    reach := CASE passing.of_one WHEN 'true' THEN wanted ELSE greatest(wanted, 500) END;
    along := format('
        SELECT id, distance
          FROM (SELECT id, embedding <=> $1::%1$s AS distance, %3$s AS passes FROM %2$I AS near
                 ORDER BY %4$s <=> $1::%5$s
                 LIMIT %6$s) AS along_the_index
         WHERE passes AND distance <> ''NaN''
         LIMIT $2', model.vector_type, model.table_name, passing.of_one, coalesce(index.of, 'embedding'),
        coalesce(index.type, model.vector_type), reach);

    IF filter <> '{}' AND NOT passing.are_few THEN
        EXECUTE 'EXPLAIN (FORMAT JSON) ' || exactly INTO plan USING query_embedding, wanted, filter, reader, model.name;
        passing.are_few := (plan -> 0 -> 'Plan' ->> 'Total Cost')::float8 <= 5000;
    END IF;
    IF NOT passing.are_few THEN
        -- Not settings of this function: who restores a dump may not set them before the extension is loaded.
        before := ARRAY[current_setting('hnsw.ef_search'), current_setting('ivfflat.probes')];
        PERFORM set_config('hnsw.ef_search', least(greatest(2 * reach, 200), 1000)::text, true),
                set_config('ivfflat.probes', coalesce(index.probes, before[2]), true);
        EXECUTE format(sorted, along) INTO ids, distances USING query_embedding, wanted, filter, reader, model.name;
        PERFORM set_config('hnsw.ef_search', before[1], true), set_config('ivfflat.probes', before[2], true);
    END IF;
    IF cardinality(ids) = wanted IS NOT TRUE THEN
        EXECUTE format(sorted, exactly) INTO ids, distances USING query_embedding, wanted, filter, reader, model.name;
    END IF;
END
$$;

-- The documents that have words of a question, best first by BM25: the program's own search by words.
CREATE OR REPLACE FUNCTION synapse_worded(question text, wanted integer, filter jsonb) RETURNS varchar[]
LANGUAGE plpgsql
SET search_path = public, extensions, pg_temp
SET random_page_cost = 1.1
SET jit = off
AS $$
DECLARE
    model record;
    passing record;
    ids varchar[];
BEGIN
    SELECT name, table_name INTO STRICT model FROM embedding_models WHERE active;
    passing := synapse_passing(filter, auth.uid(), model.name);
    EXECUTE format($statement$
SELECT array_agg(id ORDER BY score DESC, id) FROM (
-- Best first by the words that they share with the question.
WITH -- The part of a WITH that finds documents by the words of a question, none of which is required: `worded`, the best by BM25, and
-- `asked`, the question's terms with their rarity. Exact, though most matches of common words are never looked at: the documents
-- with the rarest words are weighed first, and a word whose weight, together with all more common ones, cannot lift a document
-- to the level reached is left out (MaxScore: Turtle & Flood, 1995).
totals AS MATERIALIZED (
    SELECT language, sum(documents) AS documents, sum(length) / sum(documents) AS average
      FROM %3$I
     WHERE term = 0
     GROUP BY language
    HAVING sum(documents) > 0
), known AS (
    SELECT totals.language, totals.average, totals.documents, words.term, words.frequency AS asked,
           sum(counts.documents) AS having_it
      FROM totals
      CROSS JOIN LATERAL (SELECT unnest(found[:cardinality(found) / 2]) AS term,
                                 unnest(found[cardinality(found) / 2 + 1:]) AS frequency
                            FROM (SELECT synapse_terms(totals.language, $1) AS found OFFSET 0) AS parsed) AS words
      JOIN %3$I AS counts ON counts.term = words.term
     GROUP BY totals.language, totals.average, totals.documents, words.term, words.frequency
), asked AS MATERIALIZED (
    SELECT term, language, average, having_it, rarity,
           sum(having_it) OVER rarest AS reached,
           2.2 * sum(rarity) OVER (ORDER BY rarity, term DESC) AS at_most,
           ('{' || term || ':1}/1000000000')::sparsevec AS unit
      FROM (SELECT *, asked * ln(1 + (greatest(documents - having_it, 0) + 0.5) / (having_it + 0.5))::float8 AS rarity
              FROM known
             ORDER BY rarity DESC, term
             LIMIT 64) AS rare
    WINDOW rarest AS (ORDER BY rarity DESC, term)
), question AS MATERIALIZED (
    SELECT ('{' || string_agg(term || ':' || rarity::real, ',' ORDER BY term) || '}/1000000000')::sparsevec AS weights,
           array_agg(term) FILTER (WHERE reached <= 2000 OR reached = having_it) AS rarest
      FROM asked
), weighed AS MATERIALIZED (
    SELECT document_id AS id, -(weights <#> (SELECT weights FROM question)) AS weight
      FROM %2$I AS with_the_rarest %4$s
     WHERE terms && (SELECT rarest FROM question)
), level AS (
    SELECT coalesce((SELECT weight FROM weighed ORDER BY weight DESC OFFSET $2 - 1 LIMIT 1), 0) AS reached
), others AS MATERIALIZED (
    SELECT array_agg(term) AS terms
      FROM asked, question, level
     WHERE NOT term = ANY (rarest) AND at_most > level.reached
), worded AS MATERIALIZED (
    SELECT id, weight FROM weighed
     UNION ALL
    SELECT document_id, -(weights <#> (SELECT weights FROM question))
      FROM %2$I AS with_others %4$s
     WHERE terms && (SELECT terms FROM others) AND NOT terms && (SELECT rarest FROM question)
     ORDER BY weight DESC, id
     LIMIT $2
)
SELECT id, score
  FROM (SELECT document_id AS id, score
          FROM %2$I AS kept JOIN worded ON id = document_id, LATERAL (-- BM25 of a row of the keywords table. How often a term stands in the document is computed back from its stored weight.
SELECT coalesce(sum(rarity * (1.2 + 1) * times / (times + 1.2 * (1 - 0.75 + 0.75 * length / average))), 0)::float8
  FROM (SELECT rarity, average, round(weight * (0.3 + 0.9 * length / pivot) / (2.2 - weight)) AS times
          FROM (SELECT rarity, average, -(weights <#> unit) AS weight FROM asked
                 WHERE asked.language = kept.language) AS stored
         WHERE weight > 0) AS frequencies) AS found (score)) AS best
  JOIN %1$I USING (id)
 ORDER BY score DESC, id
 LIMIT $2
) AS found
        $statement$, model.table_name, model.table_name || '_keywords', model.table_name || '_terms',
        CASE WHEN passing.of_all <> 'true' THEN
            format('JOIN (SELECT id FROM %I AS near WHERE %s) AS passing ON passing.id = document_id',
                   model.table_name, passing.of_all)
        END)
       INTO ids USING question, wanted, filter, auth.uid(), model.name;
    RETURN ids;
END
$$;

-- The documents nearest to an embedding that are more similar than the threshold, nearest first. Called by name, it takes what
-- Supabase's examples send, and what LangChain's SupabaseVectorStore sends.
CREATE OR REPLACE FUNCTION match_documents(
    query_embedding vector,
    match_threshold double precision DEFAULT NULL,
    match_count integer DEFAULT NULL,
    filter jsonb DEFAULT '{}'
) RETURNS TABLE (id varchar, content text, metadata jsonb, similarity double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, extensions, pg_temp
AS $$
DECLARE
    wanted integer := synapse_match_count(match_count);
    nearest record := synapse_nearest(query_embedding, wanted, coalesce(filter, '{}'));
BEGIN
    RETURN QUERY EXECUTE format('
        SELECT id, content, meta, 1 - distance
          FROM unnest($1, $2) AS nearest (id, distance) JOIN %I USING (id)
         WHERE $3 IS NULL OR 1 - distance > $3
         ORDER BY distance, id', (SELECT table_name FROM embedding_models WHERE active))
        USING nearest.ids, nearest.distances, match_threshold;
END
$$;

-- The documents nearest to an embedding whose metadata contain the filter.
CREATE OR REPLACE FUNCTION search_documents(query_embedding vector, match_count integer DEFAULT NULL, filter jsonb DEFAULT '{}')
RETURNS TABLE (id varchar, content text, metadata jsonb, similarity double precision)
LANGUAGE sql SECURITY DEFINER
SET search_path = public, extensions, pg_temp
AS $$
    SELECT * FROM match_documents(query_embedding, NULL, match_count, filter)
$$;

-- The documents that are best by words and by embedding together, by reciprocal rank fusion (Cormack et al., 2009) with
-- Supabase's weights and constant.
CREATE OR REPLACE FUNCTION hybrid_search(
    query_text text,
    query_embedding vector,
    match_count integer DEFAULT NULL,
    full_text_weight double precision DEFAULT 1,
    semantic_weight double precision DEFAULT 1,
    rrf_k integer DEFAULT 50,
    filter jsonb DEFAULT '{}'
) RETURNS TABLE (id varchar, content text, metadata jsonb, similarity double precision, score double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, extensions, pg_temp
AS $$
DECLARE
    wanted integer := synapse_match_count(match_count);
    candidates integer := greatest(2 * wanted, 50);
    nearest record := synapse_nearest(query_embedding, candidates, coalesce(filter, '{}'));
    worded varchar[] := synapse_worded(coalesce(query_text, ''), candidates, coalesce(filter, '{}'));
    model record;
BEGIN
    SELECT table_name, vector_type INTO STRICT model FROM embedding_models WHERE active;
    IF rrf_k < 0 OR full_text_weight < 0 OR semantic_weight < 0 THEN
        RAISE EXCEPTION 'rrf_k, full_text_weight and semantic_weight must be at least 0, but are %, % and %',
            rrf_k, full_text_weight, semantic_weight USING ERRCODE = '22023';
    END IF;
    RETURN QUERY EXECUTE format('
        SELECT id, content, meta, 1 - nullif(embedding <=> $3::%2$s, ''NaN''), score
          FROM (SELECT id, sum(weight / ($4 + place)) AS score
                  FROM (SELECT id, place, $5 AS weight FROM unnest($1) WITH ORDINALITY AS worded (id, place)
                         UNION ALL
                        SELECT id, place, $6 FROM unnest($2) WITH ORDINALITY AS nearest (id, place)) AS ranked
                 GROUP BY id
                 ORDER BY score DESC, id
                 LIMIT $7) AS fused
          JOIN %1$I USING (id)
         ORDER BY score DESC, id', model.table_name, model.vector_type)
        USING worded, nearest.ids, query_embedding, rrf_k, full_text_weight, semantic_weight, wanted;
END
$$;

-- deploy/supabase/grants.sql

-- What the API's roles may do: call the search functions. Supabase grants them every new table, view and function in public, so
-- this is for `database upgrade` and `models add`, too: run `SELECT synapse_serve_api()` after them.
CREATE OR REPLACE FUNCTION synapse_serve_api() RETURNS void
LANGUAGE plpgsql
SET search_path = public, extensions, pg_temp
AS $$
DECLARE
    closed record;
    model record;
BEGIN
    FOR closed IN
        SELECT CASE WHEN kind = 'r' THEN 'TABLE' ELSE 'FUNCTION' END AS kind, name
          FROM (SELECT 'f' AS kind, oid::regprocedure::text AS name FROM pg_proc
                 WHERE pronamespace = 'public'::regnamespace AND starts_with(proname, 'synapse_')
                 UNION ALL
                SELECT 'r', oid::regclass::text FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND starts_with(relname, 'synapse_')) AS ours
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC, anon, authenticated', closed.kind, closed.name);
        IF closed.kind = 'FUNCTION' THEN  -- triggers run as who writes
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role, synapse_app, synapse_tenant', closed.name);
        END IF;
    END LOOP;
    GRANT EXECUTE ON FUNCTION synapse_may_read TO anon, authenticated;

    FOR model IN SELECT table_name FROM embedding_models LOOP
        EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %I USING gin (meta jsonb_path_ops)',
                       model.table_name || '_meta_index', model.table_name);
        -- The second line: should SELECT be granted on the table one day, it shows what the functions show.
        EXECUTE format('DROP POLICY IF EXISTS synapse_readers ON %I', model.table_name);
        EXECUTE format('CREATE POLICY synapse_readers ON %I FOR SELECT TO anon, authenticated USING (synapse_may_read(id))',
                       model.table_name);
    END LOOP;
END
$$;

REVOKE ALL ON document_readers FROM PUBLIC, anon, authenticated;
GRANT ALL ON document_readers TO service_role;
REVOKE ALL ON FUNCTION match_documents, search_documents, hybrid_search FROM PUBLIC;
GRANT EXECUTE ON FUNCTION match_documents, search_documents, hybrid_search TO anon, authenticated, service_role;
SELECT synapse_serve_api();

COMMIT;
