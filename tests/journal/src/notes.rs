//! Notes: written once, and signed once where the release knows of signatures.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::access::{Access, Action, PatientId};
use crate::database::QueryError;
use crate::release::Signing;

/// Characters of a note; the schema has the same limit.
pub const TEXT_MAX: usize = 20_000;

/// A note's number.
pub type NoteId = i64;

/// A note.
#[derive(Serialize)]
pub struct Note {
    pub id: NoteId,
    pub patient_id: PatientId,
    pub text: String,
    pub written_by: String,
    pub written_at: Timestamp,
    /// Absent where the release does not know of signatures.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// Whether a note is signed.
#[derive(Serialize)]
pub struct Signature {
    pub signed_by: Option<String>,
    pub signed_at: Option<Timestamp>,
}

/// What came of signing.
pub enum Signed {
    /// It is signed now.
    Now(PatientId),
    /// It was signed before.
    Already,
    /// There is no such note.
    NoSuchNote,
}

/// Writes a note of a patient who exists.
pub async fn write(access: &Access<'_>, patient: PatientId, text: &str) -> Result<NoteId, QueryError> {
    const SQL: &str = "INSERT INTO note (patient_id, text, written_by) VALUES ($1, $2, $3) RETURNING id";
    let transaction = access.to(Action::WriteNote, &[patient]).await?;
    let row = transaction.query_one(SQL, &[&patient, &text, &access.who()]).await;
    row.map(|row| row.get(0)).map_err(QueryError::during("write a note"))
}

/// All notes of a patient, newest first.
pub async fn read(
    access: &Access<'_>,
    patient: PatientId,
    signing: Signing,
) -> Result<Vec<Note>, QueryError> {
    let sql = match signing {
        Signing::Unknown => {
            "SELECT id, patient_id, text, written_by, written_at FROM note \
             WHERE patient_id = $1 ORDER BY id DESC"
        }
        Signing::Offered => {
            "SELECT id, patient_id, text, written_by, written_at, signed_by, signed_at \
             FROM note LEFT JOIN note_signature ON note_id = id WHERE patient_id = $1 ORDER BY id DESC"
        }
    };
    let transaction = access.to(Action::ReadNotes, &[patient]).await?;
    let rows = transaction.query(sql, &[&patient]).await.map_err(QueryError::during("read notes"))?;
    Ok(rows.iter().map(|row| note(row, signing)).collect())
}

/// Signs a note.
pub async fn sign(access: &Access<'_>, id: NoteId) -> Result<Signed, QueryError> {
    const FIND: &str = "SELECT patient_id FROM note WHERE id = $1";
    const SIGN: &str =
        "INSERT INTO note_signature (note_id, signed_by) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let found = access.before_log().query_opt(FIND, &[&id]).await;
    let Some(row) = found.map_err(QueryError::during("find a note"))? else { return Ok(Signed::NoSuchNote) };
    let patient: PatientId = row.get(0);
    let transaction = access.to(Action::SignNote, &[patient]).await?;
    let signed = transaction.execute(SIGN, &[&id, &access.who()]).await;
    match signed.map_err(QueryError::during("sign a note"))? {
        0 => Ok(Signed::Already),
        _ => Ok(Signed::Now(patient)),
    }
}

fn note(row: &Row, signing: Signing) -> Note {
    let signature = match signing {
        Signing::Unknown => None,
        Signing::Offered => Some(Signature { signed_by: row.get(5), signed_at: row.get(6) }),
    };
    Note {
        id: row.get(0),
        patient_id: row.get(1),
        text: row.get(2),
        written_by: row.get(3),
        written_at: row.get(4),
        signature,
    }
}
