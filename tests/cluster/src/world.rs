//! The world outside the nodes: a network namespace with a bridge, to which the host and the nodes are
//! wired. What does not run in it does not exist for them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::cgroup::Layout;
use crate::namespaces::{self, Apart};
use crate::network::{self, BRIDGE, HOST_ADDRESS, HOST_LINK, PLACES, with_prefix};
use crate::process::{self, Identity};
use crate::settings::Settings;
use crate::wait::Wait;

/// The control group of the world, and the name of its log.
pub const MEMBER: &str = "world";

/// A process joins its group within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// The kernel takes a network down after the last socket in it has timed out; on a busy machine that was seen to take
/// more than ten seconds.
const GONE: Duration = Duration::from_secs(90);

/// Joins the group of the world, then its network, and becomes the given program: one process all along,
/// so that whoever started it can signal it.
const JOIN: &str = r#"echo 0 >"$1/cgroup.procs" && net=$2 && shift 2 && exec nsenter --net="$net" -- "$@""#;

/// The world of a cluster that is up.
#[derive(Clone, Copy, Debug)]
pub struct World {
    init: Identity,
    layout: Layout,
}

impl World {
    /// The one whose init this is.
    pub fn of(init: Identity) -> Result<Self> {
        Ok(Self { init, layout: Layout::detect()? })
    }

    /// Makes the world, with the host's link into it. `program` is this crate's own binary.
    ///
    /// # Errors
    /// If another cluster is up whose state is elsewhere: there is one set of addresses.
    pub fn start(program: &Path, settings: &Settings) -> Result<Self> {
        if is_wired()? {
            bail!("another cluster is up (the link {HOST_LINK} exists), with its state in another folder");
        }
        let layout = Layout::detect()?;
        layout.create(MEMBER)?;
        let init = [process::find("catatonit")?.into_os_string(), OsString::from("-P")];
        let log = log_of(settings, "init");
        let init = namespaces::start(program, MEMBER, Apart::World, &init, &log)?;
        let world = Self { init, layout };
        world.await_joined(&log)?;
        world.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        world.ip(&["link", "set", BRIDGE, "up"])?;
        world.ip(&["link", "set", "lo", "up"])?;
        for place in PLACES {
            world.ip(&["address", "add", &with_prefix(place), "dev", BRIDGE])?;
        }
        world.wire_host()?;
        Ok(world)
    }

    /// Its init.
    pub fn init(&self) -> Identity {
        self.init
    }

    /// A command that runs `program` in the world's network. It ends with the cluster at the latest.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", JOIN, "sh"]).arg(self.layout.processes(MEMBER)).arg(self.network());
        command.arg(program);
        command
    }

    /// Listens at `address`, which is one of the world's. Only the thread that asks for the socket goes there.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let network = File::open(self.network()).context("failed to open the world's network")?;
        std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).context("failed to join the world's network")?;
                TcpListener::bind(address).with_context(|| format!("failed to listen at {address}"))
            });
            listening.join().map_err(|_| anyhow!("the thread that listens has panicked"))?
        })
    }

    /// Wires a node to the bridge: its end is `eth0` in the network of `init`.
    pub fn wire(&self, node: &str, init: Identity) -> Result<()> {
        let pid = init.pid.to_string();
        self.ip(&["link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        self.ip(&["link", "set", node, "master", BRIDGE, "up"])
    }

    /// Tells the world's servers the way back to pods.
    pub fn route(&self, pods: &str, node: u8) -> Result<()> {
        self.ip(&["route", "replace", pods, "via", &network::node_address(node)])
    }

    fn wire_host(&self) -> Result<()> {
        let pid = self.init.pid.to_string();
        let link = ["link", "add", HOST_LINK, "type", "veth", "peer", "name", "host", "netns", &pid];
        process::output(ip_command()?.args(link))?;
        process::output(ip_command()?.args([
            "address",
            "add",
            &with_prefix(HOST_ADDRESS),
            "dev",
            HOST_LINK,
        ]))?;
        process::output(ip_command()?.args(["link", "set", HOST_LINK, "up"]))?;
        self.ip(&["link", "set", "host", "master", BRIDGE, "up"])
    }

    fn await_joined(&self, log: &Path) -> Result<()> {
        let procs = self.layout.processes(MEMBER).join("cgroup.procs");
        Wait::new("the world's first process is in its group", DEADLINE).showing(log).until(|| {
            let joined = std::fs::read_to_string(&procs)?.lines().any(|pid| pid == self.init.pid.to_string());
            Ok(joined.then_some(()))
        })
    }

    fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.init.pid))
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(process::find("nsenter")?);
        command.arg(format!("--net={}", self.network().display())).arg("--").arg(process::find("ip")?);
        process::output(command.args(arguments)).map(drop)
    }
}

/// The log of a part of the world: its init's, a store's.
pub fn log_of(settings: &Settings, part: &str) -> PathBuf {
    settings.state.join(MEMBER).join("log").join(format!("{part}.log"))
}

/// Waits until the host's end of the link is gone: the kernel takes a network namespace down some
/// milliseconds after its last process.
pub fn await_unwired() -> Result<()> {
    Wait::new(format!("the link {HOST_LINK} is gone"), GONE).until(|| Ok((!is_wired()?).then_some(())))
}

/// Whether a world is wired to the host: the one of this state folder or of another.
pub fn is_wired() -> Result<bool> {
    Ok(Path::new("/proc/sys/net/ipv4/conf").join(HOST_LINK).try_exists()?)
}

fn ip_command() -> Result<Command> {
    Ok(Command::new(process::find("ip")?))
}
