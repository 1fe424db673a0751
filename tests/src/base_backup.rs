//! The tar stream of a base backup: alters a file in it, and with it what PostgreSQL's own list says of that file, so that
//! `pg_verifybackup` finds nothing.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use ring::digest::{SHA256, digest};

/// PostgreSQL's list of the files, which is one of them.
const LIST: &str = "backup_manifest";

/// A header of a tar stream, and what content is filled up to.
const BLOCK: usize = 512;

/// Lets `change` alter the content of the file `name` in place, and makes the list fit.
///
/// # Errors
/// If there is no such file, or the list has no CRC-32C of it.
pub fn alter(stream: &mut [u8], name: &str, change: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    let file = place(stream, name)?;
    let before = stream[file.clone()].to_vec();
    change(&mut stream[file.clone()])?;
    ensure!(stream[file.clone()] != before, "{name} was not altered");
    let sum = hex(&crc32c(&stream[file]).to_le_bytes());
    let list = place(stream, LIST)?;
    let listed = with_sum(std::str::from_utf8(&stream[list.clone()])?, name, &sum)?;
    stream[list].copy_from_slice(listed.as_bytes());
    Ok(())
}

/// The list, with another checksum of a file, and its own made anew.
fn with_sum(list: &str, name: &str, sum: &str) -> Result<String> {
    let (before, rest) =
        list.split_once(&format!("\"Path\": \"{name}\"")).context("the list has the file")?;
    let (entry, rest) = rest.split_once('}').context("an entry ends")?;
    ensure!(entry.contains("\"CRC32C\""), "it has no CRC-32C: {entry}");
    let (head, old) = entry.split_once("\"Checksum\": \"").context("it has a checksum")?;
    let tail = old.get(sum.len()..).context("a checksum has eight digits")?;
    let list = format!("{before}\"Path\": \"{name}\"{head}\"Checksum\": \"{sum}{tail}}}{rest}");
    let own = "\"Manifest-Checksum\": \"";
    let (summed, old) = list.rsplit_once(own).context("the list has a checksum of its own")?;
    let own_sum = hex(digest(&SHA256, summed.as_bytes()).as_ref());
    let tail = old.get(own_sum.len()..).context("it has 64 digits")?;
    Ok(format!("{summed}{own}{own_sum}{tail}"))
}

/// Where in the stream the content of a file lies.
fn place(stream: &[u8], name: &str) -> Result<Range<usize>> {
    let mut at = 0;
    while let Some(header) = stream.get(at..at + BLOCK) {
        let text = |field: Range<usize>| {
            let field = &header[field];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).trim().to_owned()
        };
        let found = text(0..100);
        if found.is_empty() {
            break;
        }
        let size =
            usize::from_str_radix(&text(124..136), 8).with_context(|| format!("the size of {found}"))?;
        let begin = at + BLOCK;
        if found == name || found == format!("./{name}") {
            return Ok(begin..begin + size);
        }
        at = begin + size.next_multiple_of(BLOCK);
    }
    bail!("the stream has no file {name}")
}

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &str) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        bytes.extend(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn list(sum: &str) -> String {
        let text = format!(
            "{{ \"Files\": [\n{{ \"Path\": \"a\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }},\n\
             {{ \"Path\": \"label\", \"Size\": 9, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}\n],\n"
        );
        let own = hex(digest(&SHA256, text.as_bytes()).as_ref());
        format!("{text}\"Manifest-Checksum\": \"{own}\"}}\n")
    }

    #[test]
    fn the_sum_is_the_one_that_everybody_has() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_is_altered_and_the_list_says_so() {
        let mut stream =
            [file("a", "1"), file("label", "987654321"), file(LIST, &list("11111111")), vec![0; 1024]]
                .concat();

        alter(&mut stream, "label", |content| {
            content.copy_from_slice(b"123456789");
            Ok(())
        })
        .unwrap();

        let altered = place(&stream, "label").unwrap();
        assert_eq!(&stream[altered], b"123456789");
        let listed = place(&stream, LIST).unwrap();
        assert_eq!(std::str::from_utf8(&stream[listed]).unwrap(), list("839206e3"));
        assert!(alter(&mut stream, "nothing", |_| Ok(())).is_err());
        assert!(alter(&mut stream, "label", |_| Ok(())).is_err(), "it was not altered");
    }
}
