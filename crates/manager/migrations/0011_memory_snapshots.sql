-- user_overlay (a disk) or vm (memory, devices and disk), and what a memory snapshot depends on besides its size.
ALTER TABLE snapshots ADD COLUMN kind TEXT NOT NULL DEFAULT 'user_overlay';
ALTER TABLE snapshots ADD COLUMN fits TEXT;
