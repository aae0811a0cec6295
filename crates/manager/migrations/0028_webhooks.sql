-- Where events are sent. `event_types` is a JSON array; `secret` is sealed and in base64 if `sealed` is 1, and else as it is.
CREATE TABLE webhooks (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    url         TEXT   NOT NULL,
    enabled     BIGINT NOT NULL,
    event_types TEXT   NOT NULL,
    secret      TEXT   NOT NULL,
    sealed      BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

-- One for each event and webhook that wants it: `waiting`, then `delivered`, `failed` or `dropped`. `data` is the event, in
-- JSON; the last five columns tell of the last attempt.
CREATE TABLE webhook_deliveries (
    id           TEXT   NOT NULL PRIMARY KEY,
    webhook_id   TEXT   NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    data         TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    due_at       BIGINT NOT NULL,
    attempts     BIGINT NOT NULL DEFAULT 0,
    attempted_at BIGINT,
    duration_ms  BIGINT,
    status       BIGINT,
    error        TEXT
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, state, due_at, id);
CREATE INDEX webhook_deliveries_time ON webhook_deliveries (webhook_id, created_at, id);
