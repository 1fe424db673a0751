//! Whether every attachment is there: those of the manifest's inventory, and those that the database names.
//!
//! Reads the volume, follows no link on it. A message has an attachment's place in what was asked, never its name.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, task::spawn_blocking, time::Instant};
use tokio_postgres::{Client, Row, types::Type};
use valv_crds::drill::DrillReason;

use crate::{
    agent::backup::tree::{self, TarStream},
    archive::manifest::Attachments,
    digest::hex,
    error::chain,
};

/// Rows that are asked for at a time.
const ROWS: i32 = 1000;

/// The attachments are not as they must be, or cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// As one word.
    pub reason: DrillReason,
    /// As a sentence.
    pub message: String,
}

/// Whether the files in `folder` are those of the manifest: as many, and each with its digest.
pub async fn compare_with_manifest(
    folder: &Path,
    expected: &Attachments,
) -> Result<Option<Flaw>, tree::Error> {
    let mut stream = TarStream::of(folder.to_owned());
    let mut buffer = vec![0; 256 * 1024];
    while stream.read(&mut buffer).await.map_err(|_| stream.failure().unwrap_or(tree::Error::Worker))? > 0 {}
    let found = stream.inventory().ok_or(tree::Error::Worker)?;
    if found.files < expected.files {
        let message = format!("{} files were backed up, and {} are restored", expected.files, found.files);
        return Ok(Some(Flaw { reason: DrillReason::AttachmentMissing, message }));
    }
    if (found.files, found.digest) != (expected.files, expected.digest) {
        let message = format!(
            "the {} files that are restored are not the {} of the manifest's inventory",
            found.files, expected.files
        );
        return Ok(Some(Flaw { reason: DrillReason::AttachmentDiffers, message }));
    }
    Ok(None)
}

/// What is odd where the database names so many attachments, and each of them is there: none, though files were backed up. A
/// wrong filter in the tenant's query would prove nothing.
pub fn unnamed(expected: Option<&Attachments>, named: u64) -> Option<String> {
    let files = expected.map_or(0, |expected| expected.files);
    (named == 0 && files > 0).then(|| {
        format!(
            "as in the manifest; but the tenant's inventorySQL names none of the {files} files, so nobody knows whether the database misses any"
        )
    })
}

/// What was found of the attachments that the database names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    asked: u64,
    missing: u64,
    first_missing: u64,
    differing: u64,
    first_differing: u64,
}

impl Tally {
    fn note(&mut self, found: Found) {
        self.asked += 1;
        match found {
            Found::AsNamed => {}
            Found::Missing => {
                self.missing += 1;
                self.first_missing = if self.missing == 1 { self.asked } else { self.first_missing };
            }
            Found::Differing => {
                self.differing += 1;
                self.first_differing = if self.differing == 1 { self.asked } else { self.first_differing };
            }
        }
    }

    fn flaw(self) -> Option<Flaw> {
        let Self { asked, missing, first_missing, differing, first_differing } = self;
        if missing > 0 {
            let message = format!(
                "of {asked} attachments that the database names, {missing} are not there, the first of them number \
                 {first_missing} of the answer; {differing} have another digest"
            );
            Some(Flaw { reason: DrillReason::AttachmentMissing, message })
        } else if differing > 0 {
            let message = format!(
                "of {asked} attachments that the database names, {differing} have another digest, the first of them \
                 number {first_differing} of the answer"
            );
            Some(Flaw { reason: DrillReason::AttachmentDiffers, message })
        } else {
            None
        }
    }
}

/// Whether every attachment that the journal's own query names is in `folder`; how many those are. The query may keep the
/// database busy for `limit`.
pub async fn compare_with_database(
    reader: &mut Client,
    query: &str,
    limit: Duration,
    folder: Option<&Path>,
) -> Result<u64, Flaw> {
    let failed = |error: &tokio_postgres::Error| Flaw {
        reason: DrillReason::SqlFailed,
        message: format!("the tenant's inventorySQL failed: {}", super::questions::cause(error)),
    };
    let statement_timeout = format!("SET statement_timeout = '{}s'", limit.as_secs());
    reader.batch_execute(&statement_timeout).await.map_err(|error| failed(&error))?;
    let transaction =
        reader.build_transaction().read_only(true).start().await.map_err(|error| failed(&error))?;
    let statement = transaction.prepare(query).await.map_err(|error| failed(&error))?;
    let textual = |kind: &Type| [Type::TEXT, Type::VARCHAR, Type::BPCHAR].contains(kind);
    let columns = statement.columns();
    if columns.len() != 2 || !columns.iter().all(|column| textual(column.type_())) {
        let message =
            "the tenant's inventorySQL must answer with two columns of text: path and SHA-256".to_owned();
        return Err(Flaw { reason: DrillReason::SqlFailed, message });
    }
    let portal = transaction.bind(&statement, &[]).await.map_err(|error| failed(&error))?;
    let mut tally = Tally::default();
    // A few rows at a time: what the files take is not the query's time.
    let mut asked = Duration::ZERO;
    loop {
        let began = Instant::now();
        let rows = transaction.query_portal(&portal, ROWS).await.map_err(|error| failed(&error))?;
        asked += began.elapsed();
        if asked > limit {
            let message = format!("the tenant's inventorySQL took longer than {} s", limit.as_secs());
            return Err(Flaw { reason: DrillReason::SqlFailed, message });
        }
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let found = match (named(row), folder) {
                (Some((path, digest)), Some(folder)) => {
                    let folder = folder.to_owned();
                    let looked = spawn_blocking(move || look(&folder, &path, &digest)).await;
                    let looked = looked.map_err(|error| chain(&error)).and_then(|looked| {
                        looked.map_err(|error| {
                            format!("attachment {} could not be read: {error}", tally.asked + 1)
                        })
                    });
                    looked.map_err(|message| Flaw { reason: DrillReason::AttachmentDiffers, message })?
                }
                // A path that is null names nothing that could be there.
                (None, _) | (_, None) => Found::Missing,
            };
            tally.note(found);
        }
    }
    tally.flaw().map_or(Ok(tally.asked), Err)
}

fn named(row: &Row) -> Option<(String, String)> {
    Some((row.try_get(0).ok()?, row.try_get::<_, &str>(1).ok()?.trim().to_ascii_lowercase()))
}

/// What was found where an attachment should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    AsNamed,
    Missing,
    Differing,
}

fn look(folder: &Path, path: &str, digest: &str) -> io::Result<Found> {
    let Some(mut file) = open_below(folder, path)? else { return Ok(Found::Missing) };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            bytes => hasher.update(buffer.get(..bytes).unwrap_or_default()),
        }
    }
    Ok(if hex(&hasher.finalize()) == digest { Found::AsNamed } else { Found::Differing })
}

/// The file at `path` below `folder`, reached without a link; `None` if there is no such file.
fn open_below(folder: &Path, path: &str) -> io::Result<Option<File>> {
    if path.starts_with('/') || path.contains('\0') {
        return Ok(None);
    }
    let pieces: Vec<&str> = path.split('/').filter(|piece| !piece.is_empty() && *piece != ".").collect();
    let Some((name, above)) = pieces.split_last() else { return Ok(None) };
    if pieces.contains(&"..") {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let enter = flags | OFlags::DIRECTORY;
    let mut folder = openat(CWD, folder, enter - OFlags::NOFOLLOW, Mode::empty())?;
    for piece in above {
        folder = match openat(&folder, *piece, enter, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    match openat(&folder, *name, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(Errno::NOENT | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::archive::digest::Blake3;

    /// `printf 'a picture' | sha256sum`
    fn digest(content: &[u8]) -> String {
        hex(&Sha256::digest(content))
    }

    #[test]
    fn an_attachment_is_looked_for_in_the_folder_and_nowhere_else() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("ab")).unwrap();
        fs::write(folder.path().join("ab/röntgen.txt"), "a picture").unwrap();
        fs::write(outside.path().join("x"), "a picture").unwrap();
        symlink(outside.path(), folder.path().join("out")).unwrap();
        symlink(outside.path().join("x"), folder.path().join("link")).unwrap();
        let found = |path: &str| look(folder.path(), path, &digest(b"a picture")).unwrap();

        assert_eq!(found("ab/röntgen.txt"), Found::AsNamed);
        assert_eq!(found("./ab//röntgen.txt"), Found::AsNamed);
        assert_eq!(look(folder.path(), "ab/röntgen.txt", &digest(b"another")).unwrap(), Found::Differing);
        let absolute = outside.path().join("x");
        for path in ["", "ab", "ab/none", "out/x", "link", "ab/../../x", absolute.to_str().unwrap()] {
            assert_eq!(found(path), Found::Missing, "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_told_by_its_place() {
        let mut tally = Tally::default();
        for found in [Found::AsNamed, Found::Differing, Found::Missing, Found::Missing] {
            tally.note(found);
        }

        let flaw = tally.flaw().unwrap();

        assert_eq!(flaw.reason, DrillReason::AttachmentMissing);
        assert!(
            flaw.message.contains("of 4") && flaw.message.contains("2 are not there"),
            "{}",
            flaw.message
        );
        assert!(flaw.message.contains("number 3 of the answer"), "{}", flaw.message);
        assert_eq!(Tally { asked: 3, ..Tally::default() }.flaw(), None);
    }

    #[test]
    fn a_query_that_names_nothing_though_there_are_files_proves_nothing() {
        let backed_up = |files| Attachments { files, digest: Blake3::of(b"") };

        assert!(unnamed(Some(&backed_up(3)), 0).unwrap().contains("none of the 3 files"));
        for (files, named) in [(3, 1), (0, 0)] {
            assert_eq!(unnamed(Some(&backed_up(files)), named), None);
        }
        assert_eq!(unnamed(None, 0), None);
    }

    #[tokio::test]
    async fn files_are_those_of_the_inventory_or_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "one").unwrap();
        fs::write(folder.path().join("b"), "two").unwrap();
        let mut stream = TarStream::of(folder.path().to_owned());
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let inventory = stream.inventory().unwrap();
        let expected = Attachments { files: inventory.files, digest: inventory.digest };
        let reason =
            async || compare_with_manifest(folder.path(), &expected).await.unwrap().map(|flaw| flaw.reason);

        assert_eq!(reason().await, None);
        fs::write(folder.path().join("b"), "tvo").unwrap();
        assert_eq!(reason().await, Some(DrillReason::AttachmentDiffers));
        fs::remove_file(folder.path().join("b")).unwrap();
        assert_eq!(reason().await, Some(DrillReason::AttachmentMissing));
    }
}
