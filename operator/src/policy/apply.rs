//! Makes the backups that are due.

use futures::{StreamExt, stream};
use kube::{Resource, ResourceExt, api::ObjectMeta, runtime::reflector::ObjectRef};
use tracing::{info, warn};
use valv_crds::{Backup, BackupSpec, backup::Origin, reference::NAMESPACE_PREFIX, slot};

use super::{
    Context,
    plan::{Order, Plan},
};
use crate::{
    error::chain,
    io::{
        cluster::Error,
        events::{self, News, Tone},
        kind::Kind,
    },
    schedule::Missed,
};

/// Backups that are made at once: the apiserver's answer to one is waited for, and there may be thousands.
const AT_ONCE: usize = 32;

/// What became of one order.
#[derive(Debug)]
enum Made {
    /// The backup was made.
    Now,
    /// It was there: made by somebody who came to the same plan.
    Before,
    /// Something else has its name.
    Blocked(Origin),
}

/// Makes what `plan` orders, some tens at a time.
///
/// # Errors
/// The first, after all others were tried: what fails for one tenant stops no other.
pub async fn apply(plan: &Plan, context: &Context) -> Result<(), Error> {
    let orders: Vec<_> = plan.orders.iter().map(|order| attempt(order, context)).collect();
    let mut made = stream::iter(orders).buffer_unordered(AT_ONCE);
    let mut first = None;
    while let Some((order, made)) = made.next().await {
        match made {
            Ok(Made::Now) => {
                let name = slot::name(&order.tenant, order.slot);
                info!(tenant.name = order.tenant, object.name = name, "took a slot on");
                tell(order, context, missed(&order.missed)).await;
            }
            Ok(Made::Before) => {}
            Ok(Made::Blocked(origin)) => tell(order, context, Some(blocked(order, origin))).await,
            // Its namespace is not there yet, or the operator's access to it.
            Err(error) => {
                warn!(
                    tenant.name = order.tenant,
                    error = chain(&error),
                    "failed to make a backup that is due, trying again"
                );
                if !error.is_not_found() && !error.is_refusal() {
                    first.get_or_insert(error);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}

async fn attempt<'a>(order: &'a Order, context: &Context) -> (&'a Order, Result<Made, Error>) {
    (order, make(order, context).await)
}

async fn make(order: &Order, context: &Context) -> Result<Made, Error> {
    let name = slot::name(&order.tenant, order.slot);
    let namespace = format!("{NAMESPACE_PREFIX}{}", order.tenant);
    let backup = Backup {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec { origin: Origin::Scheduled, ..BackupSpec::default() },
        status: None,
    };
    match context.cluster.create_backup(&backup).await {
        Ok(()) => Ok(Made::Now),
        Err(error) if error.is_conflict() => {
            match context.cluster.get::<Backup>(Kind::Backup, &namespace, &name).await? {
                Some(there) if there.spec.origin != Origin::Scheduled => Ok(Made::Blocked(there.spec.origin)),
                // What went in between is made at the next look.
                Some(_) | None => Ok(Made::Before),
            }
        }
        Err(error) => Err(error),
    }
}

/// The news of slots that passed.
fn missed(missed: &Missed) -> Option<News> {
    let (first, last) = (missed.oldest.or(missed.listed.first().copied())?, missed.listed.last()?);
    let many = if missed.oldest.is_some() {
        "more than ".to_owned() + &missed.listed.len().to_string()
    } else {
        missed.listed.len().to_string()
    };
    Some(News {
        tone: Tone::Warning,
        reason: "SlotsMissed".to_owned(),
        note: format!(
            "{many} slots passed and were not run, {first} to {last}: the operator was away, or the tenant rested; the newest is run now"
        ),
    })
}

/// The news of a slot whose name something else has.
fn blocked(order: &Order, origin: Origin) -> News {
    News {
        tone: Tone::Warning,
        reason: "SlotBlocked".to_owned(),
        note: format!(
            "the slot {} is not run: the Backup {} in {NAMESPACE_PREFIX}{} has its name and was made as {origin:?}; delete it",
            order.slot,
            slot::name(&order.tenant, order.slot),
            order.tenant
        ),
    }
}

/// Tells `news` of the order's tenant.
async fn tell(order: &Order, context: &Context, news: Option<News>) {
    let Some(news) = news else { return };
    warn!(tenant.name = order.tenant, slot = %order.slot, reason = news.reason, "{}", news.note);
    let tenant = context.tenants.get(&ObjectRef::new(&order.tenant));
    if let Some(tenant) = tenant.as_ref().and_then(|tenant| tenant.0.as_ref().ok()) {
        debug_assert_eq!(tenant.name_any(), order.tenant);
        events::publish(&context.recorder, &tenant.object_ref(&()), vec![news]).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        future::ready,
        sync::{Arc, Mutex},
    };

    use ::http::{Method, StatusCode};
    use kube::runtime::{
        events::{Recorder, Reporter},
        reflector,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{backoff::Backoff, fake_api, policy::Context};

    fn order(tenant: &str) -> Order {
        Order {
            tenant: tenant.to_owned(),
            slot: "20261122T010000Z".parse().unwrap(),
            missed: Missed::default(),
        }
    }

    /// A server that answers the wish to make a backup as `answer` says, by the tenant's namespace, and notes for whom
    /// one was made.
    fn context(
        noted: Arc<Mutex<BTreeSet<String>>>,
        answer: impl Fn(&str) -> Option<StatusCode> + Clone + Send + Sync + 'static,
    ) -> Context {
        let client = fake_api::client(move |request| {
            let path = request.uri().path().to_owned();
            let noted = noted.clone();
            let tenant = path.split('/').find_map(|part| part.strip_prefix("journal-")).unwrap_or_default();
            ready(match answer(tenant) {
                Some(code) if *request.method() == Method::POST => fake_api::refuse(code, "as the test says"),
                _ if *request.method() == Method::POST => {
                    noted.lock().unwrap().insert(tenant.to_owned());
                    fake_api::respond(StatusCode::CREATED, request.body())
                }
                _ => fake_api::respond(StatusCode::OK, &there(tenant)),
            })
        });
        Context {
            cluster: fake_api::cluster(client.clone()),
            tenants: reflector::store().0,
            stores: reflector::store().0,
            backups: reflector::store().0,
            drills: reflector::store().0,
            settings: Arc::new(
                crate::settings::Settings::parse(
                    "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}",
                    "valv-system",
                )
                .unwrap(),
            ),
            recorder: Recorder::new(client, Reporter::from("test")),
            backoff: Backoff::default(),
            now: || "2026-11-22T01:00:00Z".parse().unwrap(),
        }
    }

    /// Makes the orders of these tenants, and says for whom a backup was made, and what came of it all.
    async fn made(
        tenants: &[&str],
        answer: impl Fn(&str) -> Option<StatusCode> + Clone + Send + Sync + 'static,
    ) -> (BTreeSet<String>, Result<(), Error>) {
        let noted = Arc::new(Mutex::new(BTreeSet::new()));
        let context = context(noted.clone(), answer);
        let plan = Plan {
            orders: tenants.iter().map(|tenant| order(tenant)).collect(),
            look_again_after: std::time::Duration::ZERO,
        };
        let result = apply(&plan, &context).await;
        (noted.lock().unwrap().clone(), result)
    }

    fn there(tenant: &str) -> Value {
        let origin = if tenant == "blocked" { "Manual" } else { "Scheduled" };
        json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "Backup", "spec": { "origin": origin },
            "metadata": { "name": format!("{tenant}-20261122t010000z"), "namespace": format!("journal-{tenant}") },
        })
    }

    fn names(tenants: &[&str]) -> BTreeSet<String> {
        tenants.iter().map(|&tenant| tenant.to_owned()).collect()
    }

    #[tokio::test]
    async fn one_tenant_s_error_stops_no_other_and_is_returned_at_the_end() {
        let fails = |tenant: &str| (tenant == "a").then_some(StatusCode::INTERNAL_SERVER_ERROR);

        let (made, result) = made(&["a", "b", "c"], fails).await;

        assert_eq!(made, names(&["b", "c"]));
        assert_eq!(result.unwrap_err().status().unwrap().code, 500);
    }

    #[tokio::test]
    async fn a_tenant_whose_namespace_is_not_there_is_no_error() {
        let (made, result) =
            made(&["a", "b"], |tenant| (tenant == "a").then_some(StatusCode::NOT_FOUND)).await;

        assert_eq!(made, names(&["b"]));
        assert!(result.is_ok());
    }

    #[tokio::test]
    async fn a_backup_that_is_there_is_read_and_its_origin_compared() {
        let context = context(Arc::default(), |_| Some(StatusCode::CONFLICT));

        let ours = make(&order("ours"), &context).await.unwrap();
        let blocking = make(&order("blocked"), &context).await.unwrap();

        assert!(matches!(ours, Made::Before), "{ours:?}");
        assert!(matches!(blocking, Made::Blocked(Origin::Manual)), "{blocking:?}");
        let told = |origin| blocked(&order("ada"), origin);
        assert_eq!(told(Origin::Manual).reason, "SlotBlocked");
        assert!(
            told(Origin::Manual).note.contains("ada-20261122t010000z in journal-ada"),
            "{:?}",
            told(Origin::Manual)
        );
    }

    #[test]
    fn what_was_missed_is_told_with_its_first_and_last() {
        let slots = ["20261120T010000Z", "20261121T010000Z"].map(|slot| slot.parse().unwrap());
        let some = Missed { listed: slots.to_vec(), oldest: None };

        let said = missed(&some).unwrap().note;

        assert!(
            said.starts_with("2 slots passed") && said.contains("20261120T010000Z to 20261121T010000Z"),
            "{said}"
        );
        assert_eq!(missed(&Missed::default()), None);
    }
}
