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
