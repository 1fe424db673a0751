//! `valv status`: what is known of each tenant, as a table, a page, or JSON.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use valv_crds::{Backup, BackupPolicy, BackupStore, JournalTenant, RestoreDrill};

use super::{
    Api, Connection, Error, Surroundings, Verdict,
    amount::{size, time},
    api::Listed,
    table::{page, table},
};
use crate::overview::{self, BackupView, DrillView, KeyView, MeasuredBy, Overview, Snapshot, StoreView};

/// `apiVersion` of the JSON. Fields are added under it, never renamed or taken away.
pub const API_VERSION: &str = "status.valv.eu/v1";

/// What is asked.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Whose; absent: all tenants
    #[arg(value_name = "TENANT")]
    pub tenant: Option<String>,

    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,

    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What was seen. Its JSON is documented in `docs/operations/status.md`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    api_version: &'static str,
    kind: &'static str,
    /// When it was asked.
    at: Timestamp,
    /// Whether nothing is wrong.
    well: bool,
    /// Tenants, by name.
    tenants: Vec<Overview>,
    /// Stores, by name.
    stores: Vec<StoreView>,
    /// Objects that a newer version wrote, as `Kind/name`: nothing is known of them.
    unreadable: Vec<String>,
}

/// Asks and prints.
pub async fn run(
    api: &Api,
    arguments: &Arguments,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error> {
    let now = (surroundings.now)();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let status = ask(api, arguments.tenant.as_deref(), now).await?;
    let text = match (arguments.output, status.tenants.as_slice()) {
        (Output::Json, _) => {
            serde_json::to_string_pretty(&status).map_err(|error| Error::Print(error.into()))?
        }
        (Output::Table, [tenant]) if arguments.tenant.is_some() => of_one(tenant, status.at),
        (Output::Table, _) => of_all(&status),
    };
    surroundings.say(&text)?;
    Ok(if status.well { Verdict::Well } else { Verdict::Wrong })
}

async fn ask(api: &Api, tenant: Option<&str>, now: Timestamp) -> Result<Status, Error> {
    let tenants = match tenant {
        Some(name) => Listed { items: vec![api.tenant(name).await?], unreadable: vec![] },
        None => api.all::<JournalTenant>().await?,
    };
    let policies = api.all::<BackupPolicy>().await?;
    let stores = api.all::<BackupStore>().await?;
    let backups = api.of::<Backup>(tenant).await?;
    let drills = api.of_if_served::<RestoreDrill>(tenant).await?;
    let snapshot = Snapshot {
        tenants: tenants.items.iter().collect(),
        policies: policies.items.iter().collect(),
        stores: stores.items.iter().collect(),
        backups: backups.items.iter().collect(),
        drills: drills.items.iter().collect(),
    };
    let mut seen_stores = overview::stores(&snapshot);
    if let Some(tenant) = tenants.items.first().filter(|_| tenant.is_some()) {
        let named = tenant.spec.backup.as_ref().map(|backup| backup.policy.as_str());
        let policy = policies.items.iter().find(|policy| Some(policy.name_any().as_str()) == named);
        let names = policy.map(|policy| policy.spec.stores.as_slice()).unwrap_or_default();
        seen_stores.retain(|store| names.contains(&store.name));
    }
    let seen = overview::tenants(&snapshot, now);
    let unreadable: Vec<String> = [
        ("JournalTenant", &tenants.unreadable),
        ("BackupPolicy", &policies.unreadable),
        ("BackupStore", &stores.unreadable),
        ("Backup", &backups.unreadable),
        ("RestoreDrill", &drills.unreadable),
    ]
    .into_iter()
    .flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}/{name}")))
    .collect();
    let well = seen.iter().all(|tenant| tenant.troubles.is_empty())
        && seen_stores.iter().all(|store| store.ready == "True")
        && unreadable.is_empty();
    Ok(Status {
        api_version: API_VERSION,
        kind: "Status",
        at: now,
        well,
        tenants: seen,
        stores: seen_stores,
        unreadable,
    })
}

/// A row a tenant, then a row a store.
fn of_all(status: &Status) -> String {
    let heading =
        ["TENANT", "BACKUP", "WHERE", "DRILL", "RTO/PROMISED", "RPO/PROMISED", "KEYS PROVEN", "WRONG"];
    let rows: Vec<Vec<String>> = status.tenants.iter().map(|tenant| row(tenant, status.at)).collect();
    let mut text = if rows.is_empty() { "no tenants".to_owned() } else { table(&heading, &rows) };
    if !status.stores.is_empty() {
        let heading = ["STORE", "COUNTRY", "READY", "WHY"];
        let rows: Vec<Vec<String>> = status
            .stores
            .iter()
            .map(|store| {
                let why = if store.ready == "True" { &store.reason } else { &store.message };
                vec![store.name.clone(), store.country.clone(), store.ready.clone(), one_line(why, 100)]
            })
            .collect();
        let _ = write!(text, "\n\n{}", table(&heading, &rows));
    }
    if !status.unreadable.is_empty() {
        let _ = write!(
            text,
            "\n\nwritten by a newer version of Valv, and not read: {}",
            status.unreadable.join(", ")
        );
    }
    text
}

fn row(tenant: &Overview, now: Timestamp) -> Vec<String> {
    let measured = |by: &Option<MeasuredBy>| by.as_ref().map(|by| by.seconds);
    let wrong = match tenant.troubles.as_slice() {
        [] => "-".to_owned(),
        [only] => one_line(&only.message, 100),
        [first, others @ ..] => format!("{} (and {} more)", one_line(&first.message, 100), others.len()),
    };
    vec![
        tenant.tenant.clone(),
        tenant
            .last_backup
            .as_ref()
            .map_or_else(|| "never".to_owned(), |backup| format!("{} ago", time(backup.age_seconds))),
        tenant.last_backup.as_ref().map_or_else(|| "-".to_owned(), places),
        tenant.last_drill.as_ref().map_or_else(|| "never".to_owned(), |drill| drilled(drill, now)),
        pair(measured(&tenant.recovery_time), tenant.objectives.map(|promised| promised.rto_seconds)),
        pair(measured(&tenant.recovery_point), tenant.objectives.map(|promised| promised.rpo_seconds)),
        proven(&tenant.keys, now),
        wrong,
    ]
}

/// One tenant, on a page.
fn of_one(tenant: &Overview, now: Timestamp) -> String {
    let lines = |lines: Vec<String>| if lines.is_empty() { "-".to_owned() } else { lines.join("\n") };
    let backup = tenant.last_backup.as_ref();
    let drill = tenant.last_drill.as_ref();
    let measured = |by: &Option<MeasuredBy>| by.as_ref().map(|by| by.seconds);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let promised = |of: fn(&overview::Promised) -> i64| tenant.objectives.as_ref().map(of);
    let fields = [
        ("tenant", tenant.tenant.clone()),
        ("policy", tenant.policy.clone().unwrap_or_else(|| "none: it is not backed up".to_owned())),
        (
            "last backup",
            backup.map_or_else(
                || "never".to_owned(),
                |last| {
                    let took = last
                        .duration_seconds
                        .map_or_else(String::new, |took| format!(", took {}", time(took)));
                    format!(
                        "{}, holds {}, {} ago; {}{took}",
                        last.slot,
                        last.taken,
                        time(last.age_seconds),
                        size(last.bytes)
                    )
                },
            ),
        ),
        (
            "where",
            lines(backup.map_or_else(Vec::new, |last| {
                let place = |place: &overview::Place| {
                    let locked = place
                        .locked_until
                        .map_or_else(String::new, |until| format!(", locked until {until}"));
                    format!("{} in {}{locked}", place.name, place.country.as_deref().unwrap_or("?"))
                };
                last.stores.iter().map(place).collect()
            })),
        ),
        ("next backup by", or_dash(tenant.backup_due.map(|due| due.to_string()))),
        (
            "running now",
            or_dash(tenant.running_backup.as_ref().map(|running| {
                let percent = running.percent.map_or_else(String::new, |percent| format!(", {percent} %"));
                format!("{} ({}{percent})", running.name, running.stage)
            })),
        ),
        (
            "last drill",
            drill.map_or_else(
                || "never".to_owned(),
                |drill| {
                    let of = drill.backup.map_or_else(String::new, |slot| format!(" of backup {slot}"));
                    format!("{}: {}{of}, {}", drill.name, drilled(drill, now), drill.reason)
                },
            ),
        ),
        ("next drill by", or_dash(tenant.drill_due.map(|due| due.to_string()))),
        (
            "recovery time",
            format!(
                "{} (measured/promised)",
                pair(measured(&tenant.recovery_time), promised(|it| it.rto_seconds))
            ),
        ),
        (
            "recovery point",
            format!(
                "{} (measured/promised)",
                pair(measured(&tenant.recovery_point), promised(|it| it.rpo_seconds))
            ),
        ),
        ("keys", lines(tenant.keys.iter().map(|key| key_line(key, now)).collect())),
        (
            "wrong",
            if tenant.troubles.is_empty() {
                "nothing".to_owned()
            } else {
                let told = tenant.troubles.iter().map(|one| format!("{:?}: {}", one.code, one.message));
                told.collect::<Vec<_>>().join("\n")
            },
        ),
    ];
    page(&fields)
}

fn key_line(key: &KeyView, now: Timestamp) -> String {
    let said = match key.proven {
        Some(proven) => format!("proven {} ago", time(since(proven, now))),
        None => "never proven".to_owned(),
    };
    let overdue = if is_overdue(key, now) { ", overdue" } else { "" };
    format!("{:?} {}: {said}{overdue}", key.role, key.fingerprint)
}

fn places(backup: &BackupView) -> String {
    let place = |place: &overview::Place| match &place.country {
        Some(country) => format!("{} ({country})", place.name),
        None => place.name.clone(),
    };
    backup.stores.iter().map(place).collect::<Vec<_>>().join(", ")
}

fn drilled(drill: &DrillView, now: Timestamp) -> String {
    let ago = time(since(drill.ended, now));
    if drill.passed == "True" { format!("passed {ago} ago") } else { format!("NOT PASSED {ago} ago") }
}

fn pair(measured: Option<i64>, promised: Option<i64>) -> String {
    let told = |seconds: Option<i64>| seconds.map_or_else(|| "-".to_owned(), time);
    format!("{}/{}", told(measured), told(promised))
}

fn proven(keys: &[KeyView], now: Timestamp) -> String {
    if keys.is_empty() {
        return "-".to_owned();
    }
    let good = keys.iter().filter(|key| key.proven.is_some() && !is_overdue(key, now)).count();
    format!("{good} of {}", keys.len())
}

fn is_overdue(key: &KeyView, now: Timestamp) -> bool {
    key.due.is_some_and(|due| due < now)
}

fn since(moment: Timestamp, now: Timestamp) -> i64 {
    now.as_second().saturating_sub(moment.as_second())
}

/// `text` without line feeds, and not longer than `most` letters.
fn one_line(text: &str, most: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= most {
        return flat;
    }
    let mut cut: String = flat.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use ::http::{Request, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fake_api::{self, refuse, respond},
        overview::tests::{World, condition, failed, noon},
        plugin::{Input, Screen},
    };

    /// An API server that has `world`.
    fn api(world: &World) -> Api {
        let world = world.clone();
        Api::new(fake_api::client(move |request: Request<Value>| {
            let list = |items: &[Value]| respond(StatusCode::OK, &json!({ "metadata": {}, "items": items }));
            let path = request.uri().path();
            ready(match path.trim_start_matches("/apis/valv.eu/v1alpha1/") {
                "journaltenants" => list(std::slice::from_ref(&world.tenant)),
                "journaltenants/ada" => respond(StatusCode::OK, &world.tenant),
                "backuppolicies" => list(std::slice::from_ref(&world.policy)),
                "backupstores" => list(std::slice::from_ref(&world.store)),
                "backups" | "namespaces/journal-ada/backups" => list(&world.backups),
                _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
            })
        }))
    }

    async fn printed(api: &Api, tenant: Option<&str>, output: Output) -> (Result<Verdict, Error>, String) {
        let mut out = vec![];
        let mut surroundings = Surroundings {
            input: Input::Terminal,
            out: &mut out,
            screen: Screen::Lines,
            now: noon,
            look_every: std::time::Duration::ZERO,
        };
        let connection = Connection::default();
        let arguments = Arguments { tenant: tenant.map(str::to_owned), output, connection };
        let verdict = run(api, &arguments, &mut surroundings).await;
        (verdict, String::from_utf8(out).unwrap())
    }

    /// Without drills, of which the fake server knows nothing, the policy asks for none.
    fn well() -> World {
        let mut world = World::well();
        world.drills = vec![];
        let made = json!("2026-11-23T00:00:00Z");
        world.tenant("/metadata/creationTimestamp", made)
    }

    #[tokio::test]
    async fn when_all_is_well_the_table_says_so_and_the_exit_code_is_0() {
        let (verdict, text) = printed(&api(&well()), None, Output::Table).await;

        assert_eq!(verdict.unwrap().exit_code(), 0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1].split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>(),
            ["ada", "10h ago", "helsinki (FI)", "never", "-/60m", "-/24h", "2 of 2", "-"]
        );
        assert!(text.contains("helsinki  FI       True   AsAsked"), "{text}");
    }

    #[tokio::test]
    async fn what_is_wrong_stands_in_one_line_and_the_exit_code_is_1() {
        let mut world = well();
        world.backups.push(failed("20261123T080000Z", "2026-11-23T08:10:00Z", "StoreFull"));

        let (verdict, text) = printed(&api(&world), None, Output::Table).await;

        assert_eq!(verdict.unwrap().exit_code(), 1);
        let line = text.lines().find(|line| line.starts_with("ada")).unwrap();
        assert!(line.contains("backup ada-20261123t080000z failed (StoreFull)"), "{text}");
    }

    #[tokio::test]
    async fn a_store_that_is_not_ready_is_wrong_though_no_tenant_needs_it() {
        let mut world = well();
        world.policy["spec"]["stores"] = json!(["frankfurt"]);
        world.store["status"]["conditions"] = json!([condition("Ready", "False", "Unreachable")]);

        let (verdict, text) = printed(&api(&world), None, Output::Table).await;

        assert_eq!(verdict.unwrap(), Verdict::Wrong);
        assert!(text.contains("because of Unreachable"), "{text}");
    }

    #[tokio::test]
    async fn one_tenant_has_a_page_with_its_keys_and_the_lock_of_its_backup() {
        let (verdict, text) = printed(&api(&well()), Some("ada"), Output::Table).await;

        assert_eq!(verdict.unwrap(), Verdict::Well);
        assert!(text.contains("helsinki in FI, locked until 2026-12-28T01:10:00Z"), "{text}");
        assert!(text.contains("Escrow "), "{text}");
        assert!(text.contains("wrong           nothing"), "{text}");
    }

    #[tokio::test]
    async fn the_json_has_the_documented_fields() {
        let (_, text) = printed(&api(&well()), None, Output::Json).await;

        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["apiVersion"], "status.valv.eu/v1");
        assert_eq!(value["well"], true);
        let tenant = &value["tenants"][0];
        let documented = include_str!("../../../docs/operations/status.md");
        for name in tenant.as_object().unwrap().keys() {
            let is_there =
                [format!("`{name}`"), format!("`{name}[]`")].iter().any(|text| documented.contains(text));
            assert!(is_there, "{name} is not documented");
        }
        assert_eq!(tenant["lastBackup"]["stores"][0]["country"], "FI");
        assert_eq!(tenant["objectives"]["rtoSeconds"], 3600);
        assert_eq!(value["stores"][0]["breaker"], "Closed");
    }

    #[tokio::test]
    async fn a_tenant_that_is_not_there_is_an_error_that_says_what_to_do() {
        let (verdict, _) = printed(&api(&well()), Some("bo"), Output::Table).await;

        let error = verdict.unwrap_err().to_string();
        assert!(
            error.contains("JournalTenant bo") && error.contains("kubectl get journaltenants"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn who_may_not_read_is_told_what_to_ask_for() {
        let client = fake_api::client(|_| ready(refuse(StatusCode::FORBIDDEN, "Forbidden")));

        let (verdict, text) = printed(&Api::new(client), None, Output::Table).await;

        assert!(verdict.unwrap_err().to_string().contains("valv-auditor"));
        assert_eq!(text, "");
    }

    #[tokio::test]
    async fn what_a_newer_version_wrote_is_named_and_is_not_well() {
        let world = well().tenant("/spec/deletionPolicy", json!("Shred"));

        let (verdict, text) = printed(&api(&world), None, Output::Table).await;

        assert_eq!(verdict.unwrap(), Verdict::Wrong);
        assert!(text.contains("JournalTenant/ada"), "{text}");
    }

    #[test]
    fn a_long_message_is_cut_and_stands_on_one_line() {
        assert_eq!(one_line("a\nb  c", 9), "a b c");
        assert_eq!(one_line("åäö åäö", 4), "åäö…");
    }
}
