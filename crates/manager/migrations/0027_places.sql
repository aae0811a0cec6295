-- What came after what, whatever the clock said: it can be set back.
ALTER TABLE exec_logs ADD COLUMN place BIGINT NOT NULL DEFAULT 0;
UPDATE exec_logs SET place = ranked.place FROM (
    SELECT id, ROW_NUMBER() OVER (PARTITION BY vm_id ORDER BY timestamp, id) AS place FROM exec_logs
) AS ranked WHERE ranked.id = exec_logs.id;
DROP INDEX exec_logs_vm;
CREATE INDEX exec_logs_vm ON exec_logs (vm_id, place, id, bytes);

ALTER TABLE activity ADD COLUMN place BIGINT NOT NULL DEFAULT 0;
UPDATE activity SET place = ranked.place FROM (
    SELECT id, ROW_NUMBER() OVER (ORDER BY created_at, id) AS place FROM activity
) AS ranked WHERE ranked.id = activity.id;
DROP INDEX activity_time;
CREATE INDEX activity_place ON activity (place);
