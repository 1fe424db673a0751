-- Schema 2: notes are signed. A signature is a row of its own, because notes are append-only.

CREATE TABLE note_signature (
    note_id   bigint PRIMARY KEY REFERENCES note,
    signed_by text NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER note_signature_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON note_signature
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
