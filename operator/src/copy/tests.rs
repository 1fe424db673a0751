//! Whole rounds, at a cluster in memory.

use std::future::{pending, ready};

use ::http::{Request, Response, StatusCode};
use kube::{Client, client::Body, runtime::events::Reporter};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::{
    backup::ledger::{Limits, Place},
    copy::check::tests,
    fake_api,
    fake_cache::filled,
};

fn now() -> Timestamp {
    "2026-11-22T03:00:00Z".parse().unwrap()
}

/// Twenty backups, which are to be copied from Helsinki to Frankfurt and to Oslo. No Job is there.
fn context() -> Context {
    context_of(fake_api::client(|request: Request<Value>| ready(nothing(&request))))
}

/// There is nothing of what `request` lists.
fn nothing(request: &Request<Value>) -> Response<Body> {
    let kind = if request.uri().path().ends_with("/jobs") { "JobList" } else { "PodList" };
    let list = json!({ "apiVersion": "v1", "kind": kind, "metadata": {}, "items": [] });
    fake_api::respond(StatusCode::OK, &list)
}

/// Those, in the cluster of `client`.
fn context_of(client: Client) -> Context {
    let names = ["helsinki", "frankfurt", "oslo"];
    let backups = (1..=20).map(|day| {
        let mut backup = serde_json::to_value(tests::backup().as_ref()).unwrap();
        backup["metadata"]["name"] = json!(format!("ada-202611{day:02}t010000z"));
        backup["metadata"]["uid"] = json!(format!("u{day}"));
        backup["status"]["slot"] = json!(format!("202611{day:02}T010000Z"));
        backup
    });
    let stores = tests::stores(&names).into_values().map(|store| {
        let mut object = serde_json::to_value(store.object.as_ref()).unwrap();
        object["spec"]["limits"]["concurrentBackups"] = json!(100);
        object["status"] = json!({ "observedGeneration": 3, "conditions": [{ "type": "Ready", "status": "True",
            "reason": "AsAsked", "message": "", "lastTransitionTime": "2026-11-22T01:00:00Z" }] });
        object
    });
    let mut tenant = serde_json::to_value(tests::tenant().as_ref()).unwrap();
    tenant["spec"]["backup"]["policy"] = json!("default");
    let settings = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";
    let reporter = Reporter { controller: "test".to_owned(), instance: None };
    Context {
        cluster: fake_api::cluster(client.clone()),
        tenants: filled([tenant]),
        policies: filled([serde_json::to_value(tests::policy(&names).as_ref()).unwrap()]),
        stores: filled(stores),
        backups: filled(backups),
        signing: Signing::default(),
        settings: Arc::new(Settings::parse(settings, "valv-system").unwrap()),
        breakers: Breakers::default(),
        ledger: Ledger::default(),
        recorder: Recorder::new(client, reporter),
        resting: Mutex::default(),
        beginning: Mutex::default(),
        cluster_id: OnceCell::new(),
        now,
    }
}

fn to(store: &str) -> Way {
    ("helsinki".to_owned(), store.to_owned())
}

/// How many begin to `store`.
fn begun(ways: &BTreeMap<Way, Vec<(Copy, Step)>>, store: &str) -> usize {
    ways[&to(store)].iter().filter(|(_, step)| matches!(step, Step::Begins { .. })).count()
}

#[tokio::test]
async fn a_way_on_which_somebody_is_yet_takes_no_places_from_others_nor_from_backups() {
    let context = context();
    let admitted = |uid: &str| {
        let name = format!("journal-{uid}");
        let place = Place { namespace: name.clone(), name, store: "frankfurt".to_owned() };
        context.ledger.admit(uid, place, Limits { to_store: 4, in_all: 16 }, Vec::new, |_, _| true).is_ok()
    };

    let all = round(&context, |_| false).await.unwrap();
    assert_eq!((begun(&all, "frankfurt"), begun(&all, "oslo")), (8, 8));
    assert!(!admitted("bo"));

    let others = round(&context, |way| *way == to("frankfurt")).await.unwrap();
    assert_eq!((begun(&others, "frankfurt"), begun(&others, "oslo")), (0, 16));
    assert!(others[&to("frankfurt")].iter().all(|(_, step)| *step == Step::Rests));
    assert!(admitted("bo"));
}

#[tokio::test]
async fn what_is_under_way_goes_on_while_the_cluster_is_asked_what_there_is() {
    let went_on = Arc::new(Notify::new());
    let heard = went_on.clone();
    // It answers when the copy that is under way has come further.
    let context = context_of(fake_api::client(move |request: Request<Value>| {
        let heard = heard.clone();
        async move {
            heard.notified().await;
            heard.notify_one();
            nothing(&request)
        }
    }));
    let mut errands = Errands::default();
    errands.begin(to("frankfurt"), async move {
        went_on.notify_one();
        pending::<()>().await;
    });

    timeout(Duration::from_secs(10), take_round(&context, &mut errands)).await.unwrap();

    assert_eq!(errands.under_way(), [to("frankfurt"), to("oslo")].into());
}

#[tokio::test]
async fn what_is_being_begun_takes_its_place_before_its_job_is_there_and_no_longer_than_that() {
    let context = context();
    let all = round(&context, |_| false).await.unwrap();
    for (copy, step) in &all[&to("frankfurt")] {
        context.begins(copy, step, now() + STALE_AFTER);
    }
    let is_slow = |way: &Way| *way == to("frankfurt");

    assert_eq!(begun(&round(&context, is_slow).await.unwrap(), "oslo"), 8);
    context.beginning().values_mut().skip(2).for_each(|until| *until = now());
    assert_eq!(begun(&round(&context, is_slow).await.unwrap(), "oslo"), 14);

    // None can be begun: nobody has the credentials.
    let mut all = all;
    go(all.remove(&to("frankfurt")).unwrap(), &context).await;
    assert!(context.beginning().is_empty());
}
