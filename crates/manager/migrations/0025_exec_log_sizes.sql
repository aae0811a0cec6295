-- An entry goes with its VM whoever comes last, and what a VM's entries take is known without reading them. Values beyond
-- what is kept today are left out, and of each VM the oldest entries beyond 16 MiB (KEPT_BYTES_PER_VM).
CREATE TABLE exec_logs_new (
    id          TEXT   NOT NULL PRIMARY KEY,
    vm_id       TEXT   NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    timestamp   BIGINT NOT NULL,
    type        TEXT   NOT NULL,
    input       TEXT   NOT NULL,
    result      TEXT   NOT NULL,
    duration_ms BIGINT NOT NULL,
    bytes       BIGINT NOT NULL
);

INSERT INTO exec_logs_new (id, vm_id, timestamp, type, input, result, duration_ms, bytes)
SELECT id, vm_id, timestamp, type,
       CASE WHEN LENGTH(input) > 262144 THEN '"[left out]"' ELSE input END,
       CASE WHEN LENGTH(result) > 262144 THEN '"[left out]"' ELSE result END,
       duration_ms, 0
FROM exec_logs WHERE vm_id IN (SELECT id FROM vms);

UPDATE exec_logs_new SET bytes = OCTET_LENGTH(input) + OCTET_LENGTH(result);

DELETE FROM exec_logs_new WHERE id IN (
    SELECT id FROM (
        SELECT id, SUM(bytes) OVER (PARTITION BY vm_id ORDER BY timestamp DESC, id DESC) AS total FROM exec_logs_new
    ) AS ranked WHERE total > 16777216
);

DROP TABLE exec_logs;
ALTER TABLE exec_logs_new RENAME TO exec_logs;
CREATE INDEX exec_logs_vm ON exec_logs (vm_id, timestamp, id, bytes);
