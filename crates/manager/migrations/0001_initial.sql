-- One SQL for SQLite and Postgres: text, 64-bit integers, booleans as 0 or 1, times in milliseconds since 1970, JSON as text.

CREATE TABLE images (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL,
    description TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    is_default  BIGINT NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX images_one_default ON images (is_default) WHERE is_default = 1;

-- A file without a path lies in the image's own directory; one with a path was given in place and is not ours to remove.
CREATE TABLE image_files (
    image_id    TEXT   NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    kind        TEXT   NOT NULL,
    path        TEXT,
    bytes       BIGINT NOT NULL,
    sha256      TEXT,
    uploaded_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, kind)
);

CREATE TABLE vms (
    id                   TEXT   NOT NULL PRIMARY KEY,
    state                TEXT   NOT NULL,
    cpu                  BIGINT NOT NULL,
    mem_mb               BIGINT NOT NULL,
    disk_bytes           BIGINT NOT NULL,
    image_id             TEXT   NOT NULL,
    host_index           BIGINT NOT NULL,
    guest_ip             TEXT   NOT NULL,
    outbound_internet    BIGINT NOT NULL,
    allow_ips            TEXT   NOT NULL,
    name                 TEXT,
    labels               TEXT   NOT NULL,
    ttl_seconds          BIGINT,
    idle_timeout_seconds BIGINT,
    provision_mode       TEXT   NOT NULL,
    started_from         TEXT,
    timings              TEXT   NOT NULL,
    secrets              TEXT,
    error                TEXT,
    created_at           BIGINT NOT NULL
);

-- The index decides a VM's uid and address; only one living VM has it.
CREATE UNIQUE INDEX vms_host_index ON vms (host_index);
CREATE INDEX vms_image ON vms (image_id);

CREATE TABLE exec_logs (
    id          TEXT   NOT NULL PRIMARY KEY,
    vm_id       TEXT   NOT NULL,
    timestamp   BIGINT NOT NULL,
    type        TEXT   NOT NULL,
    input       TEXT   NOT NULL,
    result      TEXT   NOT NULL,
    duration_ms BIGINT NOT NULL
);

CREATE INDEX exec_logs_vm ON exec_logs (vm_id, timestamp);

CREATE TABLE api_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    name         TEXT   NOT NULL,
    prefix       TEXT   NOT NULL UNIQUE,
    salt         TEXT   NOT NULL,
    hash         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    revoked_at   BIGINT,
    last_used_at BIGINT
);

CREATE TABLE sessions (
    hash       TEXT   NOT NULL PRIMARY KEY,
    email      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE activity (
    id          TEXT   NOT NULL PRIMARY KEY,
    created_at  BIGINT NOT NULL,
    type        TEXT   NOT NULL,
    entity_type TEXT,
    entity_id   TEXT,
    message     TEXT   NOT NULL,
    meta        TEXT
);

CREATE INDEX activity_time ON activity (created_at);

CREATE TABLE idempotency_keys (
    caller       TEXT   NOT NULL,
    scope        TEXT   NOT NULL,
    key          TEXT   NOT NULL,
    request_hash TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    status       BIGINT,
    response     TEXT,
    PRIMARY KEY (caller, scope, key)
);
