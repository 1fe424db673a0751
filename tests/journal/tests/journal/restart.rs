//! A database that goes away and comes back.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::{World, answer};

#[tokio::test]
async fn a_request_without_a_database_is_asked_to_come_back() {
    let mut world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;

    world.postgres.stop();

    let begun = Instant::now();
    let response = site.request(Method::GET, &format!("/api/patients/{patient}")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "5");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    let (ready, body) = answer(site.anonymous(Method::GET, "/readyz")).await;
    assert_eq!((ready, body), (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "database_unreachable" })));
    assert_eq!(answer(site.anonymous(Method::GET, "/livez")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_journal_recovers_by_itself_when_the_database_is_back() {
    let mut world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;

    world.postgres.stop();
    let (without, _) = site.get(&format!("/api/patients/{patient}")).await;
    world.postgres.run().await;

    assert_eq!(without, StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..10 {
        assert_eq!(site.get(&format!("/api/patients/{patient}")).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_request_waits_for_a_database_that_restarts() {
    let mut world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;
    world.postgres.stop();

    let path = format!("/api/patients/{patient}");
    let ((status, _), ()) = tokio::join!(site.get(&path), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.postgres.run().await;
    });

    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_journal_that_starts_before_its_database_becomes_ready() {
    let mut world = World::of_release(2).await;
    world.postgres.stop();

    let site = world.serve(2);
    let before = answer(site.anonymous(Method::GET, "/readyz")).await.0;
    world.postgres.run().await;

    assert_eq!(before, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer(site.anonymous(Method::GET, "/readyz")).await.0, StatusCode::OK);
}
