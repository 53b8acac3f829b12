-- entries --
-- Everything in the schema but what SQLite keeps for itself, which begins with `sqlite_`.
SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE substr(name, 1, 7) <> 'sqlite_' ORDER BY name

-- count --
SELECT count(*) FROM main.{table}

-- last_number --
-- What AUTOINCREMENT remembers.
SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?

-- index --
SELECT sql FROM main.sqlite_master WHERE type = 'index' AND name = ?

-- table_name --
-- A table's name as it was created; references may write it in other letters.
SELECT name FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE
