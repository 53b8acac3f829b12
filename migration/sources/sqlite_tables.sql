-- rows --
SELECT {number}, {columns} FROM main.{table} ORDER BY {number}

-- rows_after --
SELECT {number}, {columns} FROM main.{table} WHERE {number} > ? ORDER BY {number}

-- rows_by_key --
SELECT {columns} FROM main.{table} ORDER BY {key} LIMIT -1 OFFSET ?

-- note_gone --
INSERT INTO temp.gone VALUES ({marks})

-- rows_without_parent --
-- A row that has no number is known by its place among all, so that the others are needed, too.
SELECT NOT EXISTS (SELECT 1 FROM main.{to} AS there
                    WHERE {refers} AND NOT EXISTS (SELECT 1 FROM temp.gone WHERE {is_gone})) AS absent,
       {number}, {columns}
  FROM main.{table} AS here
 WHERE {wanted}
 ORDER BY {order}
