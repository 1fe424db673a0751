//! What is planted in the store's own files, where no lock forbids it, while a backup is not committed yet, or not copied:
//! each fault has its reason, nothing of it is committed, and the next backup is complete without a hand.
//!
//! The fault proxy, a double, holds what reads until it is planted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faults::{Fault, FaultProxy, Objects};
use harness::drilled::Planted;
use harness::protected::{BACKED_UP, Protected, Wanted};
use harness::saying::says;
use harness::{Seen, eventually, run};
use serde_json::{Value, json};
use valv_cluster::s3::{Method, Request};
use valv_crds::backup::{BackupCondition, BackupReason};

use crate::moments::{Moment, goes_on, held_at};
use crate::store_faults::{bring, bring_with};

/// A copy that failed is tried again after five minutes.
const COPIED_AGAIN: Duration = Duration::from_secs(600);

/// What is planted into the folder of an attempt, of which another is older.
type Plant = fn(&Path, &Path) -> Result<()>;

/// What is done to a commit of the operator's, so that it is none.
type Forge = fn(&mut Value) -> Result<()>;

#[test]
fn segments_that_were_altered_swapped_or_lost_before_they_were_read_back_are_not_committed() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };
        let faults: [(&str, BackupReason, Plant); 5] = [
            ("a bit is flipped", BackupReason::SegmentDiffers, |data, _| {
                flip(&data.join("database/00000000.age")).map(drop)
            }),
            ("a segment of another backup", BackupReason::SegmentDiffers, |data, older| {
                let segment = "database/00000000.age";
                Planted::in_place_of(&data.join(segment), &fs::read(older.join(segment))?).map(drop)
            }),
            ("two segments are swapped", BackupReason::SegmentDiffers, |data, _| {
                let [one, other] =
                    ["database/00000000.age", "attachments/00000000.age"].map(|name| data.join(name));
                let (of_one, of_other) = (fs::read(&one)?, fs::read(&other)?);
                Planted::in_place_of(&one, &of_other)?;
                Planted::in_place_of(&other, &of_one).map(drop)
            }),
            ("a page of the index is altered", BackupReason::SegmentDiffers, |data, _| {
                flip(&data.join("index/tenant-00000.jsonl")).map(drop)
            }),
            ("a segment is lost", BackupReason::SegmentMissing, |data, _| {
                Ok(fs::remove_file(data.join("attachments/00000000.age"))?)
            }),
        ];
        each_is_told_and_mended(&protected, &proxy, &faults).await?;
        test.measured(format_args!("{} faults, each with its reason", faults.len()));
        Ok(())
    });
}

#[test]
fn a_manifest_that_was_altered_or_lost_before_it_was_read_back_is_not_committed() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };
        let faults: [(&str, BackupReason, Plant); 3] = [
            ("a bit is flipped", BackupReason::ManifestInvalid, |data, _| {
                flip(&data.join("manifest.json")).map(drop)
            }),
            ("the manifest of an older backup", BackupReason::ManifestInvalid, |data, older| {
                let manifest = fs::read(older.join("manifest.json"))?;
                Planted::in_place_of(&data.join("manifest.json"), &manifest).map(drop)
            }),
            ("it is lost", BackupReason::ManifestMissing, |data, _| {
                Ok(fs::remove_file(data.join("manifest.json"))?)
            }),
        ];
        each_is_told_and_mended(&protected, &proxy, &faults).await?;
        test.measured(format_args!("{} faults, each with its reason", faults.len()));
        Ok(())
    });
}

/// Each fault ends its backup with its reason, and leaves nothing that keeps the next from being complete.
async fn each_is_told_and_mended(
    protected: &Protected<'_>,
    proxy: &FaultProxy,
    faults: &[(&str, BackupReason, Plant)],
) -> Result<()> {
    let older = protected.data(&protected.complete().await?).await?;
    for (commits, (what, reason, plant)) in (1..).zip(faults) {
        let name = held_at(protected, proxy, Moment::ReadBack).await?;
        plant(&protected.data(&name).await?, &older).with_context(|| (*what).to_owned())?;
        proxy.set(Fault::None);
        let said = protected.says(&name, BackupCondition::Stalled, "True", *reason).await;
        said.with_context(|| (*what).to_owned())?;
        protected.attempt_fails(&name, 1, *reason).await.with_context(|| (*what).to_owned())?;
        ensure!(protected.commits()?.len() == commits, "{what}: {:?}", protected.commits()?);
        let next = protected.complete().await.with_context(|| format!("after {what}"))?;
        goes_on(protected, proxy, &next, commits + 1).await.with_context(|| format!("after {what}"))?;
    }
    Ok(())
}

#[test]
fn a_commit_that_somebody_else_signed_is_never_taken_for_the_operator_s() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };
        let older = protected.slot(&protected.complete().await?).await?;
        let commits = protected.archive(protected.store()).join("commits");
        let signed: Value = serde_json::from_slice(&fs::read(commits.join(format!("{older}.json")))?)?;
        let administrator = protected.store().server.administrator()?;
        let mut said = String::new();

        let faults: [(&str, Forge); 3] = [
            ("without a signature", |commit| {
                commit["signatures"] = json!([]);
                Ok(())
            }),
            ("with a broken signature", |commit| {
                let text = commit["signatures"][0]["sig"].as_str().context("it has a signature")?;
                let mut signature = STANDARD.decode(text)?;
                signature[0] ^= 1;
                commit["signatures"][0]["sig"] = json!(STANDARD.encode(signature));
                Ok(())
            }),
            // Signed by the operator, for another slot.
            ("of an older backup", |_| Ok(())),
        ];
        for (before, (what, forge)) in (0..).zip(faults) {
            let name = held_at(&protected, &proxy, Moment::ReadBack).await?;
            let mut forged = signed.clone();
            forge(&mut forged)?;
            // Nothing lies there yet that a lock could keep.
            let slot = protected.slot(&name).await?;
            let (store, tenant) = (protected.store(), &protected.tenant.name);
            let path = format!("/{}/{}/v1/{tenant}/commits/{slot}.json", store.bucket(), store.name);
            administrator.must(&Request::new(Method::Put, &path).body(forged.to_string()).checked())?;
            proxy.set(Fault::None);

            let reason = BackupReason::SignatureInvalid;
            said = protected
                .says(&name, BackupCondition::Stalled, "True", reason)
                .await
                .with_context(|| format!("a commit {what}"))?;
            ensure!(protected.versions_of_commit(&name).await? == 1, "{what}: something was put over it");
            let next = protected.complete().await.with_context(|| format!("after a commit {what}"))?;
            // The forged ones lie there too.
            goes_on(&protected, &proxy, &next, 2 * before + 3).await?;
        }
        test.measured(said);
        Ok(())
    });
}

#[test]
fn what_is_laid_over_a_backup_before_it_is_read_back_is_read_through_and_told() {
    run(async |test| {
        let Some((protected, proxy)) = bring(test, 5, 0).await? else { return Ok(()) };
        let store = protected.store();

        let name = held_at(&protected, &proxy, Moment::ReadBack).await?;
        let data = protected.data(&name).await?;
        let folder = data.strip_prefix(store.objects())?.display().to_string();
        let at = |file: &str| format!("/{}/{}/{folder}/{file}", store.bucket(), store.name);
        let administrator = store.server.administrator()?;
        let younger = Request::new(Method::Put, &at("database/00000000.age")).body("younger");
        administrator.must(&younger.checked())?;
        administrator.must(&Request::new(Method::Delete, &at("attachments/00000000.age")))?;
        proxy.set(Fault::None);

        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        let said = protected.says(&name, BackupCondition::Intact, "False", BackupReason::Tampered).await?;
        ensure!(said.contains("over 2 objects"), "{said}");
        ensure!(protected.commits()?.len() == 1, "{:?}", protected.commits()?);
        let next = protected.complete().await?;
        goes_on(&protected, &proxy, &next, 2).await.context("the next one")?;
        test.measured(said);
        Ok(())
    });
}

#[test]
fn a_bit_that_is_flipped_between_a_backup_and_its_copy_keeps_the_copy_from_being_committed() {
    run(async |test| {
        let wanted = Wanted { both_stores: true, ..Wanted::default() };
        let Some((protected, proxy)) = bring_with(test, 5, 0, wanted).await? else { return Ok(()) };
        let [_, frankfurt] = protected.stores.as_slice() else { anyhow::bail!("there are not two stores") };
        let copies = protected.archive(frankfurt).join("commits");

        // All was read back by now; from here on nothing is read before it is allowed.
        let name = held_at(&protected, &proxy, Moment::Before(Objects::Commits, 0)).await?;
        proxy.set(Fault::ReadsHeldAfter { reads: 0 });
        protected.says(&name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        eventually("the copy is to be read", BACKED_UP, async || {
            Ok(Seen::when((proxy.kept() > 0).then_some(()), format!("{} requests", proxy.requests())))
        })
        .await?;
        let planted = flip(&protected.data(&name).await?.join("database/00000000.age"))?;
        proxy.set(Fault::None);

        let copied = |status: &'static str, reason, limit| {
            let (name, protected) = (name.as_str(), &protected);
            async move {
                let look = async || protected.backup(name).await;
                says(name, (BackupCondition::Copied, status, reason), limit, look).await
            }
        };
        let said = copied("False", BackupReason::SegmentDiffers, BACKED_UP).await?;
        ensure!(committed(&copies)?.is_empty(), "a broken copy was committed: {:?}", committed(&copies)?);
        planted.put_right()?;
        copied("True", BackupReason::Committed, COPIED_AGAIN).await.context("when it was put right")?;
        ensure!(committed(&copies)?.len() == 1, "{:?}", committed(&copies)?);
        test.measured(said);
        Ok(())
    });
}

/// One bit of a file is another, in its middle.
fn flip(file: &Path) -> Result<Planted> {
    let mut content = fs::read(file).with_context(|| file.display().to_string())?;
    let middle = content.len() / 2;
    *content.get_mut(middle).context("it is not empty")? ^= 1;
    Planted::in_place_of(file, &content)
}

fn committed(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}
