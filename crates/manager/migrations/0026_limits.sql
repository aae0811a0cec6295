-- JSON object: how fast the VM may use its disk and its network.
ALTER TABLE vms ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
