-- 1 from when a running VM's secrets were replaced until its agent has confirmed that it has the new ones.
ALTER TABLE vms ADD COLUMN secrets_due BIGINT NOT NULL DEFAULT 0;
