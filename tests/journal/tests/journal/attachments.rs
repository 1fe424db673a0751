//! Attachments, through the API.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::world::{Site, World, answer};

/// More than one read of a socket or a file.
fn content() -> Vec<u8> {
    (0..1_000_003_u32).flat_map(u32::to_le_bytes).collect()
}

async fn attach(site: &Site, patient: i64, content: Vec<u8>) -> (StatusCode, Value) {
    let path = format!("/api/patients/{patient}/attachments?name=r%C3%B6ntgen.dcm");
    answer(site.request(Method::POST, &path).body(content)).await
}

#[tokio::test]
async fn an_attachment_is_read_as_it_was_written() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;

    let (status, attachment) = attach(&site, patient, content()).await;
    let path = format!("/api/attachments/{}", attachment["id"]);
    let response = site.request(Method::GET, &path).send().await.unwrap();

    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(attachment["name"], "röntgen.dcm");
    let disposition = response.headers()["content-disposition"].to_str().unwrap();
    assert_eq!(disposition, "attachment; filename*=UTF-8''r%C3%B6ntgen%2Edcm");
    assert!(response.bytes().await.unwrap() == content());
}

#[tokio::test]
async fn a_file_is_named_by_its_digest_and_cannot_be_written() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;

    let (_, attachment) = attach(&site, patient, content()).await;

    let digest: String = Sha256::digest(content()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(attachment["sha256"], digest);
    assert_eq!(attachment["path"], format!("{}/{digest}", &digest[..2]));
    let file = fs::metadata(world.attachments().join(attachment["path"].as_str().unwrap())).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o440);
    assert_eq!(file.len(), attachment["size_bytes"].as_u64().unwrap());
}

#[tokio::test]
async fn the_same_content_twice_is_two_attachments_and_one_file() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;

    let (_, first) = attach(&site, patient, content()).await;
    let (_, second) = attach(&site, patient, content()).await;

    assert_ne!(first["id"], second["id"]);
    assert_eq!(first["path"], second["path"]);
    assert_eq!(fs::read_dir(world.attachments()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_damaged_attachment_is_not_handed_out() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;
    let (_, attachment) = attach(&site, patient, content()).await;
    let file = world.attachments().join(attachment["path"].as_str().unwrap());
    let mut damaged = content();
    damaged[2_000_000] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, damaged).unwrap();

    let (status, refusal) = site.get(&format!("/api/attachments/{}", attachment["id"])).await;

    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refusal["error"], "attachment_damaged");
    site.serving.wait_for_log("failed to answer");
}

#[tokio::test]
async fn reading_and_writing_an_attachment_are_in_the_access_log() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;
    let (_, attachment) = attach(&site, patient, content()).await;
    site.request(Method::GET, &format!("/api/attachments/{}", attachment["id"])).send().await.unwrap();

    let (_, entries) = site.get(&format!("/api/access-log?patient={patient}")).await;

    let actions: Vec<_> = entries.as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["read_access_log", "read_attachment", "write_attachment", "create_patient"]);
}

#[tokio::test]
async fn an_attachment_needs_a_name() {
    let world = World::of_release(1).await;
    let site = world.serve(1);
    let patient = site.create_patient().await;

    let path = format!("/api/patients/{patient}/attachments");
    let (status, _) = answer(site.request(Method::POST, &path).body("x")).await;

    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(fs::read_dir(world.attachments()).unwrap().count(), 0);
}
