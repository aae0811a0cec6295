-- A row is written when the snapshot's files are complete and in place.
CREATE TABLE snapshots (
    id           TEXT   NOT NULL PRIMARY KEY,
    created_at   BIGINT NOT NULL,
    cpu          BIGINT NOT NULL,
    mem_mb       BIGINT NOT NULL,
    image_id     TEXT   NOT NULL,
    source_vm_id TEXT   NOT NULL,
    disk_bytes   BIGINT NOT NULL,
    size_bytes   BIGINT NOT NULL,
    frozen_us    BIGINT NOT NULL
);
