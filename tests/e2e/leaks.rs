//! What is secret stays in Secrets.

use anyhow::{Result, ensure};
use harness::actor::Run;
use harness::tenant::base64;
use harness::{Tenant, Test, kind, run};
use serde_json::json;
use valv_crds::condition::{ConditionType, Reason};

/// Keys of Secrets whose values are public.
const PUBLIC: [&str; 8] =
    ["tls.crt", "ca.crt", "previous-ca.crt", "user", "host", "port", "database", "roles.json"];

/// Shorter values are in every text by chance.
const SHORTEST: usize = 12;

#[test]
fn no_password_and_no_key_is_in_any_log_event_status_or_object() {
    run(async |test| {
        let tenant = test.tenant("secrets")?;
        tenant.up().await?;
        let mut secrets = secrets(&tenant).await?;
        tenant.journal().await?.write("Före.").await?;
        tenant
            .edit(
                "{database: {passwordRotation: {generation: 2}}, certificates: {rotation: {generation: 2}}}",
            )
            .await?;
        tenant.shows("/status/database/passwordGeneration", &json!(2)).await?;
        tenant.shows("/status/certificates/generation", &json!(2)).await?;
        tenant.ready().await?;
        secrets.extend(self::secrets(&tenant).await?);
        secrets.sort();
        secrets.dedup();

        let texts = texts(test, &tenant).await?;

        ensure!(secrets.len() > 10, "the test found only {} secrets", secrets.len());
        for (place, text) in &texts {
            for (secret, value) in &secrets {
                ensure!(!text.contains(value.as_str()), "{secret} is in {place}");
            }
        }
        let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
        test.measured(format_args!(
            "{} secret values looked for in {} texts, {} KiB",
            secrets.len(),
            texts.len(),
            bytes / 1024
        ));
        Ok(())
    });
}

#[test]
fn a_migration_that_prints_what_it_knows_tells_no_secret_to_who_reads_conditions_and_events() {
    run(async |test| {
        let tenant = test.tenant("talkative")?.with(TALKATIVE)?;
        tenant.apply().await?;
        let said = tenant.says(ConditionType::Ready, "False", Reason::MigrationFailed).await?;
        let secrets = secrets(&tenant).await?;

        let mut texts = vec![
            ("the operator's log".to_owned(), test.operator().log().await?),
            ("the tenant".to_owned(), tenant.object().await?.to_string()),
        ];
        for event in test.world.admin.list(kind::EVENT, "default", "").await? {
            texts.push(("an event".to_owned(), event.to_string()));
        }

        ensure!(said.message.contains("connecting to …"), "{}", said.message);
        for (place, text) in &texts {
            ensure!(!text.contains("19121212-1212"), "a personnummer is in {place}");
            for (secret, value) in &secrets {
                ensure!(!text.contains(value.as_str()), "{secret} is in {place}");
            }
        }
        test.measured(said.message);
        Ok(())
    });
}

/// A migration that fails with its connection and a patient in its last lines. The number is put together there: the
/// spec is for everybody.
const TALKATIVE: &str = r#"
journal:
  migrate:
    command:
      - /bin/sh
      - -c
      - 'echo "connecting to $DATABASE_URL"; printf "Key (pnr)=(%s-%s) is duplicated" 19121212 1212; exit 1'
"#;

/// Every secret value of the tenant, with where it is: as it is, and as it stands in the API.
async fn secrets(tenant: &Tenant) -> Result<Vec<(String, String)>> {
    let mut values = vec![];
    for secret in tenant.list(kind::SECRET, "").await? {
        let name = secret["metadata"]["name"].as_str().unwrap_or_default();
        let Some(data) = secret["data"].as_object() else { continue };
        for (key, value) in data.iter().filter(|(key, _)| !PUBLIC.contains(&key.as_str())) {
            let encoded = value.as_str().unwrap_or_default();
            let plain = String::from_utf8_lossy(&base64(encoded)?).into_owned();
            // Of a key in PEM, a line from the middle: whatever quotes it may change the ends of lines.
            let plain = match plain.lines().nth(1).filter(|_| plain.starts_with("-----BEGIN")) {
                Some(line) => line.to_owned(),
                None => plain,
            };
            for text in [plain, encoded.to_owned()] {
                if text.len() >= SHORTEST {
                    values.push((format!("{name}/{key}"), text));
                }
            }
        }
    }
    Ok(values)
}

/// Everything that somebody without a right to Secrets may read.
pub(crate) async fn texts(test: &Test, tenant: &Tenant) -> Result<Vec<(String, String)>> {
    let admin = &test.world.admin;
    let mut texts = vec![
        ("the operator's log".to_owned(), test.operator().log().await?),
        ("the tenant".to_owned(), tenant.object().await?.to_string()),
    ];
    for event in admin.list(kind::EVENT, "default", "").await? {
        texts.push(("an event in default".to_owned(), event.to_string()));
    }
    texts.push((
        "the namespace".to_owned(),
        admin.get(kind::NAMESPACE, "", &tenant.namespace).await?.to_string(),
    ));
    for kind in kind::IN_A_NAMESPACE {
        for object in tenant.list(kind, "").await? {
            let place = format!("{} {}", kind.name, object["metadata"]["name"]);
            texts.push((place, object.to_string()));
        }
    }
    for secret in tenant.list(kind::SECRET, "").await? {
        texts.push((
            format!("metadata of Secret {}", secret["metadata"]["name"]),
            secret["metadata"].to_string(),
        ));
    }
    for pod in tenant.list(kind::POD, "").await? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        for list in ["initContainers", "containers"] {
            for container in pod["spec"][list].as_array().cloned().unwrap_or_default() {
                let container = container["name"].as_str().unwrap_or_default();
                // A pod that goes has no log any more.
                let log =
                    admin.log(&tenant.namespace, name, container, Run::Current).await.unwrap_or_default();
                texts.push((format!("the log of {name}/{container}"), log));
            }
        }
    }
    Ok(texts)
}
