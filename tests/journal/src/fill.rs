//! Writes patients with notes and attachments: the same for the same seed.
//!
//! What a patient is depends on the seed and the patient's place alone, not on how many there are. A fill that was
//! interrupted is run again: patients who are there already are left alone.

mod random;
mod story;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

use self::random::Random;
use self::story::Story;
use crate::access::{Access, Action, PatientId};
use crate::accounts::{AccountsError, HsaId};
use crate::attachments::store::{AttachmentStore, KeepError, Kept};
use crate::database::{Database, DatabaseArguments, DatabaseError, QueryError, Unavailable};
use crate::digest::finish;
use crate::personnummer::{Personnummer, published, same_series};

/// Who fills, in the access log.
const FILLER: &str = "SE2321000016-FILL";
/// Patients in one transaction.
const BATCH: usize = 100;
/// Attachments being written at once: each waits for the disk, and is whole in memory.
const AT_ONCE: usize = 8;
/// How long to wait for the database before each batch.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much to write.
#[derive(Args)]
pub struct FillArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The volume with the attachments.
    #[arg(long, env = "JOURNAL_ATTACHMENTS_DIR")]
    attachments_dir: PathBuf,
    #[command(flatten)]
    amount: Amount,
}

/// How much, and from which seed.
#[derive(Args)]
struct Amount {
    /// How many patients, at most 36520: there are no more test personnummer.
    #[arg(long)]
    patients: usize,
    /// The same seed makes the same patients.
    #[arg(long)]
    seed: u64,
    /// The size of each patient's one attachment; 0 for none.
    #[arg(long, default_value_t = 16 * 1024)]
    attachment_bytes: usize,
    /// Notes of each patient.
    #[arg(long, default_value_t = 5)]
    notes_per_patient: usize,
}

/// Not everything was written. What was, is whole: patient by patient.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("{asked_for} patients are more than the {available} test personnummer")]
    TooMany { asked_for: usize, available: usize },
    #[error("failed to use the database")]
    Database { source: DatabaseError },
    #[error("failed to use JOURNAL_ATTACHMENTS_DIR {folder}")]
    Attachments { folder: PathBuf, source: std::io::Error },
    #[error("failed to name who fills")]
    Filler { source: AccountsError },
    #[error("failed to reach the database")]
    Unavailable { source: Unavailable },
    #[error("failed to keep an attachment")]
    Keep { source: KeepError },
    #[error("failed to write patients")]
    Write { source: QueryError },
}

/// A patient before they are in the database.
struct Draft {
    personnummer: Personnummer,
    story: Story,
    attachment: Option<Kept>,
}

/// Writes them, and prints what was written as one line of JSON.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub async fn fill(arguments: FillArguments) -> Result<(), FillError> {
    let numbers = draw(arguments.amount.seed, arguments.amount.patients)?;
    let database = Database::open(arguments.database).map_err(|source| FillError::Database { source })?;
    let folder = arguments.attachments_dir;
    let store =
        AttachmentStore::open(folder.clone()).map_err(|source| FillError::Attachments { folder, source })?;
    let filler: HsaId = FILLER.parse().map_err(|source| FillError::Filler { source })?;
    let mut content = Sha256::new();
    let (mut created, mut attachments) = (0, 0);

    for batch in numbers.chunks(BATCH) {
        let drafts: Vec<Draft> = stream::iter(batch)
            .map(|personnummer| draft(&store, personnummer, &arguments.amount))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for draft in &drafts {
            draft.add_to(&mut content);
            attachments += usize::from(draft.attachment.is_some());
        }
        created += write(&database, filler.clone(), &drafts).await?;
        tracing::info!(created, "wrote a batch of patients");
    }

    let patients = numbers.len();
    println!(
        "{}",
        json!({
            "patients": patients,
            "created": created,
            "already_there": patients - created,
            "notes": patients * arguments.amount.notes_per_patient,
            "attachments": attachments,
            "attachment_bytes": attachments * arguments.amount.attachment_bytes,
            "content_sha256": finish(content),
        })
    );
    Ok(())
}

/// The first `count` numbers in the seed's order: the published ones come before the rest of their series.
fn draw(seed: u64, count: usize) -> Result<Vec<Personnummer>, FillError> {
    let mut random = Random::of(seed, "personnummer");
    let mut first: Vec<_> = published().collect();
    let mut rest: Vec<_> = same_series().collect();
    random.shuffle(&mut first);
    random.shuffle(&mut rest);
    let available = first.len() + rest.len();
    if count > available {
        return Err(FillError::TooMany { asked_for: count, available });
    }
    Ok(first.into_iter().chain(rest).take(count).collect())
}

async fn draft(
    store: &AttachmentStore,
    personnummer: &Personnummer,
    amount: &Amount,
) -> Result<Draft, FillError> {
    let mut random = Random::of(amount.seed, personnummer.digits());
    let story = Story::invent(&mut random, personnummer.sex(), amount.notes_per_patient);
    let attachment = attach(store, &mut random, amount.attachment_bytes).await?;
    Ok(Draft { personnummer: personnummer.clone(), story, attachment })
}

async fn attach(
    store: &AttachmentStore,
    random: &mut Random,
    bytes: usize,
) -> Result<Option<Kept>, FillError> {
    if bytes == 0 {
        return Ok(None);
    }
    let content = Bytes::from(random.bytes(bytes));
    let stream = stream::iter([Ok::<_, std::convert::Infallible>(content)]);
    store.keep(stream).await.map(Some).map_err(|source| FillError::Keep { source })
}

impl Draft {
    fn add_to(&self, content: &mut Sha256) {
        let notes = self.story.notes.iter().map(|note| note.text.as_str());
        let attachment = self.attachment.iter().map(|kept| kept.sha256.as_str());
        for text in [self.personnummer.digits(), &self.story.name].into_iter().chain(notes).chain(attachment)
        {
            content.update((text.len() as u64).to_le_bytes());
            content.update(text);
        }
    }
}

async fn write(database: &Database, filler: HsaId, drafts: &[Draft]) -> Result<usize, FillError> {
    let connection = database.connection(PATIENCE).await;
    let mut connection = connection.map_err(|source| FillError::Unavailable { source })?;
    let failed = |source| FillError::Write { source };
    let access = Access::begin(&mut connection, filler).await.map_err(failed)?;
    let created = create(&access, drafts).await.map_err(failed)?;
    write_notes(&access, drafts, &created).await.map_err(failed)?;
    write_attachments(&access, drafts, &created).await.map_err(failed)?;
    access.commit().await.map_err(failed)?;
    Ok(created.len())
}

/// Patients by personnummer: those who were not there before.
type Created = HashMap<String, PatientId>;

async fn create(access: &Access<'_>, drafts: &[Draft]) -> Result<Created, QueryError> {
    const SQL: &str = "INSERT INTO patient (personnummer, name, created_by, created_at) \
                       SELECT number, name, $1, at FROM unnest($2::text[], $3::text[], $4::timestamptz[]) \
                       AS draft (number, name, at) ON CONFLICT (personnummer) DO NOTHING RETURNING personnummer, id";
    let numbers: Vec<&str> = drafts.iter().map(|draft| draft.personnummer.digits()).collect();
    let names: Vec<&str> = drafts.iter().map(|draft| draft.story.name.as_str()).collect();
    let moments: Vec<Timestamp> = drafts.iter().map(|draft| draft.story.created_at).collect();
    let rows = access
        .before_log()
        .query(SQL, &[&access.who(), &numbers, &names, &moments])
        .await
        .map_err(QueryError::during("create patients"))?;
    let created: Created = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let ids: Vec<PatientId> = created.values().copied().collect();
    access.log(Action::CreatePatient, &ids).await?;
    Ok(created)
}

async fn write_notes(access: &Access<'_>, drafts: &[Draft], created: &Created) -> Result<(), QueryError> {
    const SQL: &str = "INSERT INTO note (patient_id, text, written_by, written_at) \
                       SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[])";
    let notes = || {
        drafts
            .iter()
            .filter_map(|draft| Some((draft, *created.get(draft.personnummer.digits())?)))
            .flat_map(|(draft, id)| draft.story.notes.iter().map(move |note| (id, note)))
    };
    let ids: Vec<PatientId> = notes().map(|(id, _)| id).collect();
    let texts: Vec<&str> = notes().map(|(_, note)| note.text.as_str()).collect();
    let writers: Vec<&str> = notes().map(|(_, note)| note.written_by.as_str()).collect();
    let moments: Vec<Timestamp> = notes().map(|(_, note)| note.written_at).collect();
    let transaction = access.to(Action::WriteNote, &ids).await?;
    let written = transaction.execute(SQL, &[&ids, &texts, &writers, &moments]).await;
    written.map(|_| ()).map_err(QueryError::during("write notes"))
}

async fn write_attachments(
    access: &Access<'_>,
    drafts: &[Draft],
    created: &Created,
) -> Result<(), QueryError> {
    const SQL: &str = "INSERT INTO attachment \
                       (patient_id, name, sha256, path, size_bytes, attached_by, attached_at) \
                       SELECT id, name, sha256, left(sha256, 2) || '/' || sha256, size, $1, at FROM \
                       unnest($2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[]) \
                       AS draft (id, name, sha256, size, at)";
    let attached = || {
        drafts.iter().filter_map(|draft| {
            Some((*created.get(draft.personnummer.digits())?, draft, draft.attachment.as_ref()?))
        })
    };
    let ids: Vec<PatientId> = attached().map(|(id, _, _)| id).collect();
    let names: Vec<&str> = attached().map(|(_, draft, _)| draft.story.attachment_name.as_str()).collect();
    let digests: Vec<&str> = attached().map(|(_, _, kept)| kept.sha256.as_str()).collect();
    let sizes: Vec<i64> = attached().map(|(_, _, kept)| kept.size_bytes.cast_signed()).collect();
    let moments: Vec<Timestamp> = attached().map(|(_, draft, _)| draft.story.created_at).collect();
    let transaction = access.to(Action::WriteAttachment, &ids).await?;
    let written = transaction.execute(SQL, &[&access.who(), &ids, &names, &digests, &sizes, &moments]).await;
    written.map(|_| ()).map_err(QueryError::during("enter attachments"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_are_drawn_first() {
        let drawn = draw(1, 3652).unwrap();

        assert!(drawn.iter().all(|number| published().any(|other| other == *number)));
    }

    #[test]
    fn more_patients_do_not_change_the_first_ones() {
        assert_eq!(draw(1, 5000).unwrap()[..100], draw(1, 100).unwrap());
    }

    #[test]
    fn another_seed_draws_other_numbers() {
        assert_ne!(draw(1, 100).unwrap(), draw(2, 100).unwrap());
    }

    #[test]
    fn more_patients_than_numbers_are_refused() {
        assert!(draw(1, 36_520).is_ok());
        assert!(matches!(draw(1, 36_521), Err(FillError::TooMany { available: 36_520, .. })));
    }
}
