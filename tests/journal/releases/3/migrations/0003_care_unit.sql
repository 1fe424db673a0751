-- Schema 3 cannot be applied, on purpose: release 3 is the release whose migration fails.
-- Where there are patients the first statement fails, as a real mistake would; where there are none,
-- the second does. Both undo the whole.

ALTER TABLE patient ADD COLUMN care_unit text NOT NULL;

DO $$
BEGIN
    RAISE EXCEPTION 'release 3 is made to fail: every patient needs a care unit, and there is no register of them';
END
$$;
