-- What a detection rule says, carried along with its alerts (JSON).
ALTER TABLE alerts ADD COLUMN detection TEXT;
