//! Where everything lies in a bucket.
//!
//! # Shape
//! Below the store's prefix, and nowhere else:
//!
//! ```text
//! v1/<archive>/data/<slot>/<attempt>/<part>/<8 digits>.age
//! v1/<archive>/data/<slot>/<attempt>/index/<part>-<5 digits>.jsonl
//! v1/<archive>/data/<slot>/<attempt>/manifest.json
//! v1/<archive>/commits/<slot>.json
//! v1/<archive>/keys/<fingerprint>.age
//! v1/<archive>/records/<name>.json
//! ```
//!
//! # Guarantees
//! What parses prints as it was, and what does not parse is none of ours. Each piece is a type that cannot
//! hold a slash, so no key can leave its tenant's folder. `docs/backup-format.md` says the same for people;
//! both change together.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use valv_crds::Slot;

/// The folder of this version of the format.
const FORMAT_FOLDER: &str = "v1";

/// The text is not a key, or not the piece of one that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidName {
    text: String,
    what: &'static str,
}

impl InvalidName {
    fn of(text: &str, what: &'static str) -> Self {
        Self { text: text.to_owned(), what }
    }
}

/// Serialises a name as the text that it prints.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(ArchiveId, Attempt, Part, SegmentName, PageName);

/// Whose archive: a DNS label, 1 to 63 characters. The tenant's name, unless its spec says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId(String);

impl FromStr for ArchiveId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = matches!(bytes.len(), 1..=63)
            && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
            && bytes.first().is_some_and(is_alphanumeric)
            && bytes.last().is_some_and(is_alphanumeric);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidName::of(text, "an archive id")) }
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One run of the agent: its pod's UID, a UUID in lower case. A second run never meets the first one's keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(String);

impl FromStr for Attempt {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let groups: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
        if lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| is_lower_hex(group)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::of(text, "an attempt: a UUID in lower case"))
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A part of a backup: one tar stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The base backup with its WAL.
    Database,
    /// The volume of attachments.
    Attachments,
    /// The tenant's object, and the Secrets that a restore needs.
    Tenant,
}

impl Part {
    /// All parts, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Database, Self::Attachments, Self::Tenant];

    /// Its name in keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Attachments => "attachments",
            Self::Tenant => "tenant",
        }
    }
}

impl FromStr for Part {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let part = Self::ALL.into_iter().find(|part| part.as_str() == text);
        part.ok_or_else(|| InvalidName::of(text, "a part: database, attachments or tenant"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A segment, within its attempt's folder: `database/00000000.age`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Of which part.
    pub part: Part,
    /// Its number, from 0, in the order of the part's stream.
    number: u32,
}

impl SegmentName {
    /// Eight digits: 1.5 PiB of ciphertext a part.
    pub const MOST: u32 = 99_999_999;

    /// The segment of that number, if it is at most [`MOST`](Self::MOST).
    pub fn new(part: Part, number: u32) -> Option<Self> {
        (number <= Self::MOST).then_some(Self { part, number })
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.number
    }
}

impl FromStr for SegmentName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parsed = text.split_once('/').and_then(|(part, file)| {
            let number = digits(file.strip_suffix(".age")?, 8)?;
            Some(Self { part: part.parse().ok()?, number })
        });
        parsed.ok_or_else(|| InvalidName::of(text, "a segment like database/00000000.age"))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{:08}.age", self.part, self.number)
    }
}

/// A page of the index, within its attempt's folder: `index/database-00000.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageName {
    /// Of which part.
    pub part: Part,
    /// Its number, from 0.
    number: u32,
}

impl PageName {
    /// Five digits.
    pub const MOST: u32 = 99_999;

    /// The page of that number, if it is at most [`MOST`](Self::MOST).
    pub fn new(part: Part, number: u32) -> Option<Self> {
        (number <= Self::MOST).then_some(Self { part, number })
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.number
    }
}

impl FromStr for PageName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parsed = text.strip_prefix("index/").and_then(|file| {
            let (part, number) = file.strip_suffix(".jsonl")?.split_once('-')?;
            Some(Self { part: part.parse().ok()?, number: digits(number, 5)? })
        });
        parsed.ok_or_else(|| InvalidName::of(text, "a page like index/database-00000.jsonl"))
    }
}

impl fmt::Display for PageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "index/{}-{:05}.jsonl", self.part, self.number)
    }
}

/// The folder of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Folder {
    /// Whose.
    pub archive: ArchiveId,
    /// For which moment.
    pub slot: Slot,
    /// Of which run.
    pub attempt: Attempt,
}

impl Folder {
    /// The key of something in it.
    pub fn key(&self, object: DataObject) -> Key {
        Key::Data { folder: self.clone(), object }
    }
}

impl fmt::Display for Folder {
    /// With a slash at its end, so that it is the prefix of nothing else.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{FORMAT_FOLDER}/{}/data/{}/{}/", self.archive, self.slot, self.attempt)
    }
}

/// What lies in an attempt's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataObject {
    /// What the agent says that it wrote.
    Manifest,
    /// A segment.
    Segment(SegmentName),
    /// A page of the index.
    Page(PageName),
}

impl FromStr for DataObject {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "manifest.json" => Ok(Self::Manifest),
            page if page.starts_with("index/") => page.parse().map(Self::Page),
            segment => segment.parse().map(Self::Segment),
        }
    }
}

impl fmt::Display for DataObject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => formatter.write_str("manifest.json"),
            Self::Segment(name) => name.fmt(formatter),
            Self::Page(name) => name.fmt(formatter),
        }
    }
}

/// Which recipient a challenge is for: 32 lower-case hexadecimal digits, see
/// [`Recipients::fingerprints`](super::recipients::Recipients::fingerprints).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

impl FromStr for Fingerprint {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() == 32 && is_lower_hex(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::of(text, "a fingerprint: 32 lower-case hexadecimal digits"))
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a record: 1 to 100 letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

impl FromStr for RecordName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if matches!(text.len(), 1..=100) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName::of(text, "a record's name"))
        }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A key below the store's prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What the agent wrote.
    Data {
        /// In which folder.
        folder: Folder,
        /// What.
        object: DataObject,
    },
    /// The operator's word that a backup is complete.
    Commit {
        /// Whose.
        archive: ArchiveId,
        /// For which moment.
        slot: Slot,
    },
    /// A challenge to one recipient.
    Challenge {
        /// Whose.
        archive: ArchiveId,
        /// To which recipient.
        fingerprint: Fingerprint,
    },
    /// A record of a drill.
    Record {
        /// Whose.
        archive: ArchiveId,
        /// Its name.
        name: RecordName,
    },
}

impl Key {
    /// What all keys of `archive` begin with.
    pub fn archive_prefix(archive: &ArchiveId) -> String {
        format!("{FORMAT_FOLDER}/{archive}/")
    }

    /// What the keys of all commits of `archive` begin with.
    pub fn commits_prefix(archive: &ArchiveId) -> String {
        format!("{FORMAT_FOLDER}/{archive}/commits/")
    }

    /// What the keys of all data of `archive` begin with.
    pub fn data_prefix(archive: &ArchiveId) -> String {
        format!("{FORMAT_FOLDER}/{archive}/data/")
    }

    /// What all keys begin with.
    pub fn format_prefix() -> String {
        format!("{FORMAT_FOLDER}/")
    }

    /// Whose it is.
    pub fn archive(&self) -> &ArchiveId {
        match self {
            Self::Data { folder: Folder { archive, .. }, .. }
            | Self::Commit { archive, .. }
            | Self::Challenge { archive, .. }
            | Self::Record { archive, .. } => archive,
        }
    }
}

impl FromStr for Key {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let refused = || InvalidName::of(text, "a key of format 1");
        let pieces: Vec<&str> = text.splitn(4, '/').collect();
        let [FORMAT_FOLDER, archive, kind, rest] = pieces[..] else { return Err(refused()) };
        let archive = archive.parse()?;
        let file = |suffix: &'static str| rest.strip_suffix(suffix).ok_or_else(refused);
        match kind {
            "data" => {
                let pieces: Vec<&str> = rest.splitn(3, '/').collect();
                let [slot, attempt, object] = pieces[..] else { return Err(refused()) };
                let folder = Folder { archive, slot: parse_slot(slot)?, attempt: attempt.parse()? };
                Ok(Self::Data { folder, object: object.parse()? })
            }
            "commits" => Ok(Self::Commit { archive, slot: parse_slot(file(".json")?)? }),
            "keys" => Ok(Self::Challenge { archive, fingerprint: file(".age")?.parse()? }),
            "records" => Ok(Self::Record { archive, name: file(".json")?.parse()? }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { folder, object } => write!(formatter, "{folder}{object}"),
            Self::Commit { archive, slot } => {
                write!(formatter, "{FORMAT_FOLDER}/{archive}/commits/{slot}.json")
            }
            Self::Challenge { archive, fingerprint } => {
                write!(formatter, "{FORMAT_FOLDER}/{archive}/keys/{fingerprint}.age")
            }
            Self::Record { archive, name } => {
                write!(formatter, "{FORMAT_FOLDER}/{archive}/records/{name}.json")
            }
        }
    }
}

/// A slot as a piece of a key.
fn parse_slot(text: &str) -> Result<Slot, InvalidName> {
    text.parse().map_err(|_| InvalidName::of(text, "a slot like 20261122T010000Z"))
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The number that `text` is, if it has exactly `length` digits and nothing else.
fn digits(text: &str, length: usize) -> Option<u32> {
    let valid = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn archives() -> impl Strategy<Value = ArchiveId> {
        "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
    }

    fn slots() -> impl Strategy<Value = Slot> {
        (-62_167_219_200_i64..253_402_207_200)
            .prop_map(|second| Slot::at(Timestamp::from_second(second).unwrap()).unwrap())
    }

    fn parts() -> impl Strategy<Value = Part> {
        prop::sample::select(Part::ALL.to_vec())
    }

    fn objects() -> impl Strategy<Value = DataObject> {
        prop_oneof![
            Just(DataObject::Manifest),
            (parts(), 0..=SegmentName::MOST)
                .prop_map(|(part, number)| DataObject::Segment(SegmentName { part, number })),
            (parts(), 0..=PageName::MOST)
                .prop_map(|(part, number)| DataObject::Page(PageName { part, number })),
        ]
    }

    fn keys() -> impl Strategy<Value = Key> {
        let attempts = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";
        let data = (archives(), slots(), attempts, objects()).prop_map(|(archive, slot, attempt, object)| {
            Folder { archive, slot, attempt: attempt.parse().unwrap() }.key(object)
        });
        prop_oneof![
            data,
            (archives(), slots()).prop_map(|(archive, slot)| Key::Commit { archive, slot }),
            (archives(), "[0-9a-f]{32}")
                .prop_map(|(archive, text)| Key::Challenge { archive, fingerprint: text.parse().unwrap() }),
            (archives(), "[A-Za-z0-9-]{1,100}")
                .prop_map(|(archive, text)| Key::Record { archive, name: text.parse().unwrap() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(key in keys()) {
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn no_key_leaves_its_tenant_s_folder(key in keys()) {
            let text = key.to_string();

            prop_assert!(text.starts_with(&Key::archive_prefix(key.archive())));
            prop_assert!(text.split('/').all(|piece| !matches!(piece, "" | "." | "..")));
        }

        #[test]
        fn what_parses_prints_as_it_was(
            text in "(v1/)?[a-z0-9./-]{0,12}(/(data|commits|keys|records)/)?[0-9A-Za-z./+ -]{0,60}"
        ) {
            if let Ok(key) = text.parse::<Key>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn a_key_with_one_byte_changed_is_another_key_or_none(
            key in keys(), at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f
        ) {
            let mut text = key.to_string().into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != byte);
            text[at] = byte;

            prop_assert_ne!(String::from_utf8(text).unwrap().parse(), Ok(key));
        }

        #[test]
        fn slots_sort_as_their_texts(a in slots(), b in slots()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn keys_read_as_documented() {
        let folder = Folder {
            archive: "ada".parse().unwrap(),
            slot: "20261122T010000Z".parse().unwrap(),
            attempt: "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a".parse().unwrap(),
        };
        let segment = SegmentName::new(Part::Database, 17).unwrap();
        let page = PageName::new(Part::Attachments, 0).unwrap();
        let base = "v1/ada/data/20261122T010000Z/0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a";

        assert_eq!(
            folder.key(DataObject::Segment(segment)).to_string(),
            format!("{base}/database/00000017.age")
        );
        assert_eq!(
            folder.key(DataObject::Page(page)).to_string(),
            format!("{base}/index/attachments-00000.jsonl")
        );
        assert_eq!(folder.key(DataObject::Manifest).to_string(), format!("{base}/manifest.json"));
        assert_eq!(folder.slot.time(), "2026-11-22T01:00:00Z".parse().unwrap());
    }

    #[test]
    fn what_only_looks_like_a_key_is_refused() {
        let attempt = "0191b6f0-7d3a-7c40-8e0a-1f2e3d4c5b6a";
        for text in [
            "",
            "v1/ada",
            "v1/ada/",
            "v2/ada/commits/20261122T010000Z.json",
            "/v1/ada/commits/20261122T010000Z.json",
            "v1//commits/20261122T010000Z.json",
            "v1/../commits/20261122T010000Z.json",
            "v1/Ada/commits/20261122T010000Z.json",
            "v1/ada/commits/20261122T010000.json",
            "v1/ada/commits/20261122T010060Z.json",
            "v1/ada/commits/20261322T010000Z.json",
            "v1/ada/commits/2026112T2010000Z.json",
            "v1/ada/commits/20261122T010000Z.json.json",
            "v1/ada/commits/sub/20261122T010000Z.json",
            "v1/ada/keys/0191.age",
            "v1/ada/records/../x.json",
            "v1/ada/wal/000000010000000000000001.age",
            &format!("v1/ada/data/20261122T010000Z/{}/manifest.json", attempt.to_uppercase()),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/database/0.age"),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/database/+0000000.age"),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/database/00000000.age/x"),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/index/database-0.jsonl"),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/index/00000000.age"),
            &format!("v1/ada/data/20261122T010000Z/{attempt}/wal/00000000.age"),
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
