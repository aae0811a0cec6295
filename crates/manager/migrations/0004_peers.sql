-- Links of a VM to its providers: JSON array, in the order in which they were asked for.
ALTER TABLE vms ADD COLUMN peer_links TEXT NOT NULL DEFAULT '[]';

-- Hash of the token that the VM's code calls its peers with, in hex; of its last start.
ALTER TABLE vms ADD COLUMN bridge_hash TEXT;

-- Counts the replacements of a VM's secrets, for the audit log.
ALTER TABLE vms ADD COLUMN secrets_version BIGINT NOT NULL DEFAULT 1;
