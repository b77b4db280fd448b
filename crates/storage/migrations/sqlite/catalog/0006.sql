-- The first alerts of an incident that wait for others.

ALTER TABLE incidents ADD COLUMN tell_at INTEGER;
ALTER TABLE incidents ADD COLUMN tell_alert BLOB;
ALTER TABLE incidents ADD COLUMN tell_severity INTEGER;
ALTER TABLE incidents ADD COLUMN tell_alerts INTEGER;
CREATE INDEX idx_incidents_tell ON incidents (tell_at) WHERE tell_at IS NOT NULL;
