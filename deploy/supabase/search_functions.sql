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
{worded}
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
