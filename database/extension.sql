-- Before anything names its types.
CREATE EXTENSION IF NOT EXISTS vector;
