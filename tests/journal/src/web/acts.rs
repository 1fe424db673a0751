//! What can be done here, for pages and API alike. Each act is one transaction with its lines in the access log.

use std::time::Duration;

use axum::BoxError;
use axum::body::Bytes;
use futures::Stream;
use tokio::fs::File;

use super::Journal;
use super::failure::Failure;
use crate::access::{Access, AccessEntry, PatientId};
use crate::accounts::HsaId;
use crate::attachments::{self, Attachment, AttachmentId};
use crate::notes::{self, Note, NoteId, Signed};
use crate::patients::{self, Existence, Patient};
use crate::personnummer::Personnummer;
use crate::release::Signing;

/// How long a request waits for the database: as long as a short restart, shorter than a proxy's patience.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a patient's name; the schema has the same limit.
const PATIENT_NAME_MAX: usize = 200;

/// All of one patient.
pub struct Chart {
    pub patient: Patient,
    pub notes: Vec<Note>,
    pub attachments: Vec<Attachment>,
}

/// Begins an act: `$access` in a transaction of its own.
macro_rules! begin {
    ($journal:expr, $who:expr, $access:ident) => {
        let mut connection = $journal.database.connection(PATIENCE).await?;
        let $access = Access::begin(&mut connection, $who).await?;
    };
}

impl Journal {
    pub async fn list(&self, who: HsaId, after: PatientId, count: i64) -> Result<Vec<Patient>, Failure> {
        begin!(self, who, access);
        let patients = patients::list(&access, after, count).await?;
        access.commit().await?;
        Ok(patients)
    }

    pub async fn find(&self, who: HsaId, personnummer: &str) -> Result<Patient, Failure> {
        let personnummer = Personnummer::parse(personnummer).map_err(Failure::Personnummer)?;
        begin!(self, who, access);
        let patient = patients::find(&access, &personnummer).await?.ok_or(Failure::NotFound)?;
        access.commit().await?;
        Ok(patient)
    }

    pub async fn create_patient(
        &self,
        who: HsaId,
        personnummer: &str,
        name: &str,
    ) -> Result<Patient, Failure> {
        let personnummer = Personnummer::parse(personnummer).map_err(Failure::Personnummer)?;
        let name = line(name, "name", PATIENT_NAME_MAX)?;
        begin!(self, who, access);
        let patient = patients::create(&access, &personnummer, name).await?.ok_or(Failure::PatientExists)?;
        access.commit().await?;
        Ok(patient)
    }

    pub async fn patient(&self, who: HsaId, id: PatientId) -> Result<Patient, Failure> {
        begin!(self, who, access);
        let patient = patients::read(&access, id).await?.ok_or(Failure::NotFound)?;
        access.commit().await?;
        Ok(patient)
    }

    pub async fn chart(&self, who: HsaId, id: PatientId) -> Result<Chart, Failure> {
        begin!(self, who, access);
        let patient = patients::read(&access, id).await?.ok_or(Failure::NotFound)?;
        let notes = notes::read(&access, id, self.release.signing()).await?;
        let attachments = attachments::list(&access, id).await?;
        access.commit().await?;
        Ok(Chart { patient, notes, attachments })
    }

    pub async fn notes(&self, who: HsaId, patient: PatientId) -> Result<Vec<Note>, Failure> {
        begin!(self, who, access);
        must_exist(&access, patient).await?;
        let notes = notes::read(&access, patient, self.release.signing()).await?;
        access.commit().await?;
        Ok(notes)
    }

    pub async fn write_note(&self, who: HsaId, patient: PatientId, text: &str) -> Result<NoteId, Failure> {
        // Browsers send line ends as CR LF.
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        let bare = |c: char| c.is_control() && c != '\n' && c != '\t';
        if text.is_empty() || text.chars().count() > notes::TEXT_MAX || text.contains(bare) {
            return Err(Failure::Text { field: "text" });
        }
        begin!(self, who, access);
        must_exist(&access, patient).await?;
        let note = notes::write(&access, patient, text).await?;
        access.commit().await?;
        Ok(note)
    }

    /// Signs a note, and says whose.
    pub async fn sign_note(&self, who: HsaId, id: NoteId) -> Result<PatientId, Failure> {
        if self.release.signing() == Signing::Unknown {
            return Err(Failure::NotFound);
        }
        begin!(self, who, access);
        match notes::sign(&access, id).await? {
            Signed::Now(patient) => {
                access.commit().await?;
                Ok(patient)
            }
            Signed::Already => Err(Failure::AlreadySigned),
            Signed::NoSuchNote => Err(Failure::NotFound),
        }
    }

    pub async fn attachments(&self, who: HsaId, patient: PatientId) -> Result<Vec<Attachment>, Failure> {
        begin!(self, who, access);
        must_exist(&access, patient).await?;
        let attachments = attachments::list(&access, patient).await?;
        access.commit().await?;
        Ok(attachments)
    }

    /// Keeps a file and then enters it: a row never names a file that is not safe on the volume.
    pub async fn attach<E: Into<BoxError>>(
        &self,
        who: HsaId,
        patient: PatientId,
        name: &str,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Attachment, Failure> {
        let name = line(name, "name", attachments::NAME_MAX)?;
        {
            begin!(self, who.clone(), access);
            must_exist(&access, patient).await?;
        }
        let kept = self.attachments.keep(content).await.map_err(Failure::Keep)?;
        begin!(self, who, access);
        let attachment = attachments::write(&access, patient, name, &kept).await?;
        access.commit().await?;
        Ok(attachment)
    }

    /// An attachment and its file, whose digest was checked.
    pub async fn attachment(&self, who: HsaId, id: AttachmentId) -> Result<(Attachment, File), Failure> {
        let attachment = {
            begin!(self, who, access);
            let attachment = attachments::read(&access, id).await?.ok_or(Failure::NotFound)?;
            access.commit().await?;
            attachment
        };
        let file = self.attachments.open_verified(&attachment.sha256).await.map_err(Failure::Attachment)?;
        Ok((attachment, file))
    }

    pub async fn access_log(
        &self,
        who: HsaId,
        patient: Option<PatientId>,
    ) -> Result<Vec<AccessEntry>, Failure> {
        begin!(self, who, access);
        if let Some(patient) = patient {
            must_exist(&access, patient).await?;
        }
        let entries = access.entries(patient).await?;
        access.commit().await?;
        Ok(entries)
    }
}

async fn must_exist(access: &Access<'_>, patient: PatientId) -> Result<(), Failure> {
    match patients::existence(access, patient).await? {
        Existence::Known => Ok(()),
        Existence::Unknown => Err(Failure::NotFound),
    }
}

/// A text of one line: 1 to `max` characters.
fn line<'a>(text: &'a str, field: &'static str, max: usize) -> Result<&'a str, Failure> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > max || text.contains(char::is_control) {
        return Err(Failure::Text { field });
    }
    Ok(text)
}
