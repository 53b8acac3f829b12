-- relation --
-- NULL where nothing has this name. A name that is no identifier at all is an error.
SELECT to_regclass(%(name)s)::oid AS oid

-- table_facts --
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relispartition AS is_partition,
       c.relhassubclass AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS has_children,
       c.relforcerowsecurity AND NOT coalesce((SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user), false)
           AS hides_rows,
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned,
       has_schema_privilege(n.oid, 'CREATE') AS may_create, current_user AS role,
       greatest(c.reltuples, 0)::bigint AS rows, pg_table_size(c.oid) AS size, pg_is_in_recovery() AS standby
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = %(table)s

-- columns --
SELECT attname AS name, format_type(atttypid, atttypmod) AS type, attgenerated::text AS generated, attnotnull AS required
  FROM pg_attribute
 WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum

-- keys --
-- What tells rows apart: unique at any moment, without conditions, none of it NULL. The primary key first, then the narrowest.
SELECT array_agg(a.attname::text ORDER BY k.place) AS names,
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.place) AS types
  FROM pg_index i
 CROSS JOIN unnest(i.indkey::smallint[]) WITH ORDINALITY k (number, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
 WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indimmediate
   AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts, c.relname
HAVING bool_and(a.attnotnull) AND count(*) = i.indnkeyatts
 ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname
 LIMIT 1

-- keys_alone --
-- Columns that tell rows apart by themselves, the primary key first.
SELECT a.attname::text AS name
  FROM pg_index i
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_am m ON m.oid = c.relam AND m.amname = 'btree'
 WHERE i.indrelid = %(table)s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indnkeyatts = 1
   AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attnotnull
 GROUP BY a.attname
 ORDER BY bool_or(i.indisprimary) DESC, a.attname

-- vector_type --
SELECT n.nspname AS schema, e.extversion AS version, t.oid, t.typarray AS array_oid
  FROM pg_extension e
  JOIN pg_namespace n ON n.oid = e.extnamespace
  JOIN pg_type t ON t.typname = 'vector' AND t.typnamespace = e.extnamespace
 WHERE e.extname = 'vector'

-- triggers --
-- What an UPDATE of the new column alone would fire, beside ours.
SELECT tgname::text AS name
  FROM pg_trigger
 WHERE tgrelid = %(table)s AND NOT tgisinternal AND tgtype & 16 <> 0 AND tgenabled IN ('O', 'A')
   AND cardinality(tgattr::smallint[]) = 0 AND tgname <> ALL (%(ours)s)
 ORDER BY tgname

-- later_triggers --
-- What may still change the bytes after our trigger has seen them: triggers of one kind fire by name.
SELECT tgname::text AS name
  FROM pg_trigger
 WHERE tgrelid = %(table)s AND NOT tgisinternal AND tgtype & 3 = 3 AND tgtype & 20 <> 0 AND tgenabled <> 'D'
   AND tgname > ALL (%(ours)s)
 ORDER BY tgname

-- update_rules --
SELECT rulename::text AS name FROM pg_rewrite WHERE ev_class = %(table)s AND ev_type = '2' AND ev_enabled <> 'D' ORDER BY 1

-- holders --
-- Whose transactions have touched the table and are still open, oldest first.
SELECT a.pid, a.usename AS role, a.application_name AS program, a.state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
  FROM pg_locks l
  JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'relation' AND l.relation = %(table)s AND l.granted AND a.pid <> ALL (%(ours)s)
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
 GROUP BY a.pid, a.usename, a.application_name, a.state, a.xact_start
 ORDER BY a.xact_start
 LIMIT 3

-- session --
-- Nobody's rules for rows may hide any from a migration, no limit of a role may cut a long step short, and keys must stay what
-- they are as text. A build whose program was killed is given up by its server, where that is new enough.
SELECT set_config(name, value, false)
  FROM (VALUES ('row_security', 'off'), ('search_path', 'pg_catalog'), ('statement_timeout', '0'), ('lock_timeout', '0'),
               ('idle_session_timeout', '0'), ('client_connection_check_interval', '1s'), ('datestyle', 'ISO'),
               ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('extra_float_digits', '1'), ('bytea_output', 'hex'))
       AS wanted (name, value)
 WHERE name IN (SELECT lower(name) FROM pg_settings)

-- lock_run --
SELECT pg_try_advisory_lock(%(class)s, %(table)s::bigint::bit(32)::integer) AS got

-- run_holder --
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = %(class)s AND objid::bigint = %(table)s AND granted

-- state_exists --
SELECT to_regclass(%(state)s) IS NOT NULL AS found

-- create_state --
-- One row for each column that is on its way. It stays until --revert: it is what tells our things from the user's.
CREATE TABLE IF NOT EXISTS {state} (
    table_name text NOT NULL,
    vector_column text NOT NULL,
    bytea_column text NOT NULL,
    dimension integer NOT NULL,
    big_endian boolean NOT NULL,
    index_definition text,
    position text[],
    finished boolean NOT NULL DEFAULT false,
    trigger_wanted boolean NOT NULL DEFAULT true,
    started timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, vector_column)
);
ALTER TABLE {state} ENABLE ROW LEVEL SECURITY  -- without a policy: the owner alone sees it

-- read_state --
SELECT bytea_column, dimension, big_endian, index_definition, position, finished, trigger_wanted
  FROM {state}
 WHERE table_name = %(name)s AND vector_column = %(target)s

-- sample --
-- Of pages taken at random: of a large table the rest is not read.
SELECT {column} AS packed
  FROM {table} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (1)
 WHERE {column} IS NOT NULL
 LIMIT %(count)s

-- first_rows --
-- Where a sample of pages has hit nothing.
SELECT {column} AS packed FROM {table} WHERE {column} IS NOT NULL LIMIT %(count)s

-- count_rows --
SELECT count(*) AS rows, count({column}) AS with_bytes FROM {table}

-- short_transaction --
-- All of it in one message, so that its lock lasts for no round trip: the column, empty for now, and what fills it from then on.
BEGIN;
SET LOCAL lock_timeout = {patience};
SET LOCAL synchronous_commit = local;
{steps};
COMMIT

-- note_state --
INSERT INTO {state} (table_name, vector_column, bytea_column, dimension, big_endian)
VALUES ({name_text}, {target_text}, {column_text}, {dimension}, {big_endian})
ON CONFLICT (table_name, vector_column) DO UPDATE  -- of a column that somebody has dropped
   SET bytea_column = excluded.bytea_column, dimension = excluded.dimension, big_endian = excluded.big_endian,
       index_definition = NULL, position = NULL, finished = false, trigger_wanted = true

-- add_column --
ALTER TABLE {table} ADD COLUMN {target} {vector_schema}.vector({dimension})

-- insert_trigger --
CREATE TRIGGER {insert_trigger} BEFORE INSERT ON {table}
    FOR EACH ROW WHEN (NEW.{column} IS NOT NULL) EXECUTE FUNCTION {function}();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {insert_trigger}

-- update_trigger --
CREATE TRIGGER {update_trigger} BEFORE UPDATE ON {table}
    FOR EACH ROW WHEN (OLD.{column} IS DISTINCT FROM NEW.{column}) EXECUTE FUNCTION {function}();
ALTER TABLE {table} ENABLE ALWAYS TRIGGER {update_trigger}

-- create_function --
-- As its owner, so that it also works for roles that may not use the schema of the type vector.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}

-- function_body --
-- IEEE 754 by arithmetic, as PostgreSQL has no cast: (2^23 + fraction) * 2^(exponent - 150), exactly, in float8. `scales` has a
-- power of two for each sign and exponent, and NULL for that of NaN and infinity. What does not fit leaves NULL, never an error.
DECLARE
    scales CONSTANT float8[] := {scales}::float8[];  -- cast, it is read once; otherwise at each call
    packed bytea;
    numbers float8[];
BEGIN
    NEW.{target} := NULL;
    IF octet_length(NEW.{column}) = {size} THEN
        packed := NEW.{column} || ''::bytea;  -- fetched and uncompressed once, not for each byte
        numbers := ARRAY(
            SELECT scales[1 + get_byte(packed, i + {b3}) * 2 + get_byte(packed, i + {b2}) / 128]
                   * (CASE WHEN get_byte(packed, i + {b2}) > 127 OR get_byte(packed, i + {b3}) & 127 > 0
                           THEN get_byte(packed, i + {b2}) | 128
                           ELSE get_byte(packed, i + {b2}) END * 65536
                      + get_byte(packed, i + {b1}) * 256 + get_byte(packed, i + {b0}))
              FROM (SELECT generate_series(0, {last}, 4)) AS places (i)
        );
        IF array_position(numbers, NULL) IS NULL AND ({keep_zero} OR NOT 0 = ALL (numbers)) THEN
            NEW.{target} := numbers::{vector_schema}.vector;
        END IF;
    END IF;
    RETURN NEW;
END

-- made_triggers --
SELECT tgname::text AS name FROM pg_trigger WHERE tgrelid = %(table)s AND tgname = ANY (%(ours)s)

-- unfilled --
-- The next rows that have bytes and no vector yet, with the version in which they are read.
SELECT ARRAY[{keys_as_text}] AS key, t.xmin::text::bigint AS version, t.{column} AS packed
  FROM {table} t
 WHERE t.{target} IS NULL AND t.{column} IS NOT NULL AND {beyond}
 ORDER BY {keys}
 LIMIT %(limit)s

-- fill --
-- Rows that were changed since they were read are left to the trigger, rows that somebody holds are left for later. All in
-- one statement: its locks last for no round trip, and nothing waits for a program that was killed.
WITH given AS MATERIALIZED (
    SELECT {typed_keys}, version, vector
      FROM unnest({key_arrays}, %(versions)s::bigint[], %(vectors)b) AS given ({key_names}, version, vector)
), free AS MATERIALIZED (
    SELECT t.ctid AS place, given.vector
      FROM given
      JOIN {table} t ON {same_key}
     WHERE t.xmin::text::bigint = given.version AND t.{target} IS NULL
       FOR NO KEY UPDATE OF t SKIP LOCKED
), filled AS (
    UPDATE {table} t SET {target} = free.vector FROM free WHERE t.ctid = free.place RETURNING 1
), noted AS (
    UPDATE {state} SET position = %(position)s WHERE table_name = %(name)s AND vector_column = %(target_name)s
)
SELECT count(*) AS rows FROM filled

-- move_on --
-- Nothing of a batch fits: the position alone moves.
UPDATE {state} SET position = %(position)s WHERE table_name = %(name)s AND vector_column = %(target_name)s

-- rows --
-- Rows with their bytes and, if it is there yet, what stands in the new column, in the binary form that clients are sent.
SELECT ARRAY[{keys_as_text}] AS key, t.{column} AS packed, {sent} AS sent
  FROM {table} t
 WHERE {beyond}
 ORDER BY {keys}
 LIMIT %(limit)s

-- queries --
-- Rows to search for, of pages taken at random.
SELECT ARRAY[{keys_as_text}] AS key, t.{column} AS packed
  FROM {table} t TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (1)
 WHERE t.{target} IS NOT NULL AND t.{column} IS NOT NULL
   AND t.{target} OPERATOR({vector_schema}.<#>) t.{target} < 0
 ORDER BY md5(ARRAY[{keys_as_text}]::text)
 LIMIT %(count)s

-- nearest --
SELECT ARRAY[{keys_as_text}] AS key, t.{column} AS packed
  FROM {table} t
 WHERE t.{target} IS NOT NULL
 ORDER BY {expression} OPERATOR({vector_schema}.{operator}) %(query)s::text::{vector_schema}.{searched_type}
 LIMIT %(count)s

-- search_settings --
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true), set_config(%(name)s, %(value)s, true)

-- index_state --
-- `building` is who is at work on it, perhaps for a program that is gone.
SELECT i.indisvalid AS valid, pg_get_indexdef(i.indexrelid) AS definition,
       EXISTS (SELECT FROM pg_depend d
                 JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s AND a.attname = %(column)s) AS ours,
       (SELECT pid FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS building
  FROM pg_index i
 WHERE i.indexrelid = to_regclass(%(index)s)

-- indexes --
-- All over the new column, by itself or in an expression; they would go with it.
SELECT c.relname::text AS name
  FROM pg_depend d
  JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'i'
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
   AND d.refobjid = %(table)s AND a.attname = %(column)s
 GROUP BY c.relname
 ORDER BY c.relname

-- build_progress --
SELECT phase, blocks_done AS done, blocks_total AS total FROM pg_stat_progress_create_index WHERE pid = %(pid)s

-- create_index --
CREATE INDEX CONCURRENTLY {index_name} ON {table} USING {method} (({expression}) {vector_schema}.{operators}) WITH ({storage})

-- note_index --
UPDATE {state} SET index_definition = %(definition)s WHERE table_name = %(name)s AND vector_column = %(target_name)s

-- constraint_state --
SELECT convalidated AS valid FROM pg_constraint WHERE conrelid = %(table)s AND conname = %(constraint)s

-- add_constraint --
ALTER TABLE {table} ADD CONSTRAINT {constraint} CHECK ({column} IS NULL OR {target} IS NOT NULL) NOT VALID

-- validate_constraint --
ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}

-- note_finish --
UPDATE {state} SET finished = true, trigger_wanted = {trigger_wanted}
 WHERE table_name = {name_text} AND vector_column = {target_text}

-- drop_column --
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {constraint}, DROP COLUMN IF EXISTS {target}

-- forget_state --
DELETE FROM {state} WHERE table_name = {name_text} AND vector_column = {target_text}

-- state_is_empty --
SELECT NOT EXISTS (SELECT FROM {state}) AS empty

-- data_folder --
SELECT current_setting('data_directory') AS folder
