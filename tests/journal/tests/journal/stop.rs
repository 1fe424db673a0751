//! Stopping.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::{Body, Method, StatusCode};
use serde_json::json;

use crate::program::Serving;
use crate::world::{Site, World, answer, eventually};

#[tokio::test]
async fn a_journal_asked_to_stop_serves_on_until_it_has_drained() {
    let world = World::of_release(2).await;
    let mut environment = world.service(2);
    environment.insert("JOURNAL_DRAIN_SECONDS", String::from("2"));
    let site = Site::over_http(Serving::start(&environment));
    let patient = site.create_patient().await;

    let asked = Instant::now();
    site.serving.ask_to_stop();
    site.serving.wait_for_log("asked to stop, serving on");

    let ready = answer(site.anonymous(Method::GET, "/readyz")).await;
    assert_eq!(ready, (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "stopping" })));
    let request = site.request(Method::GET, &format!("/api/patients/{patient}"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["connection"], "close");
    assert!(site.serving.wait().success());
    assert!(asked.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    let patient = site.create_patient().await;
    let (sender, receiver) = futures::channel::mpsc::unbounded::<Result<&'static [u8], std::io::Error>>();
    sender.unbounded_send(Ok(b"first, ")).unwrap();
    let path = format!("/api/patients/{patient}/attachments?name=x.txt");
    let upload = site.request(Method::POST, &path).body(Body::wrap_stream(receiver));
    let upload = tokio::spawn(answer(upload));
    eventually("the upload has begun", async || world.attachments().read_dir().unwrap().next().is_some())
        .await;

    site.serving.ask_to_stop();
    site.serving.wait_for_log("finishing what is in flight");
    sender.unbounded_send(Ok(b"last")).unwrap();
    drop(sender);

    let (status, attachment) = upload.await.unwrap();
    assert_eq!((status, &attachment["size_bytes"]), (StatusCode::CREATED, &json!(11)));
    assert!(site.serving.wait().success());
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_stop() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    answer(site.anonymous(Method::GET, "/livez")).await;

    let asked = Instant::now();
    site.serving.ask_to_stop();

    assert!(site.serving.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn who_came_while_the_journal_had_no_processor_is_answered() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    site.serving.freeze();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", site.serving.port)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            client
        })
        .collect();

    site.serving.ask_to_stop();
    site.serving.thaw();

    for (number, mut client) in clients.into_iter().enumerate() {
        let mut answer = String::new();
        let ended = client.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "client {number}: {ended:?} after {answer:?}");
    }
    assert!(site.serving.wait().success());
}

#[tokio::test]
async fn a_connection_without_a_request_does_not_delay_the_stop() {
    let world = World::of_release(2).await;
    let site = world.serve(2);
    let silent = TcpStream::connect(("127.0.0.1", site.serving.port)).unwrap();

    let asked = Instant::now();
    site.serving.ask_to_stop();

    assert!(site.serving.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(5));
    drop(silent);
}

/// Whoever comes before the drain delay has passed is answered. A connection that is made in the moment in which the
/// listener is closed may be refused or reset.
#[tokio::test]
async fn no_request_is_lost_while_the_journal_stops() {
    const DRAIN: Duration = Duration::from_secs(1);
    let world = World::of_release(2).await;
    let mut environment = world.service(2);
    environment.insert("JOURNAL_DRAIN_SECONDS", DRAIN.as_secs().to_string());
    let site = Site::over_http(Serving::start(&environment));
    let patient = site.create_patient().await;
    let asked = Instant::now();
    site.serving.ask_to_stop();

    let mut answered = 0;
    let (begun, refused) = loop {
        let begun = asked.elapsed();
        match site.request(Method::GET, &format!("/api/patients/{patient}")).send().await {
            Ok(response) => assert_eq!(response.status(), StatusCode::OK),
            Err(error) => break (begun, error),
        }
        answered += 1;
    };

    assert!(begun >= DRAIN, "{begun:?} after the signal: {refused:?}");
    assert!(answered > 10, "{answered}");
    assert!(site.serving.wait().success());
}
