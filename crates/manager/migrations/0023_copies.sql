-- What the memory of a VM's machine depends on, of its last start: a copy of it must not meet other files.
ALTER TABLE vms ADD COLUMN fits TEXT;
