-- Schema 1: patients, notes, attachments, and who did what to whom.
-- Runs as the schema's owner. The application's role gets SELECT, INSERT, UPDATE and DELETE by the
-- owner's default privileges, so identity columns are used: they need no right to a sequence.

CREATE TABLE patient (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    personnummer text NOT NULL UNIQUE CHECK (personnummer ~ '^[0-9]{12}$'),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE note (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_id bigint NOT NULL REFERENCES patient,
    text       text NOT NULL CHECK (length(text) BETWEEN 1 AND 20000),
    written_by text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX note_patient ON note (patient_id, id);

CREATE TABLE attachment (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    patient_id  bigint NOT NULL REFERENCES patient,
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    path        text NOT NULL CHECK (path = left(sha256, 2) || '/' || sha256),
    sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint NOT NULL CHECK (size_bytes >= 0),
    attached_by text NOT NULL,
    attached_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX attachment_patient ON attachment (patient_id, id);

CREATE TABLE access_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    who        text NOT NULL,
    action     text NOT NULL,
    patient_id bigint REFERENCES patient,
    at         timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX access_log_patient ON access_log (patient_id, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER note_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON note
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attachment_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON attachment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER access_log_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON access_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
