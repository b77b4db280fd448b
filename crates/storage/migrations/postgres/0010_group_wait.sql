-- The first alerts of an incident that wait for others.
ALTER TABLE muttd_incidents ADD COLUMN tell_at TIMESTAMPTZ;
ALTER TABLE muttd_incidents ADD COLUMN tell_alert UUID;
ALTER TABLE muttd_incidents ADD COLUMN tell_severity INTEGER;
ALTER TABLE muttd_incidents ADD COLUMN tell_alerts BIGINT;
CREATE INDEX idx_muttd_incidents_tell ON muttd_incidents (tell_at) WHERE tell_at IS NOT NULL;
