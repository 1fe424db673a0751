//! A password for PostgreSQL's programs: in a file that is in memory only and has no name.
//!
//! Not in their arguments and not in their environment, which others of the same user may read, and not on a
//! disk, where a killed agent would leave it.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use secrecy::{ExposeSecret, SecretString};

/// A password file. It is gone when this value and the programs that were started meanwhile are.
#[derive(Debug)]
pub struct PassFile(File);

impl PassFile {
    /// Makes a file that has `password` for every server.
    pub fn of(password: &SecretString) -> io::Result<Self> {
        // Without CLOEXEC: the program that is started shall have it.
        let mut file = File::from(memfd_create("valv-pgpass", MemfdFlags::empty())?);
        // libpq ignores a file that others may read.
        fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        let line = SecretString::from(format!("*:*:*:*:{}\n", escaped(password.expose_secret())));
        file.write_all(line.expose_secret().as_bytes())?;
        Ok(Self(file))
    }

    /// Where a program that inherits it finds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// `text` as a field of a password file.
/// Source: <https://www.postgresql.org/docs/17/libpq-pgpass.html>
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_password_file_reads_as_libpq_reads_it() {
        let file = PassFile::of(&SecretString::from(r"a:b\c")).unwrap();

        assert_eq!(fs::read_to_string(file.path()).unwrap(), "*:*:*:*:a\\:b\\\\c\n");
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{file:?}").contains("a:b"));
    }
}
