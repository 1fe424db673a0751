//! `valv backup`: take one now, watch one, cancel one, list them.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::{ResourceExt, api::ObjectMeta};
use valv_crds::{Backup, BackupSpec, backup::Stage};

use super::{
    Api, Connection, Error, Surroundings, Verdict,
    amount::{size, time},
    table::table,
    watch::{self, Standing, Step},
};
use crate::overview::find;

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a backup now
    Now(Now),
    /// Show how far a backup is, until it has ended. Exit code 0: it is complete; 1: it failed; 2: it could not be asked
    Watch(Watch),
    /// Stop a backup. What it wrote is garbage, which the clean-up finds
    Cancel(Cancel),
    /// List the backups whose objects are kept; the bucket has all
    List(List),
}

/// `backup now`.
#[derive(Args, Debug)]
pub struct Now {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Watch it until it has ended
    #[arg(long)]
    pub wait: bool,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// `backup watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which; absent: the one that runs, or else the newest
    #[arg(value_name = "BACKUP")]
    pub name: Option<String>,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// `backup cancel`.
#[derive(Args, Debug)]
pub struct Cancel {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which
    #[arg(value_name = "BACKUP")]
    pub name: String,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// `backup list`.
#[derive(Args, Debug)]
pub struct List {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

impl Command {
    /// Which cluster it asks.
    pub fn connection(&self) -> &Connection {
        match self {
            Self::Now(Now { connection, .. })
            | Self::Watch(Watch { connection, .. })
            | Self::Cancel(Cancel { connection, .. })
            | Self::List(List { connection, .. }) => connection,
        }
    }
}

/// Does it.
pub async fn run(
    api: &Api,
    command: &Command,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error> {
    match command {
        Command::Now(now) => take(api, now, surroundings).await,
        Command::Watch(Watch { tenant, name, .. }) => {
            let name = match name {
                Some(name) => name.clone(),
                None => newest(api, tenant).await?,
            };
            surroundings.say(&format!("backup {name}"))?;
            watch::watch::<Backup>(api, tenant, &name, standing, surroundings).await
        }
        Command::Cancel(Cancel { tenant, name, .. }) => cancel(api, tenant, name, surroundings).await,
        Command::List(List { tenant, .. }) => list(api, tenant, surroundings).await,
    }
}

async fn take(api: &Api, now: &Now, surroundings: &mut Surroundings<'_>) -> Result<Verdict, Error> {
    let tenant = api.tenant(&now.tenant).await?;
    if tenant.spec.backup.is_none() {
        let said = format!(
            "tenant {} is not backed up: give it spec.backup with a policy and recipients first",
            now.tenant
        );
        surroundings.say(&said)?;
        return Ok(Verdict::Wrong);
    }
    if tenant.spec.suspended {
        let said =
            format!("tenant {} is suspended: its database does not run, and cannot be backed up", now.tenant);
        surroundings.say(&said)?;
        return Ok(Verdict::Wrong);
    }
    // Not a name with a slot in it: those are the schedule's.
    let backup = Backup {
        metadata: ObjectMeta { generate_name: Some(format!("{}-", now.tenant)), ..ObjectMeta::default() },
        spec: BackupSpec::default(),
        status: None,
    };
    let name = api.create(&now.tenant, &backup).await?;
    surroundings.say(&format!("backup {name} was asked for"))?;
    if now.wait {
        return watch::watch::<Backup>(api, &now.tenant, &name, standing, surroundings).await;
    }
    surroundings.say(&format!("watch it: kubectl valv backup watch {} {name}", now.tenant))?;
    Ok(Verdict::Well)
}

async fn newest(api: &Api, tenant: &str) -> Result<String, Error> {
    let all = api.of::<Backup>(Some(tenant)).await?.items;
    let has_ended = |backup: &Backup| backup.status.as_ref().is_some_and(|status| status.ended.is_some());
    let newest = all.iter().max_by_key(|backup| {
        (!has_ended(backup), backup.creation_timestamp().map(|made| made.0), backup.name_any())
    });
    newest.map(ResourceExt::name_any).ok_or_else(|| Error::NotThere {
        what: format!("backup of {tenant}"),
        next: format!("`kubectl valv backup now {tenant}` takes one"),
    })
}

async fn cancel(
    api: &Api,
    tenant: &str,
    name: &str,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error> {
    let found = api.find::<Backup>(tenant, name).await?.ok_or_else(|| Error::NotThere {
        what: format!("backup {name} of {tenant}"),
        next: format!("`kubectl valv backup list {tenant}` lists those that there are"),
    })?;
    if let Standing::Over { told, .. } = standing(&found, (surroundings.now)()) {
        surroundings.say(&format!("nothing to cancel: {told}"))?;
        return Ok(Verdict::Wrong);
    }
    api.cancel::<Backup>(tenant, name).await?;
    surroundings.say(&format!("backup {name} is being cancelled"))?;
    Ok(Verdict::Well)
}

async fn list(api: &Api, tenant: &str, surroundings: &mut Surroundings<'_>) -> Result<Verdict, Error> {
    let mut all = api.of::<Backup>(Some(tenant)).await?.items;
    if all.is_empty() {
        api.tenant(tenant).await?;
        surroundings.say(&format!("no backups of {tenant} in this cluster"))?;
        return Ok(Verdict::Well);
    }
    all.sort_by_key(|backup| (backup.creation_timestamp().map(|made| made.0), backup.name_any()));
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    surroundings.say(&table(&["NAME", "COMPLETE", "WHY", "HOLDS", "SIZE", "WHERE"], &rows))?;
    Ok(Verdict::Well)
}

fn row(backup: &Backup) -> Vec<String> {
    let status = backup.status.clone().unwrap_or_default();
    let complete = find(&status.conditions, "Complete");
    let stores = status.stores.iter().filter(|store| store.commit.is_some()).map(|store| store.name.clone());
    let dash = || "-".to_owned();
    vec![
        backup.name_any(),
        complete.map_or_else(|| "Unknown".to_owned(), |complete| complete.status.clone()),
        complete.map_or_else(dash, |complete| complete.reason.clone()),
        status.taken.map_or_else(dash, |taken| taken.0.to_string()),
        status.size.map_or_else(dash, |bytes| size(bytes.bytes)),
        stores.collect::<Vec<_>>().join(", "),
    ]
}

/// How `backup` stands.
fn standing(backup: &Backup, now: Timestamp) -> Standing {
    let name = backup.name_any();
    let Some(status) = &backup.status else {
        let detail = "the operator has not seen it yet".to_owned();
        return Standing::Under(Step { stage: "Waiting".to_owned(), percent: None, detail });
    };
    let complete = find(&status.conditions, "Complete");
    if let Some(complete) = complete.filter(|complete| complete.status == "True") {
        let bytes = status.size.map_or(0, |bytes| bytes.bytes);
        let told = format!("backup {name} is complete: {}; {}", size(bytes), complete.message);
        return Standing::Over { verdict: Verdict::Well, told };
    }
    let stalled = find(&status.conditions, "Stalled").filter(|stalled| stalled.status == "True");
    if let Some(stalled) = stalled {
        let told = format!(
            "backup {name} failed ({}): {}\nwhat to do: docs/operations/backups.md#{}",
            stalled.reason,
            stalled.message,
            stalled.reason.to_lowercase()
        );
        return Standing::Over { verdict: Verdict::Wrong, told };
    }
    let progress = status.progress.clone().unwrap_or_default();
    let detail = match progress.stage {
        Stage::Database | Stage::Attachments | Stage::Tenant | Stage::ReadingBack if progress.bytes > 0 => {
            let of = progress.total_bytes.map_or_else(String::new, |total| format!(" of {}", size(total)));
            let segments = progress.segment.map_or_else(String::new, segments);
            let rate =
                progress.bytes_per_second.map_or_else(String::new, |rate| format!(", {}/s", size(rate)));
            let left = progress.left.as_ref().map_or_else(String::new, |left| format!(", {left} left"));
            let age = progress.at.as_ref().map_or(0, |at| now.as_second().saturating_sub(at.0.as_second()));
            let silent = if age > 60 { format!(", no news for {}", time(age)) } else { String::new() };
            format!("{}{of}{segments}{rate}{left}{silent}", size(progress.bytes))
        }
        Stage::Waiting
        | Stage::Database
        | Stage::Attachments
        | Stage::Tenant
        | Stage::ReadingBack
        | Stage::Committing
        | Stage::Done => complete.map(|complete| complete.message.clone()).unwrap_or_default(),
    };
    Standing::Under(Step { stage: format!("{:?}", progress.stage), percent: progress.percent, detail })
}

fn segments(done: i64) -> String {
    match done {
        1 => ", 1 segment".to_owned(),
        done => format!(", {done} segments"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use ::http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fake_api::{self, refuse, respond},
        overview::tests::{World, complete, condition, failed, noon},
        plugin::{Input, Screen},
    };

    /// An API server with one tenant. A backup moves on by one of `versions` at each look.
    #[derive(Clone)]
    struct Fake(Arc<Mutex<State>>);

    struct State {
        tenant: Value,
        versions: Vec<Value>,
        written: Vec<(Method, String, Value)>,
        failures_to_come: u32,
    }

    impl Fake {
        fn new(versions: Vec<Value>) -> Self {
            let tenant = World::well().tenant;
            let state = State { tenant, versions, written: vec![], failures_to_come: 0 };
            Self(Arc::new(Mutex::new(state)))
        }

        fn change(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.lock().unwrap());
        }

        fn written(&self) -> Vec<(Method, String, Value)> {
            self.0.lock().unwrap().written.clone()
        }

        fn api(&self) -> Api {
            let fake = self.clone();
            Api::new(fake_api::client(move |request| {
                let answer = fake.0.lock().unwrap().answer(&request);
                async move { answer }
            }))
        }
    }

    impl State {
        fn answer(&mut self, request: &Request<Value>) -> Response<Body> {
            let path = request.uri().path().trim_start_matches("/apis/valv.eu/v1alpha1/").to_owned();
            if request.method() != Method::GET {
                self.written.push((request.method().clone(), path, request.body().clone()));
                let mut made = request.body().clone();
                made["metadata"]["name"] = json!("ada-x7k2p");
                made["kind"] = json!("Backup");
                made["apiVersion"] = json!("valv.eu/v1alpha1");
                return respond(StatusCode::CREATED, &made);
            }
            match path.as_str() {
                "journaltenants/ada" => respond(StatusCode::OK, &self.tenant),
                "namespaces/journal-ada/backups" => {
                    respond(StatusCode::OK, &json!({ "metadata": {}, "items": self.versions }))
                }
                path if path.starts_with("namespaces/journal-ada/backups/") => {
                    if self.failures_to_come > 0 {
                        self.failures_to_come -= 1;
                        return refuse(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
                    }
                    match self.versions.len() {
                        0 => refuse(StatusCode::NOT_FOUND, "NotFound"),
                        1 => respond(StatusCode::OK, &self.versions[0]),
                        _ => respond(StatusCode::OK, &self.versions.remove(0)),
                    }
                }
                _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
            }
        }
    }

    async fn told(fake: &Fake, screen: Screen, command: &Command) -> (Result<Verdict, Error>, String) {
        let mut out = vec![];
        let mut surroundings = Surroundings {
            input: Input::Terminal,
            out: &mut out,
            screen,
            now: noon,
            look_every: Duration::ZERO,
        };
        let verdict = run(&fake.api(), command, &mut surroundings).await;
        (verdict, String::from_utf8(out).unwrap())
    }

    fn now() -> Now {
        Now { tenant: "ada".to_owned(), wait: false, connection: Connection::default() }
    }

    fn now_and_wait() -> Command {
        Command::Now(Now { wait: true, ..now() })
    }

    fn watch(name: Option<&str>) -> Command {
        let name = name.map(str::to_owned);
        Command::Watch(Watch { tenant: "ada".to_owned(), name, connection: Connection::default() })
    }

    fn running(stage: &str, percent: i32) -> Value {
        json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "Backup",
            "metadata": { "name": "ada-x7k2p", "namespace": "journal-ada" }, "spec": {},
            "status": {
                "started": "2026-11-23T11:00:00Z",
                "progress": {
                    "stage": stage, "bytes": 1_288_490_188, "totalBytes": 2_147_483_648_i64, "percent": percent,
                    "segment": 81, "bytesPerSecond": 89_128_960, "left": "12m", "at": "2026-11-23T11:59:58Z",
                },
                "conditions": [condition("Complete", "False", "Running")],
            },
        })
    }

    /// The variants of an enum, by its source.
    fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
        let (_, body) = source.split_once(&format!("pub enum {name} {{")).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        let lines =
            body.lines().map(str::trim).filter(|line| !line.starts_with('/') && !line.starts_with('#'));
        lines.map(|line| line.trim_end_matches(',')).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn every_reason_is_explained_for_whoever_is_on_call() {
        let operations = include_str!("../../../docs/operations/README.md");
        let section = |name: &str| {
            let (_, rest) = operations.split_once(&format!("\n## {name}\n")).unwrap();
            rest.split_once("\n## ").map_or(rest, |(section, _)| section)
        };
        let nothing_to_do = section("Nothing to do");
        let (stores, policies) = (
            format!("{nothing_to_do}{}", section("Stores")),
            format!("{nothing_to_do}{}", section("Policies")),
        );
        let held = [
            (
                "BackupReason",
                include_str!("../../../crds/src/backup.rs"),
                include_str!("../../../docs/operations/backups.md"),
            ),
            (
                "DrillReason",
                include_str!("../../../crds/src/drill.rs"),
                include_str!("../../../docs/operations/drills.md"),
            ),
            ("StoreReason", include_str!("../../../crds/src/store.rs"), &stores),
            ("PolicyReason", include_str!("../../../crds/src/policy.rs"), &policies),
            ("Reason", include_str!("../../../crds/src/condition.rs"), operations),
        ];
        for (name, source, runbook) in held {
            let reasons = variants(source, name);
            assert!(reasons.len() > 5, "{name}: {reasons:?}");
            for reason in reasons {
                let is_there =
                    runbook.contains(&format!("\n## {reason}\n")) || runbook.contains(&format!("`{reason}`"));
                assert!(is_there, "no runbook explains {name}::{reason}");
            }
        }
    }

    #[tokio::test]
    async fn a_backup_that_is_asked_for_is_manual_and_has_no_name_of_a_slot() {
        let fake = Fake::new(vec![]);

        let (verdict, text) = told(&fake, Screen::Lines, &Command::Now(now())).await;

        assert_eq!(verdict.unwrap(), Verdict::Well);
        let (method, path, body) = &fake.written()[0];
        assert_eq!((method, path.as_str()), (&Method::POST, "namespaces/journal-ada/backups"));
        assert_eq!(body["spec"], json!({ "origin": "Manual", "cancel": false }));
        assert_eq!(body["metadata"], json!({ "generateName": "ada-" }));
        assert!(text.contains("kubectl valv backup watch ada ada-x7k2p"), "{text}");
    }

    #[tokio::test]
    async fn a_tenant_that_cannot_be_backed_up_is_told_why_and_nothing_is_made() {
        for (pointer, value, word) in
            [("/spec/backup", Value::Null, "not backed up"), ("/spec/suspended", json!(true), "suspended")]
        {
            let fake = Fake::new(vec![]);
            fake.change(|state| state.tenant = World::well().tenant(pointer, value).tenant);

            let (verdict, text) = told(&fake, Screen::Lines, &now_and_wait()).await;

            assert_eq!(verdict.unwrap(), Verdict::Wrong);
            assert!(text.contains(word), "{text}");
            assert!(fake.written().is_empty());
        }
    }

    #[tokio::test]
    async fn whoever_waits_sees_it_move_and_end() {
        let mut end = complete("20261123T110000Z", "2026-11-23T11:59:59Z");
        end["metadata"]["name"] = json!("ada-x7k2p");
        let fake = Fake::new(vec![
            running("Database", 12),
            running("Database", 13),
            running("ReadingBack", 90),
            end,
        ]);

        let (verdict, text) = told(&fake, Screen::Lines, &now_and_wait()).await;

        assert_eq!(verdict.unwrap(), Verdict::Well);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "Database  12 %  1.1 GiB of 2.0 GiB, 81 segments, 85.0 MiB/s, 12m left",
                "ReadingBack  90 %  1.1 GiB of 2.0 GiB, 81 segments, 85.0 MiB/s, 12m left",
                "backup ada-x7k2p is complete: 4.0 KiB; because of Committed",
            ]
        );
    }

    #[tokio::test]
    async fn on_a_terminal_the_bar_is_drawn_over_itself() {
        let fake = Fake::new(vec![
            running("Database", 50),
            failed("20261123T110000Z", "2026-11-23T11:59:59Z", "StoreFull"),
        ]);

        let (verdict, text) = told(&fake, Screen::Terminal, &watch(Some("ada-x7k2p"))).await;

        assert_eq!(verdict.unwrap().exit_code(), 1);
        assert!(text.contains("\r\u{1b}[2KDatabase  [############------------]  50 %"), "{text:?}");
        assert!(text.contains("failed (StoreFull)") && text.contains("backups.md#storefull"), "{text}");
    }

    #[tokio::test]
    async fn an_agent_that_has_fallen_silent_is_seen() {
        let mut silent = running("Database", 50);
        silent["status"]["progress"]["at"] = json!("2026-11-23T11:50:00Z");
        let fake = Fake::new(vec![silent, complete("20261123T110000Z", "2026-11-23T11:59:59Z")]);

        let (_, text) = told(&fake, Screen::Lines, &watch(Some("ada-x7k2p"))).await;

        assert!(text.contains("no news for 10m"), "{text}");
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_for_a_moment_ends_no_watch() {
        let fake = Fake::new(vec![complete("20261123T110000Z", "2026-11-23T11:59:59Z")]);
        fake.change(|state| state.failures_to_come = 3);
        let (verdict, _) = told(&fake, Screen::Lines, &watch(Some("ada-x7k2p"))).await;
        assert_eq!(verdict.unwrap(), Verdict::Well);

        fake.change(|state| state.failures_to_come = 1000);
        let (verdict, _) = told(&fake, Screen::Lines, &watch(Some("ada-x7k2p"))).await;
        assert!(verdict.unwrap_err().to_string().contains("failed to get Backup journal-ada/ada-x7k2p"));
    }

    #[tokio::test]
    async fn a_backup_that_was_deleted_is_no_success() {
        let (verdict, _) = told(&Fake::new(vec![]), Screen::Lines, &watch(Some("ada-x7k2p"))).await;

        assert!(verdict.unwrap_err().to_string().contains("somebody deleted it"));
    }

    #[tokio::test]
    async fn without_a_name_the_one_that_runs_is_watched() {
        let mut other = complete("20261123T110000Z", "2026-11-23T11:59:59Z");
        other["metadata"]["creationTimestamp"] = json!("2026-11-23T12:00:00Z");
        let mut this = running("Database", 50);
        this["metadata"]["creationTimestamp"] = json!("2026-11-23T11:00:00Z");
        let fake = Fake::new(vec![this, other]);

        let (_, text) = told(&fake, Screen::Lines, &watch(None)).await;

        assert!(text.starts_with("backup ada-x7k2p\n"), "{text}");
    }

    #[tokio::test]
    async fn a_backup_that_runs_is_cancelled_and_one_that_ended_is_not() {
        let cancel = |name: &str| {
            let (tenant, name) = ("ada".to_owned(), name.to_owned());
            Command::Cancel(Cancel { tenant, name, connection: Connection::default() })
        };
        let fake = Fake::new(vec![running("Database", 50)]);
        let (verdict, _) = told(&fake, Screen::Lines, &cancel("ada-x7k2p")).await;
        assert_eq!(verdict.unwrap(), Verdict::Well);
        let (method, path, body) = &fake.written()[0];
        assert_eq!((method, path.as_str()), (&Method::PATCH, "namespaces/journal-ada/backups/ada-x7k2p"));
        assert_eq!(body, &json!({ "spec": { "cancel": true } }));

        let fake = Fake::new(vec![complete("20261123T110000Z", "2026-11-23T11:59:59Z")]);
        let (verdict, text) = told(&fake, Screen::Lines, &cancel("ada-20261123t110000z")).await;

        assert_eq!(verdict.unwrap(), Verdict::Wrong);
        assert!(text.contains("nothing to cancel") && fake.written().is_empty(), "{text}");
    }

    #[tokio::test]
    async fn a_list_has_a_row_a_backup_and_says_where_it_lies() {
        let fake = Fake::new(vec![
            complete("20261123T010000Z", "2026-11-23T01:10:00Z"),
            failed("20261123T080000Z", "2026-11-23T08:10:00Z", "StoreFull"),
        ]);
        let list = Command::List(List { tenant: "ada".to_owned(), connection: Connection::default() });

        let (verdict, text) = told(&fake, Screen::Lines, &list).await;

        assert_eq!(verdict.unwrap(), Verdict::Well);
        assert!(text.contains("True") && text.contains("helsinki") && text.contains("StoreFull"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
