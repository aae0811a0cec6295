-- Which storage root the database belongs to: its file `installation` has the same id.
CREATE TABLE installation (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT   NOT NULL
);

-- What a request with an Idempotency-Key makes has the request's claim in its row: it is found there if the answer was not kept.
ALTER TABLE idempotency_keys ADD COLUMN claim TEXT NOT NULL DEFAULT '';
ALTER TABLE vms ADD COLUMN claim TEXT;
ALTER TABLE snapshots ADD COLUMN claim TEXT;
-- Nothing says what those made that an earlier server left unfinished.
DELETE FROM idempotency_keys WHERE response IS NULL;
