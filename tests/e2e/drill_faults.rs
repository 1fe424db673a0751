//! What somebody could do to a drill: ask for two at once, forge its parts, name another's archive, take its finalizer
//! off. None of it makes a drill say what is not so, or leaves what it restored behind.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::actor::{Change, Grace};
use harness::drilled::left_of;
use harness::test::unique;
use harness::{Seen, eventually, kind, refusal, run};
use serde_json::{Value, json};
use tokio::time::sleep;
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::reference::{DRILL_LABEL, TENANT_LABEL};

use crate::drills::World;

/// The sweeper looks every twenty seconds, and takes one step at a time.
const SWEPT: Duration = Duration::from_secs(300);

#[test]
fn two_drills_of_one_second_both_end_with_a_verdict_and_a_record() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.bring_key(&world.drill).await?;
        world.tenant.up().await?;
        world.back_up().await?;

        let names = two_of_one_second(&world).await?;
        let mut records = vec![];
        for name in &names {
            world.says(name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
            world.says(name, DrillCondition::Recorded, "True", DrillReason::AsAsked).await?;
            world.leaves_nothing(name).await?;
            records.push(world.object(name).await?["status"]["record"]["object"]["key"].clone());
        }

        ensure!(records[0].is_string() && records[0] != records[1], "{records:?}");
        test.measured(format_args!("{records:?}"));
        Ok(())
    });
}

/// Two drills with the same slot.
async fn two_of_one_second(world: &World<'_>) -> Result<[String; 2]> {
    for _ in 0..5 {
        let (one, other) = tokio::join!(world.drill(), world.drill());
        let names = [one?, other?];
        let mut made = vec![];
        for name in &names {
            made.push(world.object(name).await?["metadata"]["creationTimestamp"].clone());
        }
        if made[0] == made[1] {
            return Ok(names);
        }
        for name in &names {
            let cancel = json!({ "spec": { "cancel": true } });
            let (admin, namespace) = (&world.test.world.admin, &world.tenant.namespace);
            admin.change(kind::RESTORE_DRILL, namespace, name, Change::Merge(&cancel)).await?;
            world.leaves_nothing(name).await?;
        }
        sleep(Duration::from_millis(300)).await;
    }
    bail!("no two drills were made in one second")
}

#[test]
fn what_somebody_forges_in_a_drills_namespace_is_refused() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;
        world.back_up().await?;
        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "Unknown", DrillReason::KeyMissing).await?;
        let into = world.namespace_of(&name).await?;
        let admin = &test.world.admin;
        let config = admin.get(kind::CONFIG_MAP, &into, "drill").await?;

        let tenant = world.tenant.name.as_str();
        let image = test.world.image("busybox")?;
        let parts = [
            (kind::POD, judge(tenant, image)),
            (kind::JOB, job(tenant, image)),
            (
                kind::CONFIG_MAP,
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "drill-2" } }),
            ),
            (kind::NETWORK_POLICY, open_wall()),
        ];
        for (kind, part) in parts {
            let refused = refusal(admin.create(kind, &into, part).await)?;
            ensure!(refused.contains("quarantined"), "{}: {refused}", kind.name);
        }
        for (kind, name) in [(kind::CONFIG_MAP, "drill"), (kind::NETWORK_POLICY, "deny-all")] {
            let refused = refusal(admin.delete(kind, &into, name, Grace::Usual).await)?;
            ensure!(refused.contains("quarantined"), "{}: {refused}", kind.name);
        }
        for metadata in [
            json!({ "labels": { DRILL_LABEL: "another" } }),
            json!({ "annotations": { "valv.eu/archive": "another" } }),
            json!({ "annotations": { "valv.eu/drill-volumes": null, "valv.eu/drill-object": null } }),
        ] {
            let change = json!({ "metadata": metadata });
            let refused = refusal(admin.change(kind::NAMESPACE, "", &into, Change::Merge(&change)).await)?;
            ensure!(refused.contains("leave them"), "{refused}");
        }

        ensure!(admin.get(kind::CONFIG_MAP, &into, "drill").await?["data"] == config["data"]);
        // And it goes on.
        world.bring_key(&world.drill).await?;
        world.says(&name, DrillCondition::Passed, "True", DrillReason::AsAsked).await?;
        world.leaves_nothing(&name).await
    });
}

#[test]
fn a_tenant_that_names_anothers_archive_is_not_drilled() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.bring_key(&world.drill).await?;
        world.tenant.up().await?;
        world.back_up().await?;
        let thief = test
            .tenant("thief")?
            .with(&world.protection)?
            .with(&format!("archiveID: {}", world.tenant.name))?;
        thief.up().await?;

        let name = world.drill_of(&thief).await?;
        let passed = DrillCondition::Passed;
        let said = world.of_says(&thief, &name, passed, "False", DrillReason::ArchiveTaken).await?;

        ensure!(said.contains(&world.tenant.name), "it does not say whose the archive is: {said}");
        let namespaces = test.world.admin.list(kind::NAMESPACE, "", DRILL_LABEL).await?;
        let own = namespaces.iter().filter(|found| found["metadata"]["labels"][TENANT_LABEL] == thief.name);
        ensure!(own.count() == 0, "something was made for it");
        test.measured(said);
        Ok(())
    });
}

#[test]
fn nothing_is_restored_onto_volumes_that_their_class_keeps() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let admin = &test.world.admin;
        let classes = admin.list(kind::STORAGE_CLASS, "", "").await?;
        let is_default = |class: &&Value| {
            class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
        };
        let mut kept = classes.iter().find(is_default).context("there is a default class")?.clone();
        let name = unique("kept");
        kept["metadata"] = json!({ "name": name });
        kept["reclaimPolicy"] = json!("Retain");
        test.made(kind::STORAGE_CLASS, "", &name);
        admin.create(kind::STORAGE_CLASS, "", kept).await?;
        let tenant = test
            .tenant("keeping")?
            .with(&world.protection)?
            .with(&format!("database: {{storageClassName: {name}}}"))?;
        tenant.up().await?;

        let drill = world.drill_of(&tenant).await?;
        let passed = DrillCondition::Passed;
        let said = world.of_says(&tenant, &drill, passed, "False", DrillReason::VolumesKept).await?;

        ensure!(said.contains(&name) && said.contains("drills.storageClassName"), "{said}");
        test.measured(said);
        Ok(())
    });
}

#[test]
fn what_a_drill_left_whose_finalizer_was_taken_off_is_swept_away() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        world.tenant.up().await?;
        world.back_up().await?;
        let name = world.drill().await?;
        world.says(&name, DrillCondition::Passed, "Unknown", DrillReason::KeyMissing).await?;
        world.bring_key(&world.drill).await?;
        let into = world.namespace_of(&name).await?;
        let (admin, namespace) = (&test.world.admin, &world.tenant.namespace);
        eventually("it was restored", SWEPT, async || {
            let judge = admin.find(kind::JOB, &into, "judge").await?;
            Ok(Seen::when(judge.map(drop), "nothing is judged yet"))
        })
        .await?;
        ensure!(left_of(test, &into).await?.len() > 1, "there is no volume that could be left");

        let free = json!({ "metadata": { "finalizers": null } });
        eventually("it is gone", SWEPT, async || {
            // The operator puts it on again for as long as the drill is there.
            if admin.find(kind::RESTORE_DRILL, namespace, &name).await?.is_some() {
                admin.delete(kind::RESTORE_DRILL, namespace, &name, Grace::Usual).await?;
                let _ = admin.change(kind::RESTORE_DRILL, namespace, &name, Change::Merge(&free)).await;
            }
            let drill = admin.find(kind::RESTORE_DRILL, namespace, &name).await?;
            Ok(Seen::when(drill.is_none().then_some(()), "it is there"))
        })
        .await?;

        let left = eventually("its namespace is swept away", SWEPT, async || {
            if admin.find(kind::NAMESPACE, "", &into).await?.is_some() {
                return Ok(Seen::NotYet("it is there".to_owned()));
            }
            Ok(Seen::Yes(left_of(test, &into).await?))
        })
        .await?;
        ensure!(left.is_empty(), "its namespace went before its volumes: {left:?}");
        Ok(())
    });
}

/// A pod that says to be the judge's, and that every check passed.
fn judge(tenant: &str, image: &str) -> Value {
    let words = r#"{"judged":{"verdicts":[],"phases":[]}}"#;
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "judge-forged", "labels": {
            TENANT_LABEL: tenant, "valv.eu/role": "drill-judge",
            "job-name": "judge", "batch.kubernetes.io/job-name": "judge",
        }},
        "spec": harmless(image, words),
    })
}

fn job(tenant: &str, image: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": "judge", "labels": { TENANT_LABEL: tenant } },
        "spec": { "template": { "spec": harmless(image, "") } },
    })
}

/// A pod that Pod Security `restricted` lets through.
fn harmless(image: &str, words: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "agent", "image": image,
            "command": ["sh", "-c", format!("echo -n '{words}' > /dev/termination-log")],
            "resources": { "limits": { "memory": "32Mi" } },
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}

/// A wall with a hole for everybody.
fn open_wall() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "open" },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] },
    })
}
