//! `demo`: one care provider's journal on a real cluster: a note that survives its database, a backup in another
//! country, a drill that restores it, and one that fails, as it should.

mod protection;
mod table;

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::actor::Grace;
use harness::helm::Helm;
use harness::journal::Account;
use harness::ownership::{keep, sweep};
use harness::test::{block_on, unique, world};
use harness::{JournalClient, Tenant, World, kind};
use serde_json::json;
use tokio::time::Instant;

use self::table::Table;

/// What is applied.
const EXAMPLE: &str = "../examples/stadskliniken.yaml";

/// Its name in there.
const NAME: &str = "stadskliniken";

/// Who writes the note.
const USER: &str = "SE2321000016-1003";

/// What she writes.
const NOTE: &str = "Patienten mår bra efter besöket.";

/// What the issue asks for, on a cluster that has the images.
const READY_TARGET: Duration = Duration::from_secs(60);

/// Runs one care provider's journal, kills its database, reads back what was written, backs it up to another country,
/// drills a restore, and lets one fail
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the tenant there, to look at
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let Arguments { keep: stays } = Arguments::parse();
    let mut table = Table::default();
    let ended = block_on(async {
        let world = world().await?;
        let shown = demo(world, &mut table).await;
        match shown {
            Ok(tenant) if stays => {
                say(format_args!("left there: kubectl get journaltenant {}", tenant.name));
                keep(world, &tenant).await
            }
            Ok(tenant) => {
                say("taking it away");
                tenant.destroy().await?;
                protection::take_away(world).await
            }
            Err(error) => Err(error),
        }
    });
    table.print();
    match ended {
        Ok(()) => {
            println!(
                "\nThe note survived the death of its database, a backup of it was restored, and a corrupt one was found out."
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(world: &'static World, table: &mut Table) -> Result<Tenant> {
    say("installing Valv");
    let begun = Instant::now();
    Helm::of(world).install(&json!({})).await?;
    table.add("Valv is installed by its chart", "two operators, one leads", begun.elapsed());
    for name in sweep(world).await? {
        say(format_args!("took away {name}, which a run before left"));
    }

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    let yaml =
        fs::read_to_string(&example).with_context(|| format!("failed to read {}", example.display()))?;
    // The example names the image as the local cluster has it; another cluster has it elsewhere.
    let image = format!("journal: {{image: '{}'}}", world.image("journal-1")?);
    let tenant = Tenant::new(world, NAME, &yaml)?.with(&image)?;
    nobody_has_its_name(world, &tenant).await?;

    say("applying examples/stadskliniken.yaml");
    let begun = Instant::now();
    tenant.apply().await?;
    let account = Account { user: USER.to_owned(), password: unique("demo") };
    let accounts = format!("{}:{}", account.user, account.password);
    tenant.bring_secret("accounts", &[("accounts", &accounts)]).await?;
    say("waiting until Stadskliniken is ready: database, certificates, migration, journal");
    tenant.ready().await?;
    let ready = begun.elapsed();
    table.add("Stadskliniken is ready", within(ready, READY_TARGET), ready);

    let journal = JournalClient::signed_in(&tenant, account).await?;
    say(format_args!("writing a note at https://{}", tenant.host()));
    let begun = Instant::now();
    journal.write(NOTE).await?;
    table.add("a note is written over TLS", "verified with the tenant's own authority", begun.elapsed());

    say("killing the database's pod, without grace");
    let pod = tenant.get(kind::POD, "database-0").await?;
    let begun = Instant::now();
    world.admin.delete(kind::POD, &tenant.namespace, "database-0", Grace::None).await?;
    tenant.is_replaced(kind::POD, &pod, harness::tenant::STEP).await?;
    journal.writes_again("Efter avbrottet.").await?;
    table.add("the database's pod is killed", "the journal takes notes again", begun.elapsed());

    say("reading the note back");
    let begun = Instant::now();
    let notes = journal.read().await?;
    ensure!(notes.iter().any(|note| note == NOTE), "the note is lost: the journal has {notes:?}");
    table.add("the note from before is read", "it is there, word for word", begun.elapsed());
    protection::show(world, &tenant, table).await?;
    Ok(tenant)
}

/// The demo takes away what it made: it must not be somebody's.
async fn nobody_has_its_name(world: &World, tenant: &Tenant) -> Result<()> {
    for (kind, name) in [(kind::JOURNAL_TENANT, &tenant.name), (kind::NAMESPACE, &tenant.namespace)] {
        if world.admin.find(kind, "", name).await?.is_some() {
            bail!("{} {name} is there already: delete it, or try the demo on another cluster", kind.name);
        }
    }
    Ok(())
}

fn within(took: Duration, target: Duration) -> String {
    let verdict = if took <= target { "within" } else { "later than" };
    format!("{verdict} {} s", target.as_secs())
}

fn say(what: impl Display) {
    println!("  … {what}");
}
