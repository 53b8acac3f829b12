-- session --
-- Times come back in UTC whatever the server's settings, and a long index build is not cut off.
SELECT set_config('TimeZone', 'UTC', false), set_config('statement_timeout', '0', false)

-- lock --
-- Held by the connection, so that a run that dies leaves nothing to clear away.
SELECT pg_try_advisory_lock(hashtextextended('synapse relational migration', hashtext(%(schema)s))) AS got

-- schema --
-- Whether the schema is there, and which relations are in it.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s) AS found,
       ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s))
                AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S') ORDER BY relname) AS relations

-- create_schema --
CREATE SCHEMA {schema}

-- create_state --
-- One row for the run, whose name is empty, and one for each table: how far it is, and what building it has shown.
CREATE TABLE {state} (
    table_name text PRIMARY KEY,
    oid oid,
    position bigint,
    step text NOT NULL DEFAULT 'loading',
    notes jsonb NOT NULL DEFAULT '{{}}'
)

-- read_state --
SELECT table_name, oid, position, step, notes FROM {state}

-- add_state --
INSERT INTO {state} (table_name, oid, notes) VALUES (%(name)s, to_regclass(%(path)s), %(notes)s)

-- advance --
UPDATE {state} SET position = %(position)s WHERE table_name = %(name)s

-- set_step --
UPDATE {state} SET step = %(step)s, notes = notes || %(notes)s WHERE table_name = %(name)s

-- create_table --
CREATE TABLE {table} ({columns})

-- copy --
COPY {table} ({columns}) FROM STDIN

-- highest --
SELECT max({column}) AS highest, pg_get_serial_sequence(%(path)s, %(column)s) AS sequence FROM {table}

-- set_sequence --
SELECT setval(%(sequence)s::regclass, %(value)s)

-- next_number --
-- The number that comes next is this one plus one, if it has been called.
SELECT last_value FROM pg_sequences
 WHERE format('%%I.%%I', schemaname, sequencename)::regclass = pg_get_serial_sequence(%(path)s, %(column)s)::regclass

-- validated --
-- The table's foreign keys, each with whether PostgreSQL has looked at all rows.
SELECT conname AS name, convalidated AS validated FROM pg_constraint WHERE conrelid = %(path)s::regclass AND contype = 'f'

-- read_by_key --
-- From here on the connection looks rows up through their key, batch by batch. Of its own accord PostgreSQL would read the
-- whole table for each batch, as it takes a page in memory for as dear as one on a slow disk.
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('random_page_cost', '0.1', false)

-- rows_by_key --
SELECT {columns} FROM {table} JOIN unnest({keys}) AS wanted({names}) ON {match}

-- count --
SELECT count(*) AS rows FROM {table}

-- create_expected --
CREATE TEMP TABLE expected ({columns}) ON COMMIT DROP

-- copy_expected --
COPY pg_temp.expected ({columns}) FROM STDIN

-- extra --
SELECT {columns} FROM {table} AS there
 WHERE NOT EXISTS (SELECT FROM pg_temp.expected WHERE {match})

-- relation_oid --
SELECT to_regclass(%(path)s)::oid AS oid

-- schema_is_empty --
SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)))
   AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(%(schema)s)))
   AND NOT EXISTS (SELECT FROM pg_type WHERE typnamespace = to_regnamespace(quote_ident(%(schema)s))) AS empty

-- drop_schema --
DROP SCHEMA {schema}

-- server --
SELECT current_database() AS database, current_setting('server_version') AS server_version
