-- What a detection rule says, carried along with its alerts (JSON; as text, because people's rules may
-- hold what jsonb refuses).
ALTER TABLE alerts ADD COLUMN detection TEXT;
