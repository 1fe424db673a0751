//! The volume of a tenant's database: what lies where, and who may use it.
//!
//! | path                | what                                                                          |
//! |---------------------|-------------------------------------------------------------------------------|
//! | `pgdata`            | the database. It has this name only when it is whole                           |
//! | `pgdata.new`        | a database that was being made. By definition not whole, never used, removed   |
//! | `valv-roles.sha256` | which roles file was applied last                                             |
//! | `drill`             | manifests that a restore leaves for whoever judges it                         |
//! | `valv.lock`         | empty; locked by whoever uses the volume                                       |
//!
//! # Guarantees
//! PostgreSQL keeps two servers off one data folder by a process id in `postmaster.pid` and a shared-memory
//! segment. Neither means anything across pods: each has its own process ids and its own memory. There a
//! stale `postmaster.pid` may name a living process of the new pod, and a server that must not start is not
//! seen. So the agent holds a lock on a file of the volume, and hands it, as standard input, to every program of
//! PostgreSQL that it starts; those hand it on to all their children. The kernel releases the lock with the
//! last process that has it, however that process ends. Whoever gets the lock has therefore the proof that no
//! server that an agent started still runs on this volume, and that a `postmaster.pid` on it is stale.
//!
//! The lock is the node's (for NFS: the server's). That no two *nodes* mount the volume is the access mode's
//! promise (`ReadWriteOnce`, better `ReadWriteOncePod`). A server that a person started by hand does not hold
//! the lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tracing::info;

use super::durable::{self, FileError};

/// What PostgreSQL tolerates at most on its folder: all for the owner, reading for the group.
const DATA_MODE_MOST: u32 = 0o750;

/// The volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is mounted there.
    #[error("there is no folder {}; mount the database volume there", path.display())]
    NotMounted {
        /// Where it should be.
        path: PathBuf,
    },

    /// A server runs on it, or another agent prepares it.
    #[error(
        "another process uses the database volume {}; wait until the older pod is gone, \
         and do not remove its lock file",
        path.display()
    )]
    InUse {
        /// Which volume.
        path: PathBuf,
    },

    /// A file of it.
    #[error("failed to use the database volume; it must belong to the user that PostgreSQL runs as")]
    File(#[source] FileError),
}

/// A volume that nobody else uses for as long as this value, or a program that it was handed to, lives.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    lock: File,
}

impl Volume {
    /// Takes the volume mounted at `root`.
    ///
    /// # Errors
    /// [`Error::InUse`] at once, without waiting, if anybody else has it: Kubernetes tries again.
    pub fn take(root: &Path) -> Result<Self, Error> {
        if !root.is_dir() {
            return Err(Error::NotMounted { path: root.to_owned() });
        }
        let path = root.join("valv.lock");
        let failed = |source| Error::File(FileError::of("lock", &path)(source));
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: root.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The lock, as the standard input of a program that uses the volume.
    ///
    /// Standard input, because it is the one handle that a child always inherits, and PostgreSQL's programs
    /// do not read it. The file is empty.
    pub fn handed_on(&self) -> Result<Stdio, Error> {
        self.lock
            .try_clone()
            .map(Stdio::from)
            .map_err(FileError::of("hand on the lock of", &self.root))
            .map_err(Error::File)
    }

    /// Where the database is.
    pub fn data(&self) -> PathBuf {
        self.root.join("pgdata")
    }

    /// Where a database is made.
    pub fn unfinished(&self) -> PathBuf {
        self.root.join("pgdata.new")
    }

    /// Where it is noted which roles file was applied.
    pub fn marker(&self) -> PathBuf {
        self.root.join("valv-roles.sha256")
    }

    /// Where a restore leaves manifests.
    pub fn drill(&self) -> PathBuf {
        self.root.join("drill")
    }

    /// Whether there is a database.
    pub fn has_database(&self) -> Result<bool, Error> {
        let data = self.data();
        data.try_exists().map_err(FileError::of("look for", &data)).map_err(Error::File)
    }

    /// Makes the unfinished database the database, for ever.
    pub fn finish(&self) -> Result<(), Error> {
        durable::rename(&self.unfinished(), &self.data()).map_err(Error::File)
    }

    /// Whether the roles that `marker` stands for are those that were applied last.
    pub fn is_marked(&self, marker: &str) -> Result<bool, Error> {
        let path = self.marker();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text == marker),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::File(FileError::of("read", &path)(error))),
        }
    }

    /// Notes that the roles that `marker` stands for are applied. The last thing to do.
    pub fn mark(&self, marker: &str) -> Result<(), Error> {
        durable::write(&self.marker(), marker.as_bytes(), 0o600).map_err(Error::File)
    }

    /// Brings what a killed server or a volume driver left in the database's folder to what a server accepts.
    ///
    /// A `postmaster.pid` is stale, since we have the lock. And a pod with `fsGroup` has its volume's
    /// permissions widened at mount, more than PostgreSQL tolerates.
    pub fn tidy(&self) -> Result<(), Error> {
        let data = self.data();
        let pid = data.join("postmaster.pid");
        if pid.exists() {
            durable::remove_if_there(&pid).map_err(Error::File)?;
            info!(path = %pid.display(), "removed what a server that was killed left behind");
        }

        let failed = FileError::of("look at the permissions of", &data);
        let mode = fs::metadata(&data).map_err(failed).map_err(Error::File)?.permissions().mode();
        if mode & 0o777 & !DATA_MODE_MOST != 0 {
            let failed = FileError::of("narrow the permissions of", &data);
            fs::set_permissions(&data, fs::Permissions::from_mode(0o700))
                .map_err(failed)
                .map_err(Error::File)?;
            info!(path = %data.display(), "narrowed the permissions of the database's folder");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_volume_is_taken_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();

        let volume = Volume::take(folder.path()).unwrap();
        let second = Volume::take(folder.path());
        drop(volume);

        assert!(matches!(second, Err(Error::InUse { .. })));
        Volume::take(folder.path()).unwrap();
    }

    #[test]
    fn a_volume_stays_taken_while_a_program_lives_that_it_was_handed_to() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::take(folder.path()).unwrap();
        let mut program =
            Command::new("sleep").arg("600").stdin(volume.handed_on().unwrap()).spawn().unwrap();

        drop(volume);
        let while_it_lives = Volume::take(folder.path());
        program.kill().unwrap();
        program.wait().unwrap();

        assert!(matches!(while_it_lives, Err(Error::InUse { .. })));
        Volume::take(folder.path()).unwrap();
    }

    #[test]
    fn a_volume_that_is_not_mounted_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");

        assert!(matches!(Volume::take(&root), Err(Error::NotMounted { .. })));
        assert!(!root.exists());
    }

    #[test]
    fn permissions_that_a_volume_driver_widened_are_narrowed() {
        let folder = tempfile::tempdir().unwrap();
        let volume = Volume::take(folder.path()).unwrap();
        fs::create_dir(volume.data()).unwrap();
        fs::set_permissions(volume.data(), fs::Permissions::from_mode(0o2770)).unwrap();

        volume.tidy().unwrap();

        assert_eq!(fs::metadata(volume.data()).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
