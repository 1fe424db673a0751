//! The files of a database, shared out between two that verify them at a time.
//!
//! `pg_verifybackup` reads one file after the other, on one processor. Two of them, each told to leave out other files,
//! take half as long. What is left out is what is large, and never left out by both: a file that is there and should
//! not be, that is missing or that differs is complained of by at least one.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs, io,
    path::{Path, PathBuf},
};

/// A file that is smaller is verified by both: it takes no longer than to name it.
const SMALLEST: u64 = 1024 * 1024;

/// The most files that are shared out, the largest ones. They are named on a command line, and each of them is compared
/// with each file of the backup.
const MOST: usize = 4096;

/// What the first and what the second leaves out of the database in the folder `data`: paths below it.
pub fn of(data: &Path) -> io::Result<[Vec<String>; 2]> {
    let mut largest = BinaryHeap::new();
    for database in folders(&data.join("base"))? {
        for file in fs::read_dir(&database)? {
            let file = file?;
            let metadata = file.metadata()?;
            let path = file.path();
            let Some(below) = path.strip_prefix(data).ok().and_then(Path::to_str) else { continue };
            if metadata.is_file() && metadata.len() >= SMALLEST {
                largest.push(Reverse((metadata.len(), below.to_owned())));
                if largest.len() > MOST {
                    largest.pop();
                }
            }
        }
    }
    Ok(share(largest.into_iter().map(|Reverse(file)| file).collect()))
}

fn folders(root: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root) {
        // No database has none; whoever verifies it says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Each to who has less so far, the largest first.
fn share(mut files: Vec<(u64, String)>) -> [Vec<String>; 2] {
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut left_out = [Vec::new(), Vec::new()];
    let mut bytes = [0, 0];
    for (size, path) in files {
        let to = usize::from(bytes[0] > bytes[1]);
        bytes[to] += size;
        left_out[to].push(path);
    }
    left_out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_files_of_databases_are_shared_out_and_nothing_else_is_left_out() {
        let data = tempfile::tempdir().unwrap();
        let file = |path: &str, bytes: u64| {
            let path = data.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().set_len(bytes).unwrap();
        };
        file("base/5/16384", 3 * SMALLEST);
        file("base/5/16384.1", 2 * SMALLEST);
        file("base/5/16390", SMALLEST);
        file("base/1/1259", SMALLEST - 1);
        file("pg_wal/000000010000000000000001", 16 * SMALLEST);
        file("base/5/deeper/16391", SMALLEST);

        let left_out = of(data.path()).unwrap();

        assert_eq!(left_out, [vec!["base/5/16384"], vec!["base/5/16384.1", "base/5/16390"]]);
        assert_eq!(of(&data.path().join("pg_wal")).unwrap(), [Vec::<String>::new(), Vec::new()]);
    }

    proptest! {
        #[test]
        fn nothing_is_left_out_by_both_and_neither_has_much_more(sizes in prop::collection::vec(1..1000_u64, 0..40)) {
            let files: Vec<_> = sizes.iter().enumerate().map(|(at, size)| (*size, at.to_string())).collect();
            let bytes = |of: &[String]| of.iter().map(|path| sizes[path.parse::<usize>().unwrap()]).sum::<u64>();

            let [first, second] = share(files);

            let all: BTreeSet<_> = first.iter().chain(&second).collect();
            prop_assert_eq!(all.len(), sizes.len());
            prop_assert_eq!(first.len() + second.len(), sizes.len());
            let largest = sizes.iter().max().copied().unwrap_or_default();
            prop_assert!(bytes(&first).abs_diff(bytes(&second)) <= largest);
        }
    }
}
