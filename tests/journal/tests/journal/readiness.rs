//! What the kubelet asks.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::{PERSONNUMMER, Site, World, answer};

async fn readyz(site: &Site) -> (StatusCode, serde_json::Value) {
    answer(site.anonymous(Method::GET, "/readyz")).await
}

#[tokio::test]
async fn a_journal_over_an_empty_database_is_alive_but_not_ready() {
    let world = World::empty().await;
    let site = world.serve(1);

    assert_eq!(answer(site.anonymous(Method::GET, "/livez")).await.0, StatusCode::OK);
    let too_old = json!({ "status": "schema_too_old", "schema": 0, "needed": 1 });
    assert_eq!(readyz(&site).await, (StatusCode::SERVICE_UNAVAILABLE, too_old));
}

#[tokio::test]
async fn a_journal_is_ready_when_the_schema_has_been_migrated() {
    let world = World::of_release(1).await;
    let site = world.serve(2);
    let too_old = json!({ "status": "schema_too_old", "schema": 1, "needed": 2 });
    assert_eq!(readyz(&site).await, (StatusCode::SERVICE_UNAVAILABLE, too_old));

    world.migrate(2).json();

    let ready = json!({ "status": "ready", "schema": 2, "needed": 2 });
    assert_eq!(readyz(&site).await, (StatusCode::OK, ready));
}

#[tokio::test]
async fn a_schema_newer_than_the_release_is_fine() {
    let world = World::of_release(2).await;
    let site = world.serve(1);

    let ready = json!({ "status": "ready", "schema": 2, "needed": 1 });
    assert_eq!(readyz(&site).await, (StatusCode::OK, ready));
    let patient = site.create_patient().await;
    let (status, notes) = site.get(&format!("/api/patients/{patient}/notes")).await;
    assert_eq!((status, notes), (StatusCode::OK, json!([])));
}

#[tokio::test]
async fn a_request_over_a_schema_that_is_too_old_is_asked_to_come_back() {
    let world = World::empty().await;
    let site = world.serve(1);

    let new = json!({ "personnummer": PERSONNUMMER, "name": "Tova Testsson" });
    let response = site.request(Method::POST, "/api/patients").json(&new).send().await.unwrap();

    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn the_version_is_that_of_the_release() {
    let world = World::empty().await;
    let site = world.serve(2);

    let version = answer(site.anonymous(Method::GET, "/version")).await;

    assert_eq!(version, (StatusCode::OK, json!({ "version": "2.0.0", "needed_schema": 2 })));
}
