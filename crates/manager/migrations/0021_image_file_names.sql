-- Files of our own have a name, too, so that other files take their place by a change of rows. Those from before keep theirs.
ALTER TABLE image_files ADD COLUMN in_place BIGINT NOT NULL DEFAULT 0;
UPDATE image_files SET in_place = 1 WHERE path IS NOT NULL;
UPDATE image_files SET path = kind WHERE path IS NULL;
