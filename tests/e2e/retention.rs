//! What becomes of a backup: its copy in another country, its end, and its return after the cluster forgot it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use age::x25519;
use anyhow::{Context, Result, ensure};
use faults::Fault;
use harness::actor::Change;
use harness::drilled::Drilled;
use harness::saying::says;
use harness::store::{BackupStore, stores};
use harness::test::unique;
use harness::{Seen, Tenant, Test, eventually, kind, proxy, run};
use serde_json::{Value, json};
use valv_cluster::Identity;
use valv_crds::backup::{BackupCondition, BackupReason};
use valv_crds::drill::{DrillCondition, DrillReason};
use valv_crds::reference::{
    ACKNOWLEDGE_DELETION_ANNOTATION, FROM_CATALOGUE_ANNOTATION, LOOK_AFTER_ANNOTATION,
};
use valv_crds::store::{StoreCondition, StoreReason};

/// A backup, a Job that copies it, two commits.
const COPIED: Duration = Duration::from_secs(240);

/// A round of the janitor, and a look.
const LOOKED: Duration = Duration::from_secs(120);

#[test]
fn a_backup_gets_a_committed_copy_of_its_ciphertext_in_the_other_country() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::Committed).await?;

        let status = world.backup(&name).await?["status"].clone();
        let names: Vec<_> = status["stores"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|stored| stored["name"].as_str())
            .collect();
        ensure!(names == [world.helsinki.name.as_str(), world.frankfurt.name.as_str()], "{names:?}");
        let slot = status["slot"].as_str().context("it has a slot")?;
        let [here, there] = [&world.helsinki, &world.frankfurt].map(|store| world.archive(store));
        for archive in [&here, &there] {
            ensure!(archive.join(format!("commits/{slot}.json")).is_file(), "no commit in {archive:?}");
        }
        let (ours, copies) = (segments(&here.join("data"))?, segments(&there.join("data"))?);
        ensure!(!ours.is_empty() && ours == copies, "the ciphertexts differ");
        let commits = [&here, &there].map(|archive| fs::read(archive.join(format!("commits/{slot}.json"))));
        let [Ok(first), Ok(second)] = commits else { anyhow::bail!("a commit cannot be read") };
        ensure!(first != second, "each store has a commit of its own");
        Ok(())
    });
}

#[test]
fn backup_objects_that_were_lost_come_back_from_the_bucket_and_are_not_run_again() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let slot = world.backup(&name).await?["status"]["slot"].clone();
        world.tenant.remove(kind::BACKUP, &name).await?;

        world.look_after("after the loss").await?;

        let found = eventually("the Backup comes back", LOOKED, async || {
            let all = world.tenant.list(kind::BACKUP, "").await?;
            let back = all.iter().find(|backup| {
                backup["status"]["slot"] == slot
                    && backup["metadata"]["annotations"][FROM_CATALOGUE_ANNOTATION] == "true"
            });
            Ok(Seen::when(back.cloned(), format!("{} Backups", all.len())))
        })
        .await?;
        let name = found["metadata"]["name"].as_str().context("it has a name")?;
        world.says(name, BackupCondition::Complete, "True", BackupReason::Committed).await?;
        world.says(name, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let jobs = world.tenant.list(kind::JOB, "").await?;
        let again = jobs.iter().filter(|job| {
            let uid = &found["metadata"]["uid"];
            job["metadata"]["labels"]["valv.eu/backup"] == *uid
        });
        ensure!(again.count() == 0, "it was run again");
        Ok(())
    });
}

#[test]
fn a_commit_that_was_taken_away_is_said_and_nothing_more_is_deleted() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let slot = world.backup(&name).await?["status"]["slot"].as_str().unwrap_or_default().to_owned();
        let archive = world.archive(&world.frankfurt);

        // Frankfurt has no versions: the janitor's credentials would be enough.
        fs::remove_file(archive.join(format!("commits/{slot}.json")))?;
        world.look_after("after the theft").await?;

        world.says(&name, BackupCondition::Intact, "False", BackupReason::CatalogueRolledBack).await?;
        ensure!(!segments(&archive.join("data"))?.is_empty(), "its data are gone too");
        Ok(())
    });
}

#[test]
fn retention_deletes_what_is_old_and_unlocked_with_its_commit_and_leaves_the_rest() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let status = world.backup(&name).await?["status"].clone();
        let slot = status["slot"].as_str().context("it has a slot")?;
        let archive = world.archive(&world.frankfurt);
        // Old enough for the floor, and in no period that has not ended: the policy keeps the newest only.
        world.plant(&archive, slot, "20200101T010000Z").await?;

        world.look_after("after two years").await?;

        eventually("the old one is gone", LOOKED, async || {
            let left = archive.join("commits/20200101T010000Z.json").exists()
                || !segments(&archive.join("data/20200101T010000Z"))?.is_empty();
            Ok(Seen::when((!left).then_some(()), "it is there"))
        })
        .await?;
        ensure!(archive.join(format!("commits/{slot}.json")).is_file(), "the newest is gone");
        ensure!(!segments(&archive.join("data").join(slot))?.is_empty(), "the newest's data are gone");
        ensure!(archive.join("records/terms.json").is_file(), "the archive has no terms");
        Ok(())
    });
}

#[test]
fn a_commit_that_was_lost_is_missed_until_somebody_has_looked_and_its_data_stay_and_are_copied_there_again() {
    run(async |test| {
        let Some(world) = World::bring(test).await? else { return Ok(()) };
        let lost = world.back_up().await?;
        world.says(&lost, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let slot = world.backup(&lost).await?["status"]["slot"].as_str().unwrap_or_default().to_owned();
        // A slot is a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let newest = world.back_up().await?;
        world.says(&newest, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let archive = world.archive(&world.frankfurt);
        world.look_after("so that it is written down").await?;
        // An earlier look may have written it down when there was one backup less.
        world.kept(&world.frankfurt, "both are seen", |kept| kept["backups"] == 2).await?;
        ensure!(archive.join("records/register.json").is_file(), "there is no register");
        let commit = archive.join(format!("commits/{slot}.json"));

        fs::remove_file(&commit)?;
        world.look_after("after the loss").await?;

        world.kept(&world.frankfurt, "it is missed", |kept| kept["missing"] == json!([slot])).await?;
        world.says(&lost, BackupCondition::Intact, "False", BackupReason::CatalogueRolledBack).await?;
        ensure!(!segments(&archive.join("data").join(&slot))?.is_empty(), "its data are gone");
        let here = world.archive(&world.helsinki);
        ensure!(here.join(format!("commits/{slot}.json")).is_file(), "Helsinki has lost it too");
        // Somebody has looked, and says so: it is missed no more, and its data are there all the same.
        let digest = world
            .kept(&world.frankfurt, "somebody is asked", |kept| kept["awaitsAcknowledgement"].is_string())
            .await?["awaitsAcknowledgement"]
            .clone();
        world.tenant.annotate(ACKNOWLEDGE_DELETION_ANNOTATION, digest.as_str()).await?;
        world.kept(&world.frankfurt, "it is missed no more", |kept| kept["missing"].is_null()).await?;
        ensure!(!segments(&archive.join("data").join(&slot))?.is_empty(), "its data are gone now");
        world.says(&lost, BackupCondition::Intact, "True", BackupReason::AsAsked).await?;
        world.says(&lost, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        ensure!(commit.is_file(), "Frankfurt has no commit of it again");
        world.look_after("after it came back").await?;
        world
            .kept(&world.frankfurt, "both are seen, and nothing is asked", |kept| {
                kept["backups"] == 2 && kept["missing"].is_null() && kept["awaitsAcknowledgement"].is_null()
            })
            .await?;
        Ok(())
    });
}

#[test]
fn while_a_commit_is_gone_a_backup_that_is_named_is_drilled_and_the_newest_once_somebody_has_looked() {
    run(async |test| {
        let Some(world) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        let (protected, tenant) = (&world.protected, &world.protected.tenant);
        let mut slots = vec![];
        let mut names = vec![];
        for _ in 0..2 {
            let name = protected.complete().await?;
            let slot = protected.backup(&name).await?["status"]["slot"].clone();
            slots.push(slot.as_str().context("it has a slot")?.to_owned());
            names.push(name);
        }
        fs::remove_file(world.archive().join(format!("commits/{}.json", slots[0])))?;
        tenant.annotate(LOOK_AFTER_ANNOTATION, Some("after the theft")).await?;
        protected
            .says(&names[0], BackupCondition::Intact, "False", BackupReason::CatalogueRolledBack)
            .await?;

        let newest = world.drill(json!({})).await?;
        world.says(&newest, DrillCondition::Passed, "False", DrillReason::CatalogueRolledBack).await?;
        world.leaves_nothing(&newest).await?;
        let named = world.drill(json!({ "backup": slots[1] })).await?;
        world.ends(&named, "True").await?;

        let store = &protected.store().name;
        let asked = |kept: &Value| kept["awaitsAcknowledgement"].is_string();
        let digest = kept(tenant, store, "somebody is asked", asked).await?["awaitsAcknowledgement"].clone();
        tenant.annotate(ACKNOWLEDGE_DELETION_ANNOTATION, digest.as_str()).await?;
        kept(tenant, store, "it is missed no more", |kept| kept["missing"].is_null()).await?;
        let left = test.world.admin.find(kind::BACKUP, &tenant.namespace, &names[0]).await?;
        ensure!(left.is_none(), "an object names what no store has: {left:?}");
        world.passes().await?;
        Ok(())
    });
}

#[test]
fn while_the_clocks_differ_nothing_is_deleted_and_that_is_said() {
    run(async |test| {
        let Some([_, server]) = stores(test)? else { return Ok(()) };
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let proxy = proxy::before(cluster, &server)?;
        let behind = json!({ "endpoint": proxy.endpoint() });
        let Some(world) = World::bring_with(test, json!({}), behind).await? else { return Ok(()) };
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::Committed).await?;
        let status = world.backup(&name).await?["status"].clone();
        let slot = status["slot"].as_str().context("it has a slot")?;
        let archive = world.archive(&world.frankfurt);
        let old = archive.join("commits/20200101T010000Z.json");

        proxy.set(Fault::ClockAhead { seconds: 3600 });
        world.plant(&archive, slot, "20200101T010000Z").await?;
        world.look_after("while the clocks differ").await?;
        let failed = |kept: &Value| kept["failure"].as_str().is_some_and(|said| said.contains("ahead"));
        world.kept(&world.frankfurt, "the clock is said to be wrong", failed).await?;
        ensure!(old.is_file(), "it was deleted by a wrong clock");

        proxy.set(Fault::None);
        world.look_after("when they agree again").await?;
        eventually("the old one is gone", LOOKED, async || {
            Ok(Seen::when((!old.exists()).then_some(()), "it is there"))
        })
        .await?;
        world.kept(&world.frankfurt, "no failure is said", |kept| kept["failure"].is_null()).await?;
        Ok(())
    });
}

#[test]
fn nothing_is_copied_into_a_country_that_the_policy_does_not_list() {
    run(async |test| {
        let Some(world) = World::bring_with(test, json!({}), json!({})).await? else { return Ok(()) };
        let both = json!([world.helsinki.name, world.frankfurt.name]);
        let country = world.helsinki.server.country;
        world.change_policy(json!({ "stores": [world.helsinki.name] })).await?;
        let name = world.back_up().await?;
        world.says(&name, BackupCondition::Copied, "True", BackupReason::NotAskedFor).await?;
        let slot = world.backup(&name).await?["status"]["slot"].clone();

        world.change_policy(json!({ "stores": both, "countries": [country] })).await?;
        // As after the cluster was lost: the object comes back, and says that it is not copied.
        world.tenant.remove(kind::BACKUP, &name).await?;
        world.look_after("after the policy was changed").await?;
        let found = eventually("the Backup comes back", LOOKED, async || {
            let all = world.tenant.list(kind::BACKUP, "").await?;
            let back = all.iter().find(|backup| backup["status"]["slot"] == slot);
            Ok(Seen::when(back.cloned(), format!("{} Backups", all.len())))
        })
        .await?;
        let back = found["metadata"]["name"].as_str().context("it has a name")?;

        world.says(back, BackupCondition::Copied, "False", BackupReason::StoreRefused).await?;
        ensure!(segments(&world.archive(&world.frankfurt).join("data"))?.is_empty(), "it was copied");
        Ok(())
    });
}

/// A tenant that is backed up to Helsinki, with copies to Frankfurt.
struct World<'a> {
    test: &'a Test,
    helsinki: BackupStore,
    frankfurt: BackupStore,
    policy: String,
    tenant: Tenant,
}

impl<'a> World<'a> {
    async fn bring(test: &'a Test) -> Result<Option<Self>> {
        Self::bring_with(test, json!({}), json!({})).await
    }

    /// With Helsinki and Frankfurt said differently.
    async fn bring_with(test: &'a Test, first: Value, second: Value) -> Result<Option<Self>> {
        let Some([helsinki, frankfurt]) = stores(test)? else { return Ok(None) };
        let helsinki = BackupStore::of(test, &helsinki, "helsinki")?;
        let frankfurt = BackupStore::of(test, &frankfurt, "frankfurt")?;
        for (store, changes) in [(&helsinki, first), (&frankfurt, second)] {
            store.bring_secrets(&Identity::ALL).await?;
            store.apply(changes).await?;
        }
        for store in [&helsinki, &frankfurt] {
            store.says(StoreCondition::Ready, "True", StoreReason::AsAsked).await?;
        }
        let policy = unique("policy");
        test.made(kind::BACKUP_POLICY, "", &policy);
        let object = json!({
            "apiVersion": kind::BACKUP_POLICY.api_version(),
            "kind": kind::BACKUP_POLICY.name,
            "metadata": { "name": policy },
            "spec": {
                "schedule": { "cron": "0 1 1 1 *", "timeZone": "Europe/Stockholm" },
                "stores": [helsinki.name, frankfurt.name],
                "verification": { "mode": "Full" },
                "retention": {
                    "last": 1, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0,
                    "floor": { "days": 1, "reason": "decided for a test" },
                },
                "objectives": { "rpo": "24h", "rto": "4h" },
            },
        });
        test.world.admin.apply(kind::BACKUP_POLICY, "", &object).await?;
        let recipient = || x25519::Identity::generate().to_public();
        let tenant = test.tenant("kept")?.with(&format!(
            "backup: {{policy: {policy}, recipients: {{tenant: {}, escrow: {}}}}}",
            recipient(),
            recipient()
        ))?;
        tenant.up().await?;
        Ok(Some(Self { test, helsinki, frankfurt, policy, tenant }))
    }

    /// The tenant's archive in a store, on the machine that it runs on.
    fn archive(&self, store: &BackupStore) -> PathBuf {
        store.server.objects().join(&store.name).join("v1").join(&self.tenant.name)
    }

    async fn back_up(&self) -> Result<String> {
        let name = unique("by-hand");
        let object = json!({
            "apiVersion": kind::BACKUP.api_version(),
            "kind": kind::BACKUP.name,
            "metadata": { "name": name },
            "spec": {},
        });
        self.test.world.admin.create(kind::BACKUP, &self.tenant.namespace, object).await?;
        Ok(name)
    }

    async fn backup(&self, name: &str) -> Result<Value> {
        self.tenant.get(kind::BACKUP, name).await
    }

    /// Asks for a look now, instead of once a day.
    async fn look_after(&self, why: &str) -> Result<()> {
        self.tenant.annotate(LOOK_AFTER_ANNOTATION, Some(why)).await
    }

    /// Says something of the policy differently.
    async fn change_policy(&self, spec: Value) -> Result<()> {
        let change = json!({ "spec": spec });
        let admin = &self.test.world.admin;
        admin.change(kind::BACKUP_POLICY, "", &self.policy, Change::Merge(&change)).await.map(drop)
    }

    /// Waits until the tenant's status says `so` of what is kept in `store`, and returns what it says.
    async fn kept(&self, store: &BackupStore, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
        kept(&self.tenant, &store.name, what, so).await
    }

    async fn says(
        &self,
        name: &str,
        condition: BackupCondition,
        status: &str,
        reason: BackupReason,
    ) -> Result<()> {
        says(name, (condition, status, reason), COPIED, async || self.backup(name).await).await.map(drop)
    }

    /// Puts a copy of the backup of `slot` into `archive`, as if it had been made at `old`: with a manifest that fits, and
    /// a commit that the operator's own key signs. In a store without versions objects are files.
    async fn plant(&self, archive: &Path, slot: &str, old: &str) -> Result<()> {
        let attempts = archive.join("data").join(slot);
        let attempt = fs::read_dir(&attempts)?.next().context("an attempt")??.file_name();
        let attempt = attempt.to_string_lossy().into_owned();
        let folder = archive.join("data").join(old).join(&attempt);
        fs::create_dir_all(folder.parent().context("a folder")?)?;
        done(Command::new("cp").arg("-r").arg(attempts.join(&attempt)).arg(&folder))?;
        let manifest = fs::read_to_string(folder.join("manifest.json"))?.replace(slot, old);
        fs::write(folder.join("manifest.json"), &manifest)?;
        let digest = done(Command::new("b3sum").arg("--no-names").arg(folder.join("manifest.json")))?;
        let digest = String::from_utf8(digest)?.trim().to_owned();

        let scratch = tempfile::tempdir()?;
        let envelope: Value =
            serde_json::from_slice(&fs::read(archive.join(format!("commits/{slot}.json")))?)?;
        let encoded = envelope["payload"].as_str().context("a payload")?;
        let payload = piped(Command::new("openssl").args(["base64", "-d", "-A"]), encoded.as_bytes())?;
        let mut payload: BTreeMap<String, Value> = serde_json::from_slice(&payload)?;
        payload.insert("slot".into(), json!(old));
        payload.insert("committed".into(), json!("2020-01-01T01:10:00Z"));
        let named = payload.get_mut("manifest").context("a manifest")?;
        named["key"] = json!(named["key"].as_str().unwrap_or_default().replace(slot, old));
        named["size"] = json!(manifest.len());
        named["blake3"] = json!(digest);
        // Keys of a map are sorted, as canonical JSON has them.
        let payload = serde_json::to_vec(&payload)?;
        let kind_of = "application/vnd.valv.commit.v1+json";
        let signed =
            [format!("DSSEv1 {} {kind_of} {} ", kind_of.len(), payload.len()).as_bytes(), &payload].concat();
        let secret = self.test.world.admin.get(kind::SECRET, "valv-system", "valv-signing-key").await?;
        let key = secret["data"]["signing.key"].as_str().context("the signing key")?;
        let key = piped(Command::new("openssl").args(["base64", "-d", "-A"]), key.as_bytes())?;
        fs::write(scratch.path().join("key"), key)?;
        fs::write(scratch.path().join("signed"), signed)?;
        let signature = done(
            Command::new("openssl")
                .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
                .arg(scratch.path().join("key"))
                .arg("-in")
                .arg(scratch.path().join("signed")),
        )?;
        let base64 = |bytes: &[u8]| -> Result<String> {
            let text = piped(Command::new("openssl").args(["base64", "-A"]), bytes)?;
            Ok(String::from_utf8(text)?)
        };
        let commit = json!({
            "payload": base64(&payload)?, "payloadType": kind_of,
            "signatures": [{ "keyid": envelope["signatures"][0]["keyid"], "sig": base64(&signature)? }],
        });
        fs::write(archive.join(format!("commits/{old}.json")), serde_json::to_vec(&commit)?)?;
        Ok(())
    }
}

/// Waits until a tenant's status says `so` of what is kept in `store`, and returns what it says.
async fn kept(tenant: &Tenant, store: &str, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(what, LOOKED, async || {
        let object = tenant.object().await?;
        let kept = object["status"]["backup"]["kept"].as_array().cloned().unwrap_or_default();
        let kept = kept.into_iter().find(|kept| kept["store"] == store);
        Ok(Seen::when(kept.filter(|kept| so(kept)), object["status"]["backup"].to_string()))
    })
    .await
}

/// What a program printed, if it ended well.
fn done(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// What a program made of its input.
fn piped(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), input)?;
    done(command.stdin(Stdio::from(fs::File::open(file.path())?)))
}

/// Digests of the segments below a folder, by their path in the attempt.
fn segments(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "age") {
                let digest = done(Command::new("b3sum").arg("--no-names").arg(&path))?;
                let name: PathBuf = path.components().rev().take(2).collect();
                found.insert(name.to_string_lossy().into_owned(), digest);
            }
        }
    }
    Ok(found)
}
