//! Who did what to whom: written in the transaction of the act itself.
//!
//! Every function that reads or writes a patient takes an [`Access`], and there is no other way to the tables: an
//! act that cannot be logged does not happen.

use std::fmt;

use deadpool_postgres::{Object, Transaction};
use jiff::Timestamp;
use serde::Serialize;

use crate::accounts::HsaId;
use crate::database::QueryError;

/// An open transaction, and who acts in it.
pub struct Access<'a> {
    transaction: Transaction<'a>,
    who: HsaId,
}

/// What can be done to a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    ListPatients,
    FindPatient,
    CreatePatient,
    ReadPatient,
    ReadNotes,
    WriteNote,
    SignNote,
    ListAttachments,
    WriteAttachment,
    ReadAttachment,
    ReadAccessLog,
}

impl Action {
    /// As the database has it.
    pub fn code(self) -> &'static str {
        match self {
            Self::ListPatients => "list_patients",
            Self::FindPatient => "find_patient",
            Self::CreatePatient => "create_patient",
            Self::ReadPatient => "read_patient",
            Self::ReadNotes => "read_notes",
            Self::WriteNote => "write_note",
            Self::SignNote => "sign_note",
            Self::ListAttachments => "list_attachments",
            Self::WriteAttachment => "write_attachment",
            Self::ReadAttachment => "read_attachment",
            Self::ReadAccessLog => "read_access_log",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A patient's number in this database.
pub type PatientId = i64;

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct AccessEntry {
    pub at: Timestamp,
    pub who: String,
    pub action: String,
    pub patient_id: Option<PatientId>,
}

/// Lines shown at once, newest first.
const ENTRIES_MAX: i64 = 200;

impl<'a> Access<'a> {
    /// Begins a transaction in which `who` acts.
    pub async fn begin(connection: &'a mut Object, who: HsaId) -> Result<Self, QueryError> {
        let transaction =
            connection.transaction().await.map_err(QueryError::during("begin a transaction"))?;
        Ok(Self { transaction, who })
    }

    /// Makes the acts and their lines in the log last.
    pub async fn commit(self) -> Result<(), QueryError> {
        self.transaction.commit().await.map_err(QueryError::during("commit"))
    }

    /// Who acts.
    pub fn who(&self) -> &str {
        self.who.as_str()
    }

    /// The transaction, to one who has logged what it is for.
    pub async fn to(&self, action: Action, patients: &[PatientId]) -> Result<&Transaction<'a>, QueryError> {
        self.log(action, patients).await?;
        Ok(&self.transaction)
    }

    /// The transaction, to one who must first learn which patients it is about, and then calls [`Access::log`].
    pub fn before_log(&self) -> &Transaction<'a> {
        &self.transaction
    }

    /// Writes a line for each of `patients`.
    pub async fn log(&self, action: Action, patients: &[PatientId]) -> Result<(), QueryError> {
        const SQL: &str = "INSERT INTO access_log (who, action, patient_id) SELECT $1, $2, id FROM unnest($3::bigint[]) AS id";
        let written = self.transaction.execute(SQL, &[&self.who(), &action.code(), &patients]).await;
        written.map(|_| ()).map_err(QueryError::during("write the access log"))
    }

    /// The newest lines, of one patient or of all; reading them is a line too.
    pub async fn entries(&self, patient: Option<PatientId>) -> Result<Vec<AccessEntry>, QueryError> {
        const LOG: &str = "INSERT INTO access_log (who, action, patient_id) VALUES ($1, $2, $3)";
        const READ: &str = "SELECT at, who, action, patient_id FROM access_log \
                            WHERE $1::bigint IS NULL OR patient_id = $1 ORDER BY id DESC LIMIT $2";
        let transaction = &self.transaction;
        let during = QueryError::during("write the access log");
        transaction
            .execute(LOG, &[&self.who(), &Action::ReadAccessLog.code(), &patient])
            .await
            .map_err(during)?;
        let rows = transaction
            .query(READ, &[&patient, &ENTRIES_MAX])
            .await
            .map_err(QueryError::during("read the access log"))?;
        Ok(rows
            .iter()
            .map(|row| AccessEntry {
                at: row.get(0),
                who: row.get(1),
                action: row.get(2),
                patient_id: row.get(3),
            })
            .collect())
    }
}
