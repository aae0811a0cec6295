-- What the memory of a VM's machine depends on, of its last start: a copy of it must not meet other files.
ALTER TABLE vms ADD COLUMN fits TEXT;

-- 1 if a VM has had secrets in the present start of its machine, whose memory may hold them ever after.
ALTER TABLE vms ADD COLUMN secrets_held BIGINT NOT NULL DEFAULT 0;
UPDATE vms SET secrets_held = 1 WHERE secrets IS NOT NULL OR secrets_version > 1;

-- The seed that the VM had been started from, if it was.
ALTER TABLE snapshots ADD COLUMN base_seed TEXT;
