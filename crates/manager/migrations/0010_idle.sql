-- What becomes of a VM that nobody has used for its idle_timeout_seconds: pause or delete.
ALTER TABLE vms ADD COLUMN idle_action TEXT NOT NULL DEFAULT 'pause';
