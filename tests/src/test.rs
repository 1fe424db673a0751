//! How a test begins and ends.
//!
//! All tests of a process share one runtime and one [`World`]. Each has tenants of its own and has them deleted
//! at its end, however it ends. Tests run side by side; one that disturbs everybody asks to be
//! [`Test::alone`], and then waits until the tenants of those before it are gone.

use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use futures::future::join_all;
use rand::RngExt;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::actor::{Grace, is_not_found};
use crate::eventually::{Seen, eventually};
use crate::helm::Helm;
use crate::kind;
use crate::manifest::SMALLEST;
use crate::operator::Operator;
use crate::tenant::Tenant;
use crate::turn::Turn;
use crate::world::World;

static RUNTIME: LazyLock<Option<Runtime>> = LazyLock::new(|| Runtime::new().ok());
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Tenants of tests that have ended, while they go. Nobody waits for them but who wants to be alone; after the tests
/// `harness sweep` does.
static GOING: Mutex<Vec<Tenant>> = Mutex::new(vec![]);

/// Letters of a name's end: none that can be mistaken for another.
const LETTERS: &[u8] = b"bcdfghjkmnpqrstvwxz23456789";

/// What a test has: the world, tenants of its own, and its turn.
pub struct Test {
    /// The cluster.
    pub world: &'static World,
    name: String,
    begun: Instant,
    tenants: Mutex<Vec<Tenant>>,
    others: Mutex<Vec<Other>>,
    figures: Mutex<String>,
    turn: tokio::sync::Mutex<Option<Turn>>,
    changes_the_installation: AtomicBool,
}

/// Something that a test made beside tenants.
struct Other {
    kind: kind::Kind,
    namespace: String,
    name: String,
}

/// Runs a test: fails if it says so or panics, and takes away what it made in any case.
pub fn run(body: impl AsyncFnOnce(&Test) -> Result<()>) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    block_on(async move {
        let test = match Test::begin(name).await {
            Ok(test) => test,
            Err(error) => panic!("{error:#}"),
        };
        let ended = AssertUnwindSafe(body(&test)).catch_unwind().await;
        if !matches!(ended, Ok(Ok(()))) {
            test.show().await;
            if let Err(error) = test.world.check().await {
                eprintln!("{}: the cluster itself is not well: {error:#}", test.name);
            }
        }
        let left = test.end().await;
        match (ended, left) {
            (Err(panic), _) => resume_unwind(panic),
            (Ok(Err(error)), _) => panic!("{error:#}"),
            (Ok(Ok(())), Err(error)) => panic!("failed to take away what the test made: {error:#}"),
            (Ok(Ok(())), Ok(())) => {}
        }
    });
}

/// Waits for `work` on the runtime that everything of this process shares.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    match RUNTIME.as_ref() {
        Some(runtime) => runtime.block_on(work),
        None => panic!("failed to start the runtime"),
    }
}

/// The world of this process.
pub async fn world() -> Result<&'static World> {
    WORLD.get_or_try_init(World::open).await
}

/// `stem-x7k2`: a name that no other run has.
pub fn unique(stem: &str) -> String {
    let mut random = rand::rng();
    let end: String = (0..4).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("{stem}-{end}")
}

impl Test {
    async fn begin(name: String) -> Result<Self> {
        let world = world().await?;
        let turn = Turn::beside_others().await?;
        world.check().await?;
        Operator::of(world).is_ready().await.context(
            "Valv is not installed and ready: `cargo run -p valv-tests --bin harness -- install` installs it",
        )?;
        Ok(Self {
            world,
            name,
            begun: Instant::now(),
            tenants: Mutex::default(),
            others: Mutex::default(),
            figures: Mutex::default(),
            turn: tokio::sync::Mutex::new(Some(turn)),
            changes_the_installation: AtomicBool::new(false),
        })
    }

    /// A tenant of this test, `stem-x7k2`, as `yaml` asks for it. It is not applied yet.
    pub fn tenant_of(&self, stem: &str, yaml: &str) -> Result<Tenant> {
        self.tenant_named(&unique(stem), yaml)
    }

    /// A tenant of this test with exactly this name.
    pub fn tenant_named(&self, name: &str, yaml: &str) -> Result<Tenant> {
        let tenant = Tenant::new(self.world, name, yaml)?;
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).push(tenant.clone());
        Ok(tenant)
    }

    /// The smallest tenant, `stem-x7k2`. It is not applied yet.
    pub fn tenant(&self, stem: &str) -> Result<Tenant> {
        self.tenant_of(stem, SMALLEST)
    }

    /// Takes this object away at the end of the test too.
    pub fn made(&self, kind: kind::Kind, namespace: &str, name: &str) {
        let other = Other { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(other);
    }

    /// The operator.
    pub fn operator(&self) -> Operator {
        Operator::of(self.world)
    }

    /// The chart.
    pub fn helm(&self) -> Helm {
        Helm::of(self.world)
    }

    /// Waits until no other test runs, and keeps others from running until this one ends.
    pub async fn alone(&self) -> Result<()> {
        let mut turn = self.turn.lock().await;
        // Two that wait for each other's turn to end would wait for ever.
        *turn = None;
        *turn = Some(Turn::alone().await?);
        let going = std::mem::take(&mut *GOING.lock().unwrap_or_else(PoisonError::into_inner));
        let gone: Result<Vec<()>> = join_all(going.iter().map(Tenant::destroy)).await.into_iter().collect();
        gone.map(drop).context("failed to take away what a test before this one made")
    }

    /// Installs the chart once more at the end of the test, as it was before: other tests need it, however this
    /// one ends.
    pub fn changes_the_installation(&self) {
        self.changes_the_installation.store(true, Ordering::Relaxed);
    }

    /// Notes what was measured. One line is printed at the end, whatever becomes of the test.
    pub fn measured(&self, text: impl std::fmt::Display) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = text.to_string();
    }

    /// Notes that this cluster lacks what the test needs.
    pub fn not_here(&self, why: &str) {
        self.measured(format_args!("not tried: {why}"));
    }

    async fn show(&self) {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for tenant in tenants {
            if tenant.object().await.is_err() {
                continue;
            }
            eprintln!("{} {}:\n{}", self.name, tenant.name, tenant.picture().await);
            let said = self.operator().log_about(&tenant.name).await.unwrap_or_default();
            eprintln!("{} the operator's last words about it:\n{said}", self.name);
        }
    }

    async fn end(&self) -> Result<()> {
        let took = self.begun.elapsed();
        if self.changes_the_installation.load(Ordering::Relaxed) {
            self.helm().install(&json!({})).await.context("Valv is not installed as it was")?;
            self.operator().is_ready().await?;
        }
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Past the harness of the standard library, which shows only what failed.
        let _ = writeln!(std::io::stdout(), "    {}: {figures} ({:.0} s)", self.name, took.as_secs_f32());
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let let_go = join_all(tenants.iter().map(Tenant::let_go)).await;
        let others: Vec<_> = self.others.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for other in others {
            other.take_away(self.world).await?;
        }
        let let_go: Result<Vec<()>> = let_go.into_iter().collect();
        GOING.lock().unwrap_or_else(PoisonError::into_inner).extend(tenants);
        let_go.map(drop)
    }
}

impl Other {
    async fn take_away(&self, world: &World) -> Result<()> {
        let Self { kind, namespace, name } = self;
        match world.admin.delete(*kind, namespace, name, Grace::None).await {
            Ok(()) => {}
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(anyhow!("failed to delete {} {name}: {error:#}", kind.name)),
        }
        eventually(format!("{} {name} is gone", kind.name), Duration::from_secs(60), async || {
            let found = world.admin.find(*kind, namespace, name).await?;
            Ok(found.map_or(Seen::Yes(()), |_| Seen::NotYet("still there".to_owned())))
        })
        .await
    }
}
