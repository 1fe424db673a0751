//! The signing key is kept back, lost, put back and replaced by the commands of its page, and no backup is lost by it.
//!
//! There is one for the whole operator: this runs alone, and in any case leaves a key that others can go on with.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use anyhow::{Context, Result, bail, ensure};
use harness::actor::Grace;
use harness::drilled::Drilled;
use harness::operator::NAMESPACE;
use harness::page;
use harness::tenant::base64;
use harness::{Seen, Test, eventually, kind, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use valv_crds::store::{StoreCondition, StoreReason};

/// The page that must be true.
const PAGE: &str = "operations/signing-key.md";

const SECRET: &str = "valv-signing-key";

const PUBLISHED: &str = "valv-signing-key-public";

/// The operator looks within a minute.
const LOOKED: Duration = Duration::from_secs(120);

#[test]
fn the_signing_key_is_put_back_and_replaced_as_its_page_says_and_every_backup_still_verifies() {
    run(async |test| {
        let Some(drilled) = Drilled::bring(test, json!({}), json!({})).await? else { return Ok(()) };
        drilled.back_up().await?;
        test.alone().await?;
        let admin = &test.world.admin;
        let saved = admin.get(kind::SECRET, NAMESPACE, SECRET).await?;

        let ended = goes_through_the_page(test, &drilled, &saved).await;

        // Whatever went wrong: the backups of others need a key.
        if admin.find(kind::SECRET, NAMESPACE, SECRET).await?.is_none() {
            let again = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET }, "data": saved["data"],
            });
            admin.create(kind::SECRET, NAMESPACE, again).await?;
        }
        ended
    });
}

async fn goes_through_the_page(test: &Test, drilled: &Drilled<'_>, saved: &Value) -> Result<()> {
    let (admin, protected) = (&test.world.admin, &drilled.protected);
    let store = protected.store();
    let desk = Desk::new(test, protected, saved)?;
    let first = protected.backup(&newest(drilled).await?).await?["status"]["slot"].clone();
    let old = published(test).await?;

    desk.runs("age --encrypt").context("to keep it back")?;
    admin.delete(kind::SECRET, NAMESPACE, SECRET, Grace::Usual).await?;
    store.says(StoreCondition::SigningKeyKept, "True", StoreReason::SigningKeyUnsaved).await?;
    protected.complete().await.context("while only the operator's memory has the key")?;
    desk.runs("age --decrypt").context("to put it back")?;
    let said = store.says(StoreCondition::SigningKeyKept, "True", StoreReason::AsAsked).await?;
    ensure!(said.contains(&old), "another key is signed with: {said}");
    let back = admin.get(kind::SECRET, NAMESPACE, SECRET).await?;
    ensure!(back["data"] == saved["data"], "what was put back is not what was kept");

    desk.runs("openssl genpkey").context("to replace it")?;
    let new = eventually("another key is published", LOOKED, async || {
        let now = published(test).await?;
        Ok(Seen::when((now != old).then(|| now.clone()), now))
    })
    .await?;
    eventually("the store tells of it", LOOKED, async || {
        let status = store.object().await?["status"].clone();
        let is_told = status["signingKey"]["id"] == new.as_str();
        Ok(Seen::when(is_told.then_some(()), status["signingKey"].to_string()))
    })
    .await?;
    store.says(StoreCondition::SigningKeyKept, "True", StoreReason::AsAsked).await?;

    // A backup from before the change, and one from after it.
    let name = drilled.drill(json!({ "backup": first })).await?;
    drilled.ends(&name, "True").await.context("a backup that the old key signed")?;
    let name = protected.complete().await.context("with the new key")?;
    let slot = protected.backup(&name).await?["status"]["slot"].as_str().context("a slot")?.to_owned();
    let commit = drilled.archive().join(format!("commits/{slot}.json"));
    let commit: Value = serde_json::from_slice(&fs::read(commit)?)?;
    ensure!(commit["signatures"][0]["keyid"] == new.as_str(), "it was signed with another key: {commit}");
    drilled.passes().await.context("a backup that the new key signed")?;

    // Each probe sees to the public halves in the bucket: another spec is probed at once.
    store.apply(json!({ "probeEvery": "5h" })).await?;
    let keys = store.server.objects().join(&store.name).join("v1/.signing/keys");
    eventually("both public halves lie in the bucket", LOOKED, async || {
        let there = [&old, &new].map(|id| keys.join(format!("{id}.pem")).is_file());
        Ok(Seen::when((there == [true; 2]).then_some(()), format!("{there:?}")))
    })
    .await?;
    test.measured(format_args!("put back; then {old} was replaced by {new}"));
    Ok(())
}

/// The name of the key that is published.
async fn published(test: &Test) -> Result<String> {
    let map = test.world.admin.get(kind::CONFIG_MAP, NAMESPACE, PUBLISHED).await?;
    map["data"]["id"].as_str().map(str::to_owned).context("no key is published")
}

/// The only backup so far.
async fn newest(drilled: &Drilled<'_>) -> Result<String> {
    let backups = drilled.protected.tenant.list(kind::BACKUP, "").await?;
    let [backup] = backups.as_slice() else { bail!("there are {} Backups", backups.len()) };
    backup["metadata"]["name"].as_str().map(str::to_owned).context("it has a name")
}

/// Where somebody sits who has the page, kubectl, and a key in escrow.
struct Desk {
    folder: TempDir,
    kubeconfig: std::path::PathBuf,
    recipient: String,
    has_trusted: bool,
}

impl Desk {
    fn new(test: &Test, protected: &harness::protected::Protected<'_>, saved: &Value) -> Result<Self> {
        let cluster = test.world.local().context("the stores are the local cluster's")?;
        let folder = TempDir::new()?;
        fs::create_dir(folder.path().join("bin"))?;
        symlink(cluster.program("kubectl")?, folder.path().join("bin/kubectl"))?;
        fs::write(folder.path().join("KEY"), protected.escrow.to_string().expose_secret())?;
        // What an earlier change left.
        let trusted = saved["data"]["trusted.pub"].as_str();
        if let Some(trusted) = trusted {
            fs::write(folder.path().join("trusted.pub"), base64(trusted)?)?;
        }
        let recipient = protected.escrow.to_public().to_string();
        let kubeconfig = test.world.kubeconfig();
        Ok(Self { folder, kubeconfig, recipient, has_trusted: trusted.is_some() })
    }

    /// Runs the block of the page that has `word` in it.
    fn runs(&self, word: &str) -> Result<String> {
        let mut found = page::blocks(PAGE, "# ")?;
        found.retain(|block| block.contains(word));
        let [block] = found.as_slice() else { bail!("{} blocks of the page have {word:?}", found.len()) };
        let mut script = block.replace("age1…", &self.recipient);
        if self.has_trusted && word == "age --decrypt" {
            // As the page says below it.
            script = script.trim_end().replace(
                "--from-file=signing.pub=valv-signing.pub",
                "--from-file=signing.pub=valv-signing.pub --from-file=trusted.pub",
            );
        }
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.path().join("bin").display());
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(self.folder.path()).env("PATH", path);
        bash.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.folder.path());
        let output = bash.output().context("bash")?;
        if !output.status.success() {
            bail!("{block}\n{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
