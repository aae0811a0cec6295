-- JSON array of the names that a VM may reach.
ALTER TABLE vms ADD COLUMN allow_domains TEXT NOT NULL DEFAULT '[]';
