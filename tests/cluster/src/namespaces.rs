//! Starting an init in namespaces of its own.
//!
//! The caller's thread leaves its namespaces and starts this same program with `inside`, which joins its
//! control group and then becomes the init. No process stays between: the init is ended by one signal,
//! and everything in its namespaces with it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

use crate::cgroup::Layout;
use crate::process::Identity;

/// The hidden command that [`start`] gives to this program.
pub const INSIDE: &str = "inside";

/// What a member of the cluster shares with nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// A node: all but users and time.
    Node,
    /// The world: network and processes.
    World,
}

impl Apart {
    fn flags(self) -> CloneFlags {
        let world = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
        match self {
            Self::World => world,
            Self::Node => {
                world | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC
            }
        }
    }
}

/// Starts `init` as the first process of new namespaces, in the control group of `member`.
///
/// `program` is this crate's own binary. What the init prints goes to `log`.
pub fn start(program: &Path, member: &str, apart: Apart, init: &[OsString], log: &Path) -> Result<Identity> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let log = File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
    let mut inside = Command::new(program);
    inside.arg(INSIDE).arg(member).arg("--").args(init);
    inside.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Only this thread leaves the namespaces, and it ends here.
    let started = std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            unshare(apart.flags()).context("failed to make namespaces")?;
            if apart == Apart::Node {
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                    .context("failed to part mounts")?;
            }
            let child = inside.spawn().with_context(|| format!("failed to run {}", program.display()))?;
            Ok(child.id())
        });
        starter.join().map_err(|_| anyhow!("the thread that starts {member} has panicked"))?
    });
    started.and_then(Identity::of)
}

/// Becomes `init`: the other half of [`start`].
pub fn become_init(member: &str, init: &[OsString]) -> Result<Infallible> {
    setsid().context("failed to leave the terminal")?;
    Layout::detect()?
        .join(member, || unshare(CloneFlags::CLONE_NEWCGROUP).context("failed to part cgroups"))?;
    let (program, arguments) = init.split_first().context("an init needs a program")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("failed to run {program:?}"))
}
