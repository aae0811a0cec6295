-- The audit log of peer calls. `text` and `hash` are the record itself, which is never changed; the other columns repeat
-- parts of it, to be searched by.
CREATE TABLE audit (
    sequence BIGINT NOT NULL PRIMARY KEY,
    text     TEXT   NOT NULL,
    hash     TEXT   NOT NULL,
    time     BIGINT NOT NULL,
    consumer TEXT   NOT NULL,
    provider TEXT,
    alias    TEXT   NOT NULL,
    export   TEXT   NOT NULL,
    outcome  TEXT   NOT NULL
);

CREATE INDEX audit_time ON audit (time);
CREATE INDEX audit_consumer ON audit (consumer, sequence);
CREATE INDEX audit_provider ON audit (provider, sequence);
CREATE INDEX audit_alias ON audit (alias, sequence);
CREATE INDEX audit_outcome ON audit (outcome, sequence);
