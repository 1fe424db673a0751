//! TLS, to readers and to the database.

use reqwest::{Client, Method, StatusCode, Version};

use crate::pki::{Authority, Mount, Pair};
use crate::postgres::Postgres;
use crate::program::{Environment, Serving, run};
use crate::world::{Site, World, answer, eventually, https_client};

fn files(pair: &Pair) -> [(&str, &str); 2] {
    [("tls.crt", &pair.certificate), ("tls.key", &pair.key)]
}

fn with_certificate(world: &World, mount: &Mount) -> Environment {
    let mut environment = world.service(2);
    environment.insert("JOURNAL_LISTEN", String::from("0.0.0.0:0"));
    environment.insert("JOURNAL_TLS_CERT_FILE", mount.path("tls.crt").display().to_string());
    environment.insert("JOURNAL_TLS_KEY_FILE", mount.path("tls.key").display().to_string());
    environment
}

/// Whether a new connection of a client who trusts one authority is taken.
async fn trusted(client: &Client, site: &Site) -> bool {
    client.get(site.url("/livez")).send().await.is_ok()
}

#[tokio::test]
async fn plain_http_is_refused_but_on_loopback() {
    let world = World::of_release(1).await;
    let mut environment = world.service(1);
    environment.insert("JOURNAL_LISTEN", String::from("0.0.0.0:0"));

    let ended = run(&["serve"], &environment);

    assert!(
        ended.refusal().contains("JOURNAL_TLS_CERT_FILE and JOURNAL_TLS_KEY_FILE are needed"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn readers_are_served_over_http_2_and_1_1() {
    let world = World::of_release(2).await;
    let authority = Authority::new();
    let mount = Mount::new(world.folder.path().join("tls"), &files(&authority.issue()));
    let site = Site::over_https(Serving::start(&with_certificate(&world, &mount)), &authority.pem());

    let newer = site.anonymous(Method::GET, "/readyz").send().await.unwrap();
    let certificate = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let older = Client::builder().no_proxy().tls_certs_only([certificate]).http1_only().build().unwrap();
    let older = older.get(site.url("/readyz")).send().await.unwrap();

    assert_eq!((newer.status(), newer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!((older.status(), older.version()), (StatusCode::OK, Version::HTTP_11));
}

#[tokio::test]
async fn a_new_certificate_is_taken_up() {
    let world = World::of_release(2).await;
    let (old, new) = (Authority::new(), Authority::new());
    let mut mount = Mount::new(world.folder.path().join("tls"), &files(&old.issue()));
    let site = Site::over_https(Serving::start(&with_certificate(&world, &mount)), &old.pem());
    assert!(trusted(&https_client(&old.pem()), &site).await);

    mount.replace(&files(&new.issue()));
    site.serving.wait_for_log("took up a new certificate");

    assert!(trusted(&https_client(&new.pem()), &site).await);
    assert!(!trusted(&https_client(&old.pem()), &site).await);
}

#[tokio::test]
async fn a_bad_new_certificate_leaves_the_old_one_in_use() {
    let world = World::of_release(2).await;
    let authority = Authority::new();
    let mut mount = Mount::new(world.folder.path().join("tls"), &files(&authority.issue()));
    let site = Site::over_https(Serving::start(&with_certificate(&world, &mount)), &authority.pem());

    let mismatched = Pair { certificate: authority.issue().certificate, key: authority.issue().key };
    mount.replace(&files(&mismatched));
    let line = site.serving.wait_for_log("failed to take up a new certificate, the old one stays");

    assert_eq!(line["level"], "ERROR");
    assert!(trusted(&https_client(&authority.pem()), &site).await);
}

#[tokio::test]
async fn the_database_is_used_over_tls_when_its_authority_is_known() {
    let authority = Authority::new();
    let world = World::around(Postgres::start_with_tls(&authority.issue()).await);
    let mount = Mount::new(world.folder.path().join("ca"), &[("ca.crt", &authority.pem())]);
    let mut environment = world.migration(&crate::world::shipped(2));
    environment.insert("DATABASE_CA_FILE", mount.path("ca.crt").display().to_string());

    let ended = run(&["migrate"], &environment);

    assert_eq!(ended.json()["schema"], 2);
}

#[tokio::test]
async fn a_database_with_another_authority_or_name_is_not_used() {
    let (authority, other) = (Authority::new(), Authority::new());
    for pair in [other.issue(), authority.issue_for("database.example")] {
        let world = World::around(Postgres::start_with_tls(&pair).await);
        let mount = Mount::new(world.folder.path().join("ca"), &[("ca.crt", &authority.pem())]);
        let mut environment = world.migration(&crate::world::shipped(2));
        environment.insert("DATABASE_CA_FILE", mount.path("ca.crt").display().to_string());
        environment.insert("JOURNAL_CONNECT_SECONDS", String::from("1"));

        let ended = run(&["migrate"], &environment);

        assert!(ended.refusal().contains("invalid peer certificate"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn new_authorities_of_the_database_are_taken_up() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut world = World::around(Postgres::start_with_tls(&old.issue()).await);
    let mut mount = Mount::new(world.folder.path().join("ca"), &[("ca.crt", &old.pem())]);
    let ca_file = mount.path("ca.crt").display().to_string();
    let mut environment = world.migration(&crate::world::shipped(2));
    environment.insert("DATABASE_CA_FILE", ca_file.clone());
    run(&["migrate"], &environment).json();
    let mut environment = world.service(2);
    environment.insert("DATABASE_CA_FILE", ca_file);
    let site = Site::over_http(Serving::start(&environment));
    assert_eq!(answer(site.anonymous(Method::GET, "/readyz")).await.0, StatusCode::OK);

    world.postgres.replace_certificate(&new.issue()).await;
    mount.replace(&[("ca.crt", &new.pem())]);
    world.postgres.stop();
    world.postgres.run().await;

    let ready = async || answer(site.anonymous(Method::GET, "/readyz")).await.0 == StatusCode::OK;
    eventually("the journal is ready again", ready).await;
    site.serving.wait_for_log("the database's certificate authorities changed");
}
