-- Which storage root the database belongs to: its file `installation` has the same id.
CREATE TABLE installation (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT   NOT NULL
);
