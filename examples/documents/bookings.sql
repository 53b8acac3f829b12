-- Bookings of groups and classes, as the office's database keeps them.

CREATE TABLE groups (
    id integer PRIMARY KEY,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('class', 'private', 'association')),
    people integer NOT NULL CHECK (people BETWEEN 1 AND 28)
);

CREATE TABLE bookings (
    id integer PRIMARY KEY,
    group_id integer NOT NULL REFERENCES groups,
    evening date NOT NULL,
    price_euros numeric(6, 2) NOT NULL,
    moved_from date
);

-- Evenings on which the large dome is fully booked: it holds 28 people at a time, twice an evening.
CREATE VIEW full_evenings AS
SELECT evening, sum(people) AS people
  FROM bookings JOIN groups ON groups.id = group_id
 GROUP BY evening
HAVING sum(people) >= 56;
