//! A tenant says how it is backed up, and nobody asks for a backup in the operator's name.

use std::collections::BTreeSet;
use std::time::Duration;

use age::x25519;
use anyhow::{Context, Result, ensure};
use harness::actor::{Change, Grace};
use harness::operator::NAMESPACE;
use harness::store::{BackupStore, stores};
use harness::test::unique;
use harness::{Seen, Tenant, Test, eventually, kind, refusal, run};
use serde_json::{Value, json};
use valv_cluster::Identity;
use valv_crds::store::{StoreCondition, StoreReason};
use valv_crds::{ConditionType, Reason};

/// A slot a minute, a small database, two pods and a commit.
const BACKED_UP: Duration = Duration::from_secs(240);

/// An API server takes a moment to hear of a binding.
const KNOWN: Duration = Duration::from_secs(20);

#[test]
fn a_tenant_that_asks_for_no_backups_is_ready_and_says_that_it_is_not_protected() {
    run(async |test| {
        let tenant = test.tenant("bare")?;

        tenant.up().await?;

        for kind in [ConditionType::BackedUp, ConditionType::Drilled, ConditionType::KeysProven] {
            tenant.says(kind, "False", Reason::NotProtected).await?;
        }
        test.measured("ready, and not protected");
        Ok(())
    });
}

#[test]
fn a_slot_is_run_once_and_stays_taken_on_when_all_backups_are_deleted() {
    run(async |test| {
        let Some(tenant) = protected(test, "* * * * *").await? else { return Ok(()) };
        tenant.up().await?;

        let status = backed_up(&tenant).await?;
        ensure!(
            status["lastBackup"]["stores"].as_array().is_some_and(|stores| stores.len() == 1),
            "{status:#}"
        );
        ensure!(status["nextStart"].is_string() && status["keys"].as_array().is_some(), "{status:#}");
        let before = names(&tenant).await?;
        for name in &before {
            test.world.admin.delete(kind::BACKUP, &tenant.namespace, name, Grace::Usual).await?;
        }
        let newer = eventually("a newer slot is run", BACKED_UP, async || {
            let names = names(&tenant).await?;
            let again: Vec<_> = names.intersection(&before).collect();
            ensure!(again.is_empty(), "a slot was run again: {again:?}");
            Ok(Seen::when(names.first().cloned(), "none yet"))
        })
        .await?;

        ensure!(before.iter().all(|name| *name < newer), "{newer} is not newer than {before:?}");
        test.measured(format_args!("{} deleted, then {newer}", before.len()));
        Ok(())
    });
}

#[test]
fn nobody_asks_for_a_backup_in_the_schedule_s_name_or_takes_a_slot_s() {
    run(async |test| {
        let tenant = test.tenant("names")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.namespace_is_there().await?;
        let admin = &test.world.admin;
        let backup = |metadata: Value, spec: Value| {
            json!({
                "apiVersion": kind::BACKUP.api_version(), "kind": kind::BACKUP.name, "metadata": metadata,
                "spec": spec,
            })
        };
        let slot = format!("{}-20991231t010000z", tenant.name);
        let prefix = format!("{}-20991231t01", tenant.name);

        for (metadata, spec, words) in [
            (json!({ "name": slot }), json!({ "origin": "Scheduled" }), "only Valv's operator"),
            (json!({ "name": slot }), json!({ "origin": "BeforeMigration" }), "only Valv's operator"),
            (json!({ "name": slot }), json!({}), "that slot would never be run"),
            (json!({ "generateName": prefix }), json!({}), "that slot would never be run"),
        ] {
            let made = admin.create(kind::BACKUP, &tenant.namespace, backup(metadata, spec)).await;
            let refused = refusal(made)?;
            ensure!(refused.contains(words), "{refused}");
        }

        // Positive control: by hand, under any other name.
        let by_hand = backup(json!({ "generateName": "by-hand-" }), json!({}));
        admin.create(kind::BACKUP, &tenant.namespace, by_hand).await?;
        test.measured("refused even to the administrator");
        Ok(())
    });
}

#[test]
fn a_tenant_s_editor_cancels_and_deletes_only_what_was_asked_for_by_hand() {
    run(async |test| {
        let tenant = test.tenant("due")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.namespace_is_there().await?;
        let admin = &test.world.admin;
        let name = unique("editor");
        let binding = json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit" },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "default" }],
        });
        admin.create(kind::ROLE_BINDING, &tenant.namespace, binding).await?;
        let editor = test.world.as_service_account("default", &name)?;
        // As the operator makes them: the administrator may not.
        let operator = test.world.as_service_account(NAMESPACE, "valv")?;
        let backup = |name: &str, origin: &str| {
            json!({
                "apiVersion": kind::BACKUP.api_version(), "kind": kind::BACKUP.name,
                "metadata": { "name": name }, "spec": { "origin": origin },
            })
        };
        let due = format!("{}-20260101t010000z", tenant.name);
        // The namespace is there a moment before the operator's rights in it.
        eventually("the operator may make backups there", KNOWN, async || {
            operator.create(kind::BACKUP, &tenant.namespace, backup(&due, "Scheduled")).await?;
            Ok(Seen::Yes(()))
        })
        .await?;
        // Positive control: what it asked for by hand it may cancel and delete, once the binding is known.
        eventually("the editor asks by hand", KNOWN, async || {
            editor.create(kind::BACKUP, &tenant.namespace, backup("by-hand", "Manual")).await?;
            Ok(Seen::Yes(()))
        })
        .await?;

        let cancel = json!({ "spec": { "cancel": true } });
        editor.change(kind::BACKUP, &tenant.namespace, "by-hand", Change::Merge(&cancel)).await?;
        editor.delete(kind::BACKUP, &tenant.namespace, "by-hand", Grace::Usual).await?;
        let cancelled = editor.change(kind::BACKUP, &tenant.namespace, &due, Change::Merge(&cancel)).await;
        let owner = json!({ "metadata": { "annotations": { "valv.eu/from-catalogue": "true" } } });
        let annotated = editor.change(kind::BACKUP, &tenant.namespace, &due, Change::Merge(&owner)).await;
        for refused in [refusal(cancelled)?, refusal(annotated)?] {
            ensure!(refused.contains("is not a tenant's to cancel"), "{refused}");
        }
        let refused = refusal(editor.delete(kind::BACKUP, &tenant.namespace, &due, Grace::Usual).await)?;
        ensure!(refused.contains("is not a tenant's to cancel"), "{refused}");
        let drill = json!({
            "apiVersion": kind::RESTORE_DRILL.api_version(), "kind": kind::RESTORE_DRILL.name,
            "metadata": { "name": due }, "spec": { "origin": "Scheduled" },
        });
        operator.create(kind::RESTORE_DRILL, &tenant.namespace, drill).await?;
        let cancelled =
            editor.change(kind::RESTORE_DRILL, &tenant.namespace, &due, Change::Merge(&cancel)).await;
        let deleted = editor.delete(kind::RESTORE_DRILL, &tenant.namespace, &due, Grace::Usual).await;
        for refused in [refusal(cancelled)?, refusal(deleted)?] {
            ensure!(refused.contains("is not a tenant's to cancel"), "{refused}");
        }
        // Whoever runs the platform may.
        admin.delete(kind::BACKUP, &tenant.namespace, &due, Grace::Usual).await?;
        admin.delete(kind::RESTORE_DRILL, &tenant.namespace, &due, Grace::Usual).await?;
        test.measured("five attempts refused, and the administrator's were not");
        Ok(())
    });
}

#[test]
fn nobody_makes_what_a_run_consists_of() {
    run(async |test| {
        let tenant = test.tenant("parts")?.with("suspended: true")?;
        tenant.apply().await?;
        tenant.namespace_is_there().await?;
        let admin = &test.world.admin;
        let marked = json!({ "valv.eu/backup": "0b0e7c1a-6f0e-4a67-9d0e-3a5d4c1b2a39" });
        let object = |kind: kind::Kind, labels: &Value, body: Value| {
            let mut object = json!({
                "apiVersion": kind.api_version(), "kind": kind.name,
                "metadata": { "name": unique("forged"), "labels": labels },
            });
            for (field, part) in body.as_object().into_iter().flatten() {
                object[field] = part.clone();
            }
            object
        };
        // As Pod Security wants it, which is asked first.
        let pod = json!({
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "a", "image": "registry.example/a:1",
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        });
        let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "verify-1", "uid": "u" }]);
        let mut owned = object(kind::POD, &json!({}), json!({ "spec": pod }));
        owned["metadata"]["ownerReferences"] = owner;
        let template = |labels: &Value| json!({ "spec": { "template": { "metadata": { "labels": labels }, "spec": pod } } });

        let plain = json!({});
        for (kind, forged, words) in [
            (kind::CONFIG_MAP, object(kind::CONFIG_MAP, &marked, json!({ "data": {} })), "only its operator"),
            (kind::SECRET, object(kind::SECRET, &marked, json!({ "stringData": {} })), "only its operator"),
            (kind::POD, object(kind::POD, &marked, json!({ "spec": pod })), "only its operator"),
            (kind::JOB, object(kind::JOB, &marked, template(&plain)), "only its operator"),
            (kind::JOB, object(kind::JOB, &plain, template(&marked)), "only its operator"),
            (kind::POD, owned, "made by the Job"),
        ] {
            let name = forged.to_string();
            let refused = refusal(admin.create(kind, &tenant.namespace, forged).await)?;
            ensure!(refused.contains(words), "{name}: {refused}");
        }

        // Positive control: what is nobody's run is nobody's business.
        let map = object(kind::CONFIG_MAP, &plain, json!({ "data": {} }));
        admin.create(kind::CONFIG_MAP, &tenant.namespace, map).await?;
        test.measured("six forgeries refused, to the administrator too");
        Ok(())
    });
}

#[test]
fn a_schema_is_migrated_when_a_backup_of_what_it_was_is_complete() {
    run(async |test| {
        // A slot that does not come while this test runs.
        let Some(tenant) = protected(test, "0 0 1 1 *").await? else { return Ok(()) };
        tenant.up().await?;
        let old = test.world.image("journal-1")?;
        tenant.shows("/status/journal/image", &json!(old)).await?;

        tenant.edit("journal: {image: journal-2}").await?;
        let waiting = tenant.says(ConditionType::SchemaCurrent, "False", Reason::BackingUp).await?;
        ensure!(waiting.message.contains(old), "the old one does not serve: {}", waiting.message);
        eventually("the schema is migrated", BACKED_UP, async || {
            let said = tenant.condition(ConditionType::SchemaCurrent).await?;
            Ok(Seen::when(said.filter(|said| said.status == "True").map(drop), "not yet"))
        })
        .await?;

        let made = tenant.list(kind::BACKUP, "").await?;
        let before: Vec<_> = made.iter().filter(|one| one["spec"]["origin"] == "BeforeMigration").collect();
        ensure!(before.len() == 1, "{} backups before one migration", before.len());
        let conditions = before[0]["status"]["conditions"].as_array().context("it has conditions")?;
        let complete = conditions.iter().any(|said| said["type"] == "Complete" && said["status"] == "True");
        ensure!(complete, "{conditions:?}");
        test.measured(&waiting.message);
        Ok(())
    });
}

#[test]
fn a_backup_that_fails_keeps_the_schema_from_being_migrated_until_somebody_decides() {
    run(async |test| {
        let Some(tenant) = protected(test, "0 0 1 1 *").await? else { return Ok(()) };
        tenant.up().await?;
        let image = test.world.image("journal-2")?;

        tenant.edit("journal: {image: journal-2}").await?;
        tenant.says(ConditionType::SchemaCurrent, "False", Reason::BackingUp).await?;
        for backup in tenant.list(kind::BACKUP, "").await? {
            let name = backup["metadata"]["name"].as_str().context("it has a name")?.to_owned();
            let cancel = json!({ "spec": { "cancel": true } });
            tenant.meddle(kind::BACKUP, &name, harness::actor::Change::Merge(&cancel)).await?;
        }
        let said = tenant.says(ConditionType::SchemaCurrent, "False", Reason::BackupFailed).await?;
        ensure!(said.message.contains("valv.eu/migrate-without-backup"), "{}", said.message);
        tenant.annotate("valv.eu/migrate-without-backup", Some(image)).await?;
        tenant.shows("/status/journal/image", &json!(image)).await?;

        test.measured(&said.message);
        Ok(())
    });
}

/// A tenant that is backed up to Helsinki by `cron`, not applied yet.
async fn protected(test: &Test, cron: &str) -> Result<Option<Tenant>> {
    let Some([helsinki, _]) = stores(test)? else { return Ok(None) };
    let store = BackupStore::of(test, &helsinki, "helsinki")?;
    store.bring_secrets(&Identity::ALL).await?;
    store.apply(json!({})).await?;
    store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
    let policy = unique("policy");
    test.made(kind::BACKUP_POLICY, "", &policy);
    let object = json!({
        "apiVersion": kind::BACKUP_POLICY.api_version(),
        "kind": kind::BACKUP_POLICY.name,
        "metadata": { "name": policy },
        "spec": {
            "schedule": { "cron": cron, "timeZone": "UTC", "window": "1s" },
            "stores": [store.name],
            "retention": { "floor": { "days": 35, "reason": "decided for a test" } },
            "objectives": { "rpo": "24h", "rto": "4h" },
        },
    });
    test.world.admin.apply(kind::BACKUP_POLICY, "", &object).await?;
    let [owner, escrow] = [(); 2].map(|()| x25519::Identity::generate().to_public());
    let tenant = test.tenant("protected")?.with(&format!(
        "
        backup:
          policy: {policy}
          recipients: {{tenant: {owner}, escrow: {escrow}}}
        "
    ))?;
    Ok(Some(tenant))
}

/// Waits until the tenant says that it is backed up, and returns what it tells of that.
async fn backed_up(tenant: &Tenant) -> Result<Value> {
    eventually("it is backed up", BACKED_UP, async || {
        let said = tenant.condition(ConditionType::BackedUp).await?;
        let status = tenant.object().await?["status"]["backup"].clone();
        Ok(match said {
            Some(said) if said.status == "True" => Seen::Yes(status),
            _ => Seen::NotYet(status.to_string()),
        })
    })
    .await
}

/// The names of its backups of the schedule.
async fn names(tenant: &Tenant) -> Result<BTreeSet<String>> {
    let backups = tenant.list(kind::BACKUP, "").await?;
    let scheduled = backups.iter().filter(|backup| backup["spec"]["origin"] == "Scheduled");
    Ok(scheduled.filter_map(|backup| backup["metadata"]["name"].as_str().map(str::to_owned)).collect())
}
