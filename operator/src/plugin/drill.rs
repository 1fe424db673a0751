//! `valv drill`: drill a restore now, watch one, list them.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use kube::{ResourceExt, api::ObjectMeta};
use valv_crds::{
    RestoreDrill, RestoreDrillSpec,
    drill::{Choice, Outcome},
};

use super::{
    Api, Connection, Error, Surroundings, Verdict,
    amount::time,
    table::table,
    watch::{self, Standing, Step},
};
use crate::overview::find;

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Restore a backup into a namespace of its own, judge it, and tear it down
    Now(Now),
    /// Show how far a drill is, until all is torn down. Exit code 0: it passed; 1: it did not; 2: it could not be asked
    Watch(Watch),
    /// List the drills whose objects are kept
    List(List),
}

/// `drill now`.
#[derive(Args, Debug)]
pub struct Now {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which backup: newest, random, or a slot such as 20261122T010000Z
    #[arg(long, value_name = "BACKUP", default_value_t)]
    pub backup: Choice,
    /// From which store; absent: the stores of the policy take turns
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Watch it until it has ended
    #[arg(long)]
    pub wait: bool,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// `drill watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// Whose
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which; absent: the one that runs, or else the newest
    #[arg(value_name = "DRILL")]
    pub name: Option<String>,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

/// `drill list`.
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
        Command::Now(now) => drill(api, now, surroundings).await,
        Command::Watch(Watch { tenant, name, .. }) => {
            let name = match name {
                Some(name) => name.clone(),
                None => newest(api, tenant).await?,
            };
            surroundings.say(&format!("drill {name}"))?;
            watch::watch::<RestoreDrill>(api, tenant, &name, standing, surroundings).await
        }
        Command::List(List { tenant, .. }) => list(api, tenant, surroundings).await,
    }
}

async fn drill(api: &Api, now: &Now, surroundings: &mut Surroundings<'_>) -> Result<Verdict, Error> {
    api.tenant(&now.tenant).await?;
    // Not a name with a slot in it: those are the schedule's.
    let drill = RestoreDrill {
        metadata: ObjectMeta { generate_name: Some(format!("{}-", now.tenant)), ..ObjectMeta::default() },
        spec: RestoreDrillSpec {
            backup: now.backup,
            store: now.store.clone(),
            ..RestoreDrillSpec::default()
        },
        status: None,
    };
    let name = api.create(&now.tenant, &drill).await?;
    surroundings.say(&format!("drill {name} was asked for"))?;
    if now.wait {
        return watch::watch::<RestoreDrill>(api, &now.tenant, &name, standing, surroundings).await;
    }
    surroundings.say(&format!("watch it: kubectl valv drill watch {} {name}", now.tenant))?;
    Ok(Verdict::Well)
}

async fn newest(api: &Api, tenant: &str) -> Result<String, Error> {
    let all = api.of::<RestoreDrill>(Some(tenant)).await?.items;
    let has_ended = |drill: &RestoreDrill| drill.status.as_ref().is_some_and(|status| status.ended.is_some());
    let newest = all.iter().max_by_key(|drill| {
        (!has_ended(drill), drill.creation_timestamp().map(|made| made.0), drill.name_any())
    });
    newest.map(ResourceExt::name_any).ok_or_else(|| Error::NotThere {
        what: format!("drill of {tenant}"),
        next: format!("`kubectl valv drill now {tenant}` makes one"),
    })
}

async fn list(api: &Api, tenant: &str, surroundings: &mut Surroundings<'_>) -> Result<Verdict, Error> {
    let mut all = api.of::<RestoreDrill>(Some(tenant)).await?.items;
    if all.is_empty() {
        api.tenant(tenant).await?;
        surroundings.say(&format!("no drills of {tenant} in this cluster"))?;
        return Ok(Verdict::Well);
    }
    all.sort_by_key(|drill| (drill.creation_timestamp().map(|made| made.0), drill.name_any()));
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let heading = ["NAME", "PASSED", "WHY", "BACKUP", "RTO", "RPO", "OBJECTIVES", "TORN DOWN"];
    surroundings.say(&table(&heading, &rows))?;
    Ok(Verdict::Well)
}

fn row(drill: &RestoreDrill) -> Vec<String> {
    let status = drill.status.clone().unwrap_or_default();
    let dash = || "-".to_owned();
    let of = |kind: &str| find(&status.conditions, kind).map_or_else(dash, |found| found.status.clone());
    let measured = status.measured.clone().unwrap_or_default();
    vec![
        drill.name_any(),
        of("Passed"),
        find(&status.conditions, "Passed").map_or_else(dash, |passed| passed.reason.clone()),
        status.backup.as_ref().map_or_else(dash, |backup| backup.slot.to_string()),
        measured.rto_seconds.map_or_else(dash, time),
        measured.rpo_seconds.map_or_else(dash, time),
        of("ObjectivesMet"),
        of("TornDown"),
    ]
}

/// How `drill` stands. It is over when its verdict stands and nothing of it is left.
fn standing(drill: &RestoreDrill, _: Timestamp) -> Standing {
    let under = |stage: &str, detail: String| {
        Standing::Under(Step { stage: stage.to_owned(), percent: None, detail })
    };
    let Some(status) = &drill.status else {
        return under("Waiting", "the operator has not seen it yet".to_owned());
    };
    let passed = find(&status.conditions, "Passed");
    let reason = passed.map_or("Waiting", |passed| passed.reason.as_str());
    let message = passed.map(|passed| passed.message.clone()).unwrap_or_default();
    if status.ended.is_none() {
        let done = status.verdicts.iter().filter(|verdict| verdict.outcome != Outcome::NotReached).count();
        let told = if done == 0 { String::new() } else { format!("{done} checks made; ") };
        return under(reason, format!("{told}{message}"));
    }
    let torn_down = find(&status.conditions, "TornDown");
    if torn_down.is_none_or(|torn_down| torn_down.status != "True") {
        let detail = torn_down.map_or_else(String::new, |torn_down| torn_down.message.clone());
        return under("TearingDown", detail);
    }
    let name = drill.name_any();
    let measured = status.measured.clone().unwrap_or_default();
    let seconds = |seconds: Option<i64>| seconds.map_or_else(|| "not measured".to_owned(), time);
    let times = format!(
        "recovery time {}, recovery point {}",
        seconds(measured.rto_seconds),
        seconds(measured.rpo_seconds)
    );
    let mut lines = vec![];
    let is_passed = passed.is_some_and(|passed| passed.status == "True");
    lines.push(if is_passed {
        format!("drill {name} passed: {message}; {times}")
    } else {
        format!("drill {name} did NOT pass ({reason}): {message}; {times}")
    });
    for verdict in &status.verdicts {
        if matches!(verdict.outcome, Outcome::Failed | Outcome::Warned) {
            let said = verdict.message.as_deref().unwrap_or_default();
            lines.push(format!("  {} {:?} ({:?}): {said}", verdict.name, verdict.outcome, verdict.reason));
        }
    }
    let objectives = find(&status.conditions, "ObjectivesMet").filter(|met| met.status == "False");
    if let Some(missed) = objectives {
        lines.push(format!("  promised objectives were missed ({}): {}", missed.reason, missed.message));
    }
    let verdict = if is_passed && objectives.is_none() { Verdict::Well } else { Verdict::Wrong };
    if verdict == Verdict::Wrong {
        lines.push("what to do: docs/operations/drills.md".to_owned());
    }
    Standing::Over { verdict, told: lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::overview::tests::{condition, drill as ended, noon};

    fn stand(drill: &Value) -> Standing {
        standing(&serde_json::from_value(drill.clone()).unwrap(), noon())
    }

    fn torn_down(passed: &str, reason: &str) -> Value {
        ended("ada-x", "2026-11-23T08:00:00Z", passed, reason)
    }

    fn over(drill: &Value) -> (Verdict, String) {
        match stand(drill) {
            Standing::Over { verdict, told } => (verdict, told),
            Standing::Under(step) => panic!("it is not over: {step:?}"),
        }
    }

    #[test]
    fn a_drill_is_over_only_when_nothing_of_it_is_left() {
        let mut verdict_stands = ended("ada-x", "2026-11-23T08:00:00Z", "True", "AsAsked");
        verdict_stands["status"]["conditions"][1] = condition("TornDown", "False", "TearingDown");

        assert!(matches!(stand(&verdict_stands), Standing::Under(step) if step.stage == "TearingDown"));
        let (verdict, told) = over(&torn_down("True", "AsAsked"));
        assert_eq!(verdict, Verdict::Well);
        assert!(told.contains("recovery time 41m, recovery point 4h"), "{told}");
    }

    #[test]
    fn a_drill_that_did_not_pass_names_the_check_that_failed() {
        let mut drill = torn_down("False", "SegmentDiffers");
        drill["status"]["verdicts"] = json!([
            { "name": "CommitSignature", "outcome": "Passed", "reason": "AsAsked" },
            { "name": "Segments", "outcome": "Failed", "reason": "SegmentDiffers", "message": "segment 7 differs" },
        ]);

        let (verdict, told) = over(&drill);

        assert_eq!(verdict.exit_code(), 1);
        assert!(told.contains("did NOT pass (SegmentDiffers)"), "{told}");
        assert!(told.contains("Segments Failed (SegmentDiffers): segment 7 differs"), "{told}");
        assert!(!told.contains("CommitSignature"), "{told}");
    }

    #[test]
    fn a_drill_that_missed_a_promise_passed_and_is_wrong_all_the_same() {
        let mut drill = torn_down("True", "AsAsked");
        let missed = condition("ObjectivesMet", "False", "RecoveryTimeMissed");
        drill["status"]["conditions"].as_array_mut().unwrap().push(missed);

        let (verdict, told) = over(&drill);

        assert_eq!(verdict, Verdict::Wrong);
        assert!(told.contains("passed") && told.contains("RecoveryTimeMissed"), "{told}");
    }

    #[test]
    fn a_row_says_verdict_times_and_what_is_left() {
        let drill: RestoreDrill = serde_json::from_value(torn_down("True", "AsAsked")).unwrap();

        assert_eq!(row(&drill), ["ada-x", "True", "AsAsked", "-", "41m", "4h", "-", "True"]);
    }
}
