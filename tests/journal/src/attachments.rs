//! Attachments: files that are written once, with a digest in the database.

pub mod store;

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::access::{Access, Action, PatientId};
use crate::attachments::store::Kept;
use crate::database::QueryError;

/// Characters of a file's name; the schema has the same limit.
pub const NAME_MAX: usize = 200;

/// An attachment's number.
pub type AttachmentId = i64;

/// An attachment, without its bytes.
#[derive(Serialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub patient_id: PatientId,
    pub name: String,
    /// Below the attachments' folder: `<2 hex>/<sha256>`.
    pub path: String,
    pub sha256: String,
    pub size_bytes: i64,
    pub attached_by: String,
    pub attached_at: Timestamp,
}

/// Enters a file that is already safe on the volume.
pub async fn write(
    access: &Access<'_>,
    patient: PatientId,
    name: &str,
    kept: &Kept,
) -> Result<Attachment, QueryError> {
    const SQL: &str = "INSERT INTO attachment (patient_id, name, path, sha256, size_bytes, attached_by) \
                       VALUES ($1, $2, $3, $4, $5, $6) \
                       RETURNING id, patient_id, name, path, sha256, size_bytes, attached_by, attached_at";
    let transaction = access.to(Action::WriteAttachment, &[patient]).await?;
    let size_bytes = kept.size_bytes.cast_signed();
    transaction
        .query_one(SQL, &[&patient, &name, &kept.path(), &kept.sha256, &size_bytes, &access.who()])
        .await
        .map(|row| attachment(&row))
        .map_err(QueryError::during("enter an attachment"))
}

/// All attachments of a patient, newest first.
pub async fn list(access: &Access<'_>, patient: PatientId) -> Result<Vec<Attachment>, QueryError> {
    const SQL: &str = "SELECT id, patient_id, name, path, sha256, size_bytes, attached_by, attached_at \
                       FROM attachment WHERE patient_id = $1 ORDER BY id DESC";
    let transaction = access.to(Action::ListAttachments, &[patient]).await?;
    let rows = transaction.query(SQL, &[&patient]).await.map_err(QueryError::during("list attachments"))?;
    Ok(rows.iter().map(attachment).collect())
}

/// One attachment, about to be read.
pub async fn read(access: &Access<'_>, id: AttachmentId) -> Result<Option<Attachment>, QueryError> {
    const SQL: &str = "SELECT id, patient_id, name, path, sha256, size_bytes, attached_by, attached_at \
                       FROM attachment WHERE id = $1";
    let row = access.before_log().query_opt(SQL, &[&id]).await;
    let Some(row) = row.map_err(QueryError::during("find an attachment"))? else { return Ok(None) };
    let attachment = attachment(&row);
    access.log(Action::ReadAttachment, &[attachment.patient_id]).await?;
    Ok(Some(attachment))
}

fn attachment(row: &Row) -> Attachment {
    Attachment {
        id: row.get(0),
        patient_id: row.get(1),
        name: row.get(2),
        path: row.get(3),
        sha256: row.get(4),
        size_bytes: row.get(5),
        attached_by: row.get(6),
        attached_at: row.get(7),
    }
}
