//! Who may sign in.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::program::{Serving, run};
use crate::world::{ANNA, PASSWORD, Site, World, answer};

#[tokio::test]
async fn without_an_account_nobody_signs_in() {
    let world = World::of_release(1).await;
    let mut environment = world.service(1);
    environment.remove("JOURNAL_ACCOUNTS");
    let site = Site::over_http(Serving::start(&environment));

    let (status, refusal) = site.get("/api/patients").await;
    let form = [("user", ANNA), ("password", PASSWORD)];
    let page = site.anonymous(Method::POST, "/sign-in").form(&form).send().await.unwrap();

    assert_eq!((status, &refusal["error"]), (StatusCode::FORBIDDEN, &json!("no_accounts")));
    assert_eq!(page.status(), StatusCode::FORBIDDEN);
    assert!(!page.headers().contains_key("set-cookie"));
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let world = World::of_release(1).await;
    let site = world.serve(1);

    let request = site.anonymous(Method::GET, "/api/patients").basic_auth(ANNA, Some("fel"));
    let response = request.send().await.unwrap();

    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key("www-authenticate"));
}

#[tokio::test]
async fn every_address_but_the_probes_asks_who_it_is() {
    let world = World::of_release(2).await;
    let site = world.serve(2);

    for (method, path) in [
        (Method::GET, "/api/patients"),
        (Method::POST, "/api/patients"),
        (Method::POST, "/api/patients/find"),
        (Method::GET, "/api/patients/1"),
        (Method::GET, "/api/patients/1/notes"),
        (Method::POST, "/api/patients/1/notes"),
        (Method::POST, "/api/notes/1/signature"),
        (Method::GET, "/api/patients/1/attachments"),
        (Method::POST, "/api/patients/1/attachments"),
        (Method::GET, "/api/attachments/1"),
        (Method::GET, "/api/access-log"),
    ] {
        let status = answer(site.anonymous(method, path)).await.0;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn accounts_that_cannot_be_read_stop_the_start_and_are_not_quoted() {
    let world = World::of_release(1).await;
    let mut environment = world.service(1);
    environment.insert("JOURNAL_ACCOUNTS", String::from("anna:mycket-hemligt"));

    let ended = run(&["serve"], &environment);

    assert!(ended.refusal().contains("a user is not an HSA-id"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("mycket-hemligt"));
}
