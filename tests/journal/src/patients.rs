//! Patients.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use crate::access::{Access, Action, PatientId};
use crate::database::QueryError;
use crate::personnummer::Personnummer;

/// Patients on a page.
pub const PAGE: i64 = 50;

/// A patient, as shown to who may see them.
#[derive(Serialize)]
pub struct Patient {
    pub id: PatientId,
    pub personnummer: String,
    pub name: String,
    pub created_by: String,
    pub created_at: Timestamp,
}

impl Patient {
    /// `YYYYMMDD-NNNN`.
    pub fn personnummer_for_people(&self) -> String {
        let (day, rest) = self.personnummer.split_at_checked(8).unwrap_or((&self.personnummer, ""));
        format!("{day}-{rest}")
    }

    fn of(row: &Row) -> Self {
        Self {
            id: row.get(0),
            personnummer: row.get(1),
            name: row.get(2),
            created_by: row.get(3),
            created_at: row.get(4),
        }
    }
}

/// Creates a patient; `None` if the personnummer has one already.
pub async fn create(
    access: &Access<'_>,
    personnummer: &Personnummer,
    name: &str,
) -> Result<Option<Patient>, QueryError> {
    const SQL: &str = "INSERT INTO patient (personnummer, name, created_by) VALUES ($1, $2, $3) \
                       ON CONFLICT (personnummer) DO NOTHING \
                       RETURNING id, personnummer, name, created_by, created_at";
    let row = access
        .before_log()
        .query_opt(SQL, &[&personnummer.digits(), &name, &access.who()])
        .await
        .map_err(QueryError::during("create a patient"))?;
    logged(access, Action::CreatePatient, row).await
}

/// The patient with this number, if there is one.
pub async fn read(access: &Access<'_>, id: PatientId) -> Result<Option<Patient>, QueryError> {
    const SQL: &str = "SELECT id, personnummer, name, created_by, created_at FROM patient WHERE id = $1";
    let row =
        access.before_log().query_opt(SQL, &[&id]).await.map_err(QueryError::during("read a patient"))?;
    logged(access, Action::ReadPatient, row).await
}

/// The patient with this personnummer, if there is one.
pub async fn find(access: &Access<'_>, personnummer: &Personnummer) -> Result<Option<Patient>, QueryError> {
    const SQL: &str =
        "SELECT id, personnummer, name, created_by, created_at FROM patient WHERE personnummer = $1";
    let row = access
        .before_log()
        .query_opt(SQL, &[&personnummer.digits()])
        .await
        .map_err(QueryError::during("find a patient"))?;
    logged(access, Action::FindPatient, row).await
}

/// Up to `count` patients whose numbers come after `after`; each of them is a line in the access log.
pub async fn list(access: &Access<'_>, after: PatientId, count: i64) -> Result<Vec<Patient>, QueryError> {
    const SQL: &str = "SELECT id, personnummer, name, created_by, created_at FROM patient \
                       WHERE id > $1 ORDER BY id LIMIT $2";
    let rows = access
        .before_log()
        .query(SQL, &[&after, &count])
        .await
        .map_err(QueryError::during("list patients"))?;
    let patients: Vec<_> = rows.iter().map(Patient::of).collect();
    let ids: Vec<_> = patients.iter().map(|patient| patient.id).collect();
    access.log(Action::ListPatients, &ids).await?;
    Ok(patients)
}

async fn logged(
    access: &Access<'_>,
    action: Action,
    row: Option<Row>,
) -> Result<Option<Patient>, QueryError> {
    let Some(patient) = row.as_ref().map(Patient::of) else { return Ok(None) };
    access.log(action, &[patient.id]).await?;
    Ok(Some(patient))
}

/// Whether a patient has this number. Says nothing of the patient, so it is no line in the access log.
pub async fn existence(access: &Access<'_>, id: PatientId) -> Result<Existence, QueryError> {
    let row = access.before_log().query_opt("SELECT FROM patient WHERE id = $1", &[&id]).await;
    let row = row.map_err(QueryError::during("look for a patient"))?;
    Ok(if row.is_some() { Existence::Known } else { Existence::Unknown })
}

/// Whether there is a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    Known,
    Unknown,
}
