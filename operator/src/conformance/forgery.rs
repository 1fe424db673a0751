//! What somebody with the writer's rights can do to a backup: alter a bit, and name what was altered.

use super::trial::Trial;
use crate::{
    archive::{
        digest::Blake3,
        index,
        layout::{DataObject, Part},
        manifest::{Manifest, PageSummary},
    },
    error::chain,
    io::bucket::Put,
};

/// The index of the database, with one segment altered.
pub struct Altered {
    entries: Vec<index::Entry>,
    /// The key of the altered one.
    pub key: String,
    /// Whether the store keeps the true one as an older version.
    pub is_version: bool,
}

impl Trial<'_> {
    /// Alters one bit of one segment of the database of `manifest`.
    ///
    /// # Errors
    /// If the store refuses, in words.
    pub async fn alter(&self, manifest: &Manifest) -> Result<Altered, String> {
        let page = page(manifest)?;
        let key = manifest.folder().key(DataObject::Page(page.key)).to_string();
        let object = self.reader.get(&key, page.version.as_ref()).await.map_err(|error| chain(&error))?;
        let bytes = object.whole(index::PAGE_LIMIT_BYTES).await.map_err(|error| chain(&error))?;
        let mut entries = index::parse(page.key, &bytes).map_err(|error| chain(&error))?;

        let middle = entries.len() / 2;
        let entry = entries.get_mut(middle).ok_or("the database has no segment")?;
        let key = manifest.folder().key(DataObject::Segment(entry.key)).to_string();
        let object = self.reader.get(&key, entry.version.as_ref()).await.map_err(|error| chain(&error))?;
        let mut bytes = object.whole(entry.size).await.map_err(|error| chain(&error))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let version = self.writer.put(&key, bytes.into(), &Put::default()).await;
        entry.version = version.map_err(|error| chain(&error))?;
        let is_version = entry.version.is_some();
        Ok(Altered { entries, key, is_version })
    }

    /// A manifest that names what was altered with the digest of the true one. Its page lies in the store, and it does not.
    ///
    /// # Errors
    /// If the store refuses, in words.
    pub async fn forge(&self, manifest: &Manifest, altered: Altered) -> Result<Manifest, String> {
        let mut pages = index::Pages::of(Part::Database);
        for entry in &altered.entries {
            pages.push(entry).map_err(|error| chain(&error))?;
        }
        let written = pages.finish().ok_or("the index has no page")?;
        let key = manifest.folder().key(DataObject::Page(page(manifest)?.key)).to_string();
        let (size, blake3) = (written.bytes.len() as u64, Blake3::of(&written.bytes));
        let version = self.writer.put(&key, written.bytes.into(), &Put::default()).await;
        let version = version.map_err(|error| chain(&error))?;
        let mut forged = manifest.clone();
        let part = forged.parts.iter_mut().find(|part| part.name == Part::Database);
        let named = part.and_then(|part| part.pages.first_mut()).ok_or("the index has no page")?;
        (named.size, named.blake3, named.version) = (size, blake3, version);
        Ok(forged)
    }
}

/// The one page of the database's index: what is tried here is small.
fn page(manifest: &Manifest) -> Result<&PageSummary, String> {
    let part = manifest.part(Part::Database).ok_or("the manifest has no database")?;
    part.pages.first().ok_or_else(|| "the index has no page".to_owned())
}
