//! A drill fails when it should, each time with its own reason: each fault is planted in what the store or the database
//! really holds, and put right again, so that it is known to be the fault that failed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::actor::Change;
use harness::base_backup;
use harness::drilled::{Drilled, Planted};
use harness::forger::Forger;
use harness::protected::opened;
use harness::{Seen, Test, eventually, kind, run};
use serde_json::{Value, json};
use valv_cluster::BUCKET;
use valv_cluster::s3::{Method, Request};
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::drill::{DrillCondition, DrillReason};

#[test]
fn segments_that_are_missing_swapped_or_anothers_fail_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let older = world.back_up().await?;
        // Another tenant of the same store, encrypted for the same keys: only its bytes are others.
        let other = test.tenant("other")?.with(&world.protected.protection)?;
        other.up().await?;
        let name = world.protected.back_up_of(&other, json!({})).await?;
        let (complete, committed) =
            (valv_crds::backup::BackupCondition::Complete, valv_crds::backup::BackupReason::Committed);
        world.protected.of_says(&other, &name, complete, "True", committed).await?;
        let status = test.world.admin.get(kind::BACKUP, &other.namespace, &name).await?["status"].clone();
        let (slot, attempt) = (status["slot"].as_str(), status["attempt"]["id"].as_str());
        let (slot, attempt) = slot.zip(attempt).context("it has a slot and an attempt")?;
        let archives = world.archive().parent().map(Path::to_owned).context("archives lie in a folder")?;
        let foreign = archives.join(&other.name).join(format!("data/{slot}/{attempt}"));
        let data = world.back_up().await?;
        let [database, attachments] =
            ["database/00000000.age", "attachments/00000000.age"].map(|name| data.join(name));

        let planted = Planted::in_place_of(&database, &fs::read(foreign.join("database/00000000.age"))?)?;
        world.fails(DrillReason::SegmentDiffers).await.context("a segment of another tenant")?;
        planted.put_right()?;

        let planted = Planted::in_place_of(&database, &fs::read(older.join("database/00000000.age"))?)?;
        world.fails(DrillReason::SegmentDiffers).await.context("a segment of another backup")?;
        planted.put_right()?;

        let (one, two) = (fs::read(&database)?, fs::read(&attachments)?);
        let planted = [Planted::in_place_of(&database, &two)?, Planted::in_place_of(&attachments, &one)?];
        let said = world.fails(DrillReason::SegmentsSwapped).await.context("two segments swapped")?;
        planted.into_iter().try_for_each(Planted::put_right)?;

        world.passes().await.context("all was put right")?;
        // The last: the store forgets with the file what it knows of it.
        fs::remove_file(&database)?;
        world.fails(DrillReason::SegmentMissing).await.context("a segment is gone")?;
        // And without a hand:
        world.back_up().await?;
        world.passes().await.context("the next backup is whole")?;
        world.protected.tenant.says(ConditionType::Drilled, "True", Reason::AsAsked).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_manifest_or_a_commit_that_was_altered_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        let data = world.back_up().await?;
        let manifest = data.join("manifest.json");
        let commits = world.commits()?;
        let [older, newest] = commits.as_slice() else { anyhow::bail!("there are not two: {commits:?}") };

        // In itself it is consistent: only the commit knows.
        let mut altered: Value = serde_json::from_slice(&fs::read(&manifest)?)?;
        altered["sentinel"] = json!("f".repeat(32));
        let planted = Planted::in_place_of(&manifest, altered.to_string().as_bytes())?;
        world.fails(DrillReason::ManifestDiffers).await.context("an altered manifest")?;
        planted.put_right()?;

        let signed: Value = serde_json::from_slice(&fs::read(newest)?)?;
        let mut unsigned = signed.clone();
        unsigned["signatures"] = json!([]);
        let planted = Planted::in_place_of(newest, unsigned.to_string().as_bytes())?;
        world.fails(DrillReason::SignatureMissing).await.context("a commit without a signature")?;
        planted.put_right()?;

        let mut forged = signed.clone();
        let signature = signed["signatures"][0]["sig"].as_str().context("it has a signature")?;
        let first = if signature.starts_with('A') { "B" } else { "A" };
        forged["signatures"][0]["sig"] = json!(format!("{first}{}", &signature[1..]));
        let planted = Planted::in_place_of(newest, forged.to_string().as_bytes())?;
        world.fails(DrillReason::SignatureInvalid).await.context("a broken signature")?;
        planted.put_right()?;

        // Well-formed, by another key, which lies where keys lie in the bucket and is named in the commit.
        let forger = Forger::of(&world, data).await?;
        let stranger = forger.sign_as_a_stranger()?;
        let store = world.protected.store();
        let place = format!("/{BUCKET}/{}/v1/.signing/keys/{}.pem", store.name, stranger.id);
        store
            .server
            .administrator()?
            .must(&Request::new(Method::Put, &place).body(stranger.pem.as_str()).checked())?;
        world.fails(DrillReason::SignatureInvalid).await.context("signed by a stranger")?;
        forger.put_right()?;

        // Signed by the operator, for another slot: rolled back.
        let planted = Planted::in_place_of(newest, &fs::read(older)?)?;
        let said =
            world.fails(DrillReason::SignatureInvalid).await.context("an older commit as the newest")?;
        planted.put_right()?;

        // The failure stands: a drill of the older backup, which is as it was, takes no alarm away.
        let slot = older.file_stem().map(|stem| stem.to_string_lossy().into_owned()).context("a slot")?;
        let name = world.drill(json!({ "backup": slot })).await?;
        world.ends(&name, "True").await?;
        world.protected.tenant.says(ConditionType::Drilled, "False", Reason::DrillFailed).await?;
        world.passes().await.context("all was put right")?;
        world.protected.tenant.says(ConditionType::Drilled, "True", Reason::AsAsked).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_backup_that_is_signed_and_is_not_what_it_says_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let older = world.back_up().await?;
        let newest = world.back_up().await?;
        let forger = Forger::of(&world, newest).await?;
        let keys = &world.protected;
        let all = [&keys.owner, &keys.escrow, &keys.drill].map(age::x25519::Identity::to_public);

        let old = opened(&older.join("database"), &keys.drill)?;
        forger.replace("database", &old, &all)?;
        let said = world.fails(DrillReason::SentinelDiffers).await.context("an old one offered as new")?;
        forger.put_right()?;

        // The same by whoever has no more than the agent: manifest, index and segment fit each other.
        forger.replace("database", &old, &all)?;
        forger.unsign()?;
        world.fails(DrillReason::ManifestDiffers).await.context("a manifest that nobody committed")?;
        forger.put_right()?;
        is_told_as_tampering(&world, DrillReason::ManifestDiffers).await?;

        let stream = forger.stream("database", &keys.drill)?;
        let mut altered = stream.clone();
        let name = b"base/1/PG_VERSION\0";
        let header = altered.windows(name.len()).position(|bytes| bytes == name).context("a file")?;
        let version = &mut altered[header + 512..][..2];
        ensure!(version == b"17", "a tar header is 512 bytes");
        version.copy_from_slice(b"18");
        forger.replace("database", &altered, &all)?;
        world.fails(DrillReason::FilesDiffer).await.context("a file that differs from its list")?;
        forger.put_right()?;

        // Where the replay begins, a few bytes beside it; and PostgreSQL's own list fits.
        let mut astray = stream.clone();
        base_backup::alter(&mut astray, "backup_label", |label| {
            let name = b"CHECKPOINT LOCATION: ";
            let begin = label.windows(name.len()).position(|bytes| bytes == name).context("it says where")?;
            let line = label[begin..].iter().position(|byte| *byte == b'\n').context("a line ends")?;
            let last = &mut label[begin + line - 1];
            *last = if *last == b'0' { b'8' } else { b'0' };
            Ok(())
        })?;
        forger.replace("database", &astray, &all)?;
        let name = world.drill(json!({})).await?;
        let (reason, message) = world.ends(&name, "False").await?;
        ensure!(reason == "DatabaseFailed", "a database that cannot become consistent: {reason}: {message}");
        for check in ["Decryption", "VerifyBackup"] {
            let verdict = world.verdict(&name, check).await?;
            ensure!(verdict["outcome"] == "Passed", "it is not the start that failed: {verdict}");
        }
        forger.put_right()?;

        forger.replace("database", &stream, &all[2..])?;
        world.fails(DrillReason::TooFewRecipients).await.context("for one recipient alone")?;
        let stranger = age::x25519::Identity::generate().to_public();
        forger.replace("database", &stream, &[all.as_slice(), &[stranger]].concat())?;
        world.fails(DrillReason::RecipientsDiffer).await.context("for a stranger too")?;
        forger.put_right()?;

        world.passes().await.context("all was put right")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_manifest_that_is_signed_and_wrong_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let data = world.back_up().await?;
        let forger = Forger::of(&world, data.clone()).await?;
        let plain = forger.stream("attachments", &world.protected.drill)?.len();

        forger.manifest(|said| {
            for when in ["start", "end"] {
                said["rowCounts"][when]["public.note"] = json!(1_000_000);
            }
            Ok(())
        })?;
        let said = world.fails(DrillReason::RowCountsDiffer).await.context("rows that were never there")?;
        forger.put_right()?;

        forger.spoil("attachments", plain)?;
        world.fails(DrillReason::DecryptionFailed).await.context("a segment that does not decrypt")?;
        forger.put_right()?;

        forger.manifest(|said| {
            said["archive"] = json!("another");
            Ok(())
        })?;
        world.fails(DrillReason::ManifestInvalid).await.context("a manifest of another archive")?;
        forger.put_right()?;

        world.passes().await.context("all was put right")?;
        // The last: the store forgets with the file what it knows of it.
        fs::remove_file(data.join("manifest.json"))?;
        world.fails(DrillReason::ManifestMissing).await.context("a manifest is gone")?;
        // And without a hand: but nobody knows how many rows there were in the last good one.
        world.back_up().await?;
        let name = world.passes().await.context("the next backup is whole")?;
        let verdict = world.verdict(&name, "RowCounts").await?;
        ensure!(verdict["outcome"] == "Warned" && verdict["reason"] == "PreviousUnreadable", "{verdict}");
        is_told_as_tampering(&world, DrillReason::PreviousUnreadable).await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn what_lies_over_a_backup_is_read_through_and_told() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let data = world.back_up().await?;
        world.passes().await?;
        let store = world.protected.store();
        let folder = data.strip_prefix(store.server.objects())?.to_string_lossy().into_owned();
        let at = |name: &str| format!("/{BUCKET}/{folder}/{name}");
        let administrator = store.server.administrator()?;
        administrator
            .must(&Request::new(Method::Put, &at("database/00000000.age")).body("younger").checked())?;
        administrator.must(&Request::new(Method::Delete, &at("attachments/00000000.age")))?;

        let name = world.passes().await.context("the right versions are there")?;
        let verdict = world.verdict(&name, "Segments").await?;
        ensure!(verdict["outcome"] == "Warned" && verdict["reason"] == "Tampered", "{verdict}");
        let said = verdict["message"].as_str().context("it says over what")?;
        ensure!(said.contains("database/00000000.age"), "{said}");

        // Over the manifest and the commit too.
        administrator.must(&Request::new(Method::Delete, &at("manifest.json")))?;
        let commits = world.commits()?;
        let [commit] = commits.as_slice() else { anyhow::bail!("there is not one commit: {commits:?}") };
        let commit = commit.strip_prefix(store.server.objects())?.display().to_string();
        administrator
            .must(&Request::new(Method::Put, &format!("/{BUCKET}/{commit}")).body("{}").checked())?;
        let name = world.passes().await.context("with a manifest that seems deleted")?;
        for check in ["CommitSignature", "Manifest"] {
            let verdict = world.verdict(&name, check).await?;
            ensure!(verdict["reason"] == "Tampered", "{verdict}");
        }
        let tenant = &world.protected.tenant.name;
        let metric = format!("valv_tampering{{tenant=\"{tenant}\"}}");
        eventually("it is told", Duration::from_secs(60), async || {
            let told = test.operator().metric(&metric).await?;
            Ok(Seen::when((told > 0.0).then_some(()), format!("{metric} {told}")))
        })
        .await?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_database_that_is_damaged_or_does_not_start_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        if test.world.local().is_none() {
            test.not_here("the processes of this cluster's nodes cannot be reached");
            return Ok(());
        }
        world.back_up().await?;
        world.passes().await?;

        // A row older than all that its table says to have: as after a bug, or a disk that lost a write.
        let freeze = "SELECT relfrozenxid FROM pg_class WHERE relname = 'note'";
        let before = world.superuser(freeze).await?;
        world
            .superuser("UPDATE pg_class SET relfrozenxid = pg_current_xact_id()::xid WHERE relname = 'note'")
            .await?;
        world.back_up().await?;
        let corrupt = world.fails(DrillReason::Corrupt).await?;
        ensure!(!corrupt.contains("Patienten"), "it quotes a row: {corrupt}");
        let again = format!("UPDATE pg_class SET relfrozenxid = '{}' WHERE relname = 'note'", before.trim());
        world.superuser(&again).await?;

        world
            .superuser("CREATE RULE forget AS ON INSERT TO valv.sentinel DO ALSO DELETE FROM valv.sentinel")
            .await?;
        world.back_up().await?;
        let forgot = world.fails(DrillReason::SentinelMissing).await?;
        world.superuser("DROP RULE forget ON valv.sentinel").await?;

        world.back_up().await?;
        world.passes().await.context("of a database that is whole")?;

        // The last: nobody comes in any more to put it right.
        world.superuser("ALTER ROLE postgres NOLOGIN").await?;
        world.back_up().await?;
        let fails = world.fails(DrillReason::DatabaseFailed).await?;
        test.measured(format_args!("{corrupt}; {forgot}; {fails}"));
        Ok(())
    });
}

#[test]
fn a_table_that_was_emptied_long_before_fails_every_drill_until_it_is_explained() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        world.passes().await?;
        world
            .sql(
                "ALTER TABLE note DISABLE TRIGGER note_append_only; DELETE FROM note; \
                 ALTER TABLE note ENABLE TRIGGER note_append_only",
            )
            .await?;
        // Three more: yesterday's and the one before it are as empty as the newest.
        for _ in 0..3 {
            world.back_up().await?;
        }

        let said = world.fails(DrillReason::RowCountsFell).await?;

        ensure!(said.contains("that a drill found good"), "it does not say with which: {said}");
        world.fails(DrillReason::RowCountsFell).await.context("and again")?;
        // The way that the runbook names: one drill that may.
        world.change_drills(json!({ "rowCounts": { "mayFallBy": "100%" } })).await?;
        world.passes().await.context("the loss is explained")?;
        // The next backup is compared with that one.
        world.back_up().await?;
        world.change_drills(json!({ "rowCounts": null })).await?;
        world.passes().await.context("and is over")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn an_attachment_that_is_missing_or_altered_fails_the_drill_each_with_its_reason() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        world.passes().await?;

        world
            .on_attachments(
                "file=$(find /files -type f | head -n 1); chmod u+w $file; printf X | dd of=$file bs=1 conv=notrunc",
            )
            .await?;
        world.back_up().await?;
        let differs = world.fails(DrillReason::AttachmentDiffers).await?;

        world.on_attachments("rm $(find /files -type f | head -n 1)").await?;
        world.back_up().await?;
        let missing = world.fails(DrillReason::AttachmentMissing).await?;

        // Its name is its content's digest.
        world.protected.tenant.journal().await?.attach("remiss.pdf", &[7; 300_000]).await?;
        world.back_up().await?;
        world.passes().await.context("the file is there again")?;

        for said in [&differs, &missing] {
            ensure!(!said.contains("remiss"), "it names a file: {said}");
        }
        test.measured(format_args!("{differs}; {missing}"));
        Ok(())
    });
}

#[test]
fn a_question_of_the_policy_that_is_false_writes_or_does_not_end_fails_the_drill() {
    run(async |test| {
        let checks = json!([
            { "name": "true", "sql": "SELECT count(*) >= 0 FROM note" },
            { "name": "false", "sql": "SELECT count(*) < 0 FROM note" },
            { "name": "writes", "sql": "WITH gone AS (DELETE FROM note RETURNING 1) SELECT count(*) = 0 FROM gone" },
            { "name": "sleeps", "sql": "SELECT pg_sleep(600) IS NOT NULL", "timeout": "2s" },
            { "name": "not-shadowed", "sql": "SELECT lower('A') = 'a'" },
            { "name": "not-super", "sql": "SELECT NOT rolsuper FROM pg_roles WHERE rolname = current_user" },
            { "name": "rises", "sql": "SELECT set_config('role', 'postgres', true) = 'postgres'" },
        ]);
        let Some(world) = bring(test, checks, "4h").await? else { return Ok(()) };
        // Whoever may write the schema would answer for the server, were the search path the database's own.
        world
            .superuser(
                "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; \
                 CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''shadow''::text'; \
                 ALTER DATABASE journal SET search_path = evil, pg_catalog, public",
            )
            .await?;
        let shadowed = world.superuser("SELECT lower('A')").await?;
        ensure!(shadowed.trim() == "shadow", "no positive control: {shadowed}");
        world.back_up().await?;

        let name = world.drill(json!({})).await?;
        world.ends(&name, "False").await?;

        let reasons = [
            ("true", "AsAsked"),
            ("false", "SqlFalse"),
            ("writes", "SqlFailed"),
            ("sleeps", "SqlFailed"),
            ("not-shadowed", "AsAsked"),
            ("not-super", "AsAsked"),
            ("rises", "SqlFailed"),
        ];
        for (check, reason) in reasons {
            let verdict = world.verdict(&name, &format!("Sql/{check}")).await?;
            ensure!(verdict["reason"] == reason, "{check}: {verdict}");
        }
        world.change_drills(json!({ "checks": [] })).await?;
        world.passes().await.context("without the questions")?;
        test.measured("false, writes, sleeps and rises: each fails with its reason");
        Ok(())
    });
}

#[test]
fn a_journal_that_does_not_answer_on_the_restored_data_fails_the_drill() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        // Its probe asks for the schema's version. The tables stay: one that is gone would fail the drill before.
        world.sql("ALTER TABLE schema_migration RENAME COLUMN version TO away").await?;
        world.back_up().await?;
        world.sql("ALTER TABLE schema_migration RENAME COLUMN away TO version").await?;

        let said = world.fails(DrillReason::JournalFailed).await?;

        world.back_up().await?;
        world.passes().await.context("of a database that is whole")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn promises_that_were_missed_are_told_although_the_drill_passed() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "1m").await? else { return Ok(()) };
        world.back_up().await?;
        let taken = Instant::now();
        eventually("the backup is older than the promised minute", Duration::from_secs(90), async || {
            let age = taken.elapsed();
            Ok(Seen::when((age > Duration::from_secs(61)).then_some(()), format!("{age:?}")))
        })
        .await?;

        let name = world.passes().await?;
        let met = world.condition(&name, DrillCondition::ObjectivesMet).await?;
        ensure!(met["status"] == "False" && met["reason"] == "RecoveryPointMissed", "{met}");

        // Of one that somebody named there is no recovery point to miss.
        let slot = world.object(&name).await?["status"]["backup"]["slot"].clone();
        let named = world.drill(json!({ "backup": slot })).await?;
        world.ends(&named, "True").await?;
        let of_named = world.condition(&named, DrillCondition::ObjectivesMet).await?;
        ensure!(
            of_named["reason"] != "RecoveryPointMissed" && of_named["reason"] != "BothMissed",
            "{of_named}"
        );
        ensure!(world.object(&named).await?["status"]["measured"]["rpoSeconds"].is_null());

        for (rpo, reason) in [("1m", "BothMissed"), ("4h", "RecoveryTimeMissed")] {
            world.protected.change_policy(json!({ "objectives": { "rpo": rpo, "rto": "1s" } })).await?;
            let name = world.passes().await?;
            let met = world.condition(&name, DrillCondition::ObjectivesMet).await?;
            ensure!(met["status"] == "False" && met["reason"] == reason, "{met}");
        }
        test.measured(met["message"].as_str().unwrap_or_default());
        Ok(())
    });
}

#[test]
fn a_tenants_own_secret_and_configmap_are_in_its_backup_or_the_drill_says_so() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let tenant = &world.protected.tenant;
        tenant.bring_secret("letters", &[("key", "hemligt")]).await?;
        tenant.edit("journal: {envFrom: [{secretRef: {name: letters}}]}").await?;
        tenant.ready().await?;
        world.back_up().await?;
        let name = world.passes().await?;
        let verdict = world.verdict(&name, "Tenant").await?;
        ensure!(verdict["outcome"] == "Passed", "{verdict}");

        // Changed since: the drill passes, and says which.
        let changed = json!({ "stringData": { "key": "annat" } });
        tenant.meddle(kind::SECRET, "letters", Change::Merge(&changed)).await?;
        let name = world.drill(json!({})).await?;
        world.ends(&name, "True").await?;
        let verdict = world.verdict(&name, "Tenant").await?;
        ensure!(verdict["reason"] == "TenantDiffers", "{verdict}");
        ensure!(verdict["message"].as_str().unwrap_or_default().contains("Secret letters"), "{verdict}");

        // Backed up with nothing in it.
        let emptied = json!({ "stringData": { "key": "" } });
        tenant.meddle(kind::SECRET, "letters", Change::Merge(&emptied)).await?;
        world.back_up().await?;
        let said = world.fails(DrillReason::TenantIncomplete).await?;
        ensure!(said.contains("Secret letters"), "{said}");
        tenant.meddle(kind::SECRET, "letters", Change::Merge(&changed)).await?;
        world.back_up().await?;
        world.passes().await.context("it has a content again")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_drill_that_was_not_told_where_to_look_passes_and_says_what_it_did_not_see() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        let tenant = &world.protected.tenant;
        tenant
            .edit("attachments: {inventorySQL: 'SELECT path, sha256 FROM attachment WHERE path IS NULL'}")
            .await?;
        tenant.edit("journal: {probes: {ready: null}}").await?;
        tenant.ready().await?;
        world.back_up().await?;

        let name = world.passes().await?;

        for (check, reason) in [("Attachments", "AttachmentsUnnamed"), ("JournalStarts", "NoProbe")] {
            let verdict = world.verdict(&name, check).await?;
            ensure!(verdict["outcome"] == "Warned" && verdict["reason"] == reason, "{verdict}");
        }
        test.measured("attachments that no query names, and a journal without a probe: warned of");
        Ok(())
    });
}

#[test]
fn a_random_backup_is_one_of_those_that_are_kept_and_not_always_the_newest() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        for _ in 0..4 {
            world.back_up().await?;
        }
        let slots: Vec<String> = world
            .commits()?
            .iter()
            .filter_map(|commit| Some(commit.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        let newest = slots.last().cloned().unwrap_or_default();

        // The drill's own slot picks: of eight, all pick the newest once in 65536 times.
        let mut picked = vec![];
        for _ in 0..8 {
            let name = world.drill(json!({ "backup": "random" })).await?;
            world.ends(&name, "True").await?;
            let slot = world.object(&name).await?["status"]["backup"]["slot"].clone();
            let slot = slot.as_str().context("it says which")?.to_owned();
            ensure!(slots.contains(&slot), "{slot} is none of {slots:?}");
            let met = world.condition(&name, DrillCondition::ObjectivesMet).await?;
            ensure!(met["reason"] == "NotAskedFor", "{met}");
            let is_older = slot != newest;
            picked.push(slot);
            if is_older {
                break;
            }
        }
        ensure!(picked.last() != Some(&newest), "each picked the newest: {picked:?}");
        test.measured(format_args!(
            "{} of {} backups, after {} drills",
            picked.join(", "),
            slots.len(),
            picked.len()
        ));
        Ok(())
    });
}

#[test]
fn the_schedule_makes_a_drill_which_passes_and_is_told_of_the_tenant() {
    run(async |test| {
        let Some(world) = bring(test, json!([]), "4h").await? else { return Ok(()) };
        world.back_up().await?;
        let (admin, tenant) = (&test.world.admin, &world.protected.tenant);
        let every = async |cron: &str| {
            let schedule = json!({ "cron": cron, "timeZone": "UTC", "window": "1s" });
            world.change_drills(json!({ "schedule": schedule })).await
        };

        every("* * * * *").await?;
        let drill = eventually("the schedule makes a drill", Duration::from_secs(120), async || {
            let drills = admin.list(kind::RESTORE_DRILL, &tenant.namespace, "").await?;
            let made = drills.iter().find(|drill| drill["spec"]["origin"] == "Scheduled").cloned();
            Ok(Seen::when(made, format!("{} drills", drills.len())))
        })
        .await?;
        // One is enough.
        every("0 5 1 1 *").await?;

        let name = drill["metadata"]["name"].as_str().context("it has a name")?;
        let (of, slot) = valv_crds::slot::parse_name(name)?;
        ensure!(of == tenant.name, "{name} is not named after its tenant and slot");
        world.ends(name, "True").await?;
        let status = world.object(name).await?["status"].clone();
        ensure!(status["slot"] == slot.to_string().as_str(), "{status:#}");
        tenant.says(ConditionType::Drilled, "True", Reason::AsAsked).await?;
        let told = tenant.object().await?["status"]["backup"]["lastDrill"].clone();
        ensure!(told["passed"] == "True", "the tenant does not tell of it: {told}");
        test.measured(name);
        Ok(())
    });
}

/// Waits until the tenant tells of tampering for `reason`, which no later drill takes away.
async fn is_told_as_tampering(world: &Drilled<'_>, reason: DrillReason) -> Result<()> {
    let reason = format!("{reason:?}");
    eventually(format!("{reason} is told as tampering"), Duration::from_secs(60), async || {
        let status = world.protected.tenant.object().await?["status"]["backup"].clone();
        let found = status["tampering"].as_array().cloned().unwrap_or_default();
        let is_told = found.iter().any(|found| found["reason"] == reason.as_str());
        Ok(Seen::when(is_told.then_some(()), format!("{found:?}")))
    })
    .await
}

/// A tenant whose policy asks these questions, and promises to lose no more than this.
async fn bring<'a>(test: &'a Test, checks: Value, promised: &str) -> Result<Option<Drilled<'a>>> {
    let policy = json!({ "objectives": { "rpo": promised }, "drill": { "checks": checks } });
    Drilled::bring(test, policy, json!({})).await
}
