//! What the page on the format of backups says is enough: its block restores a tenant in a bare Debian, by the tools
//! that the page names, with a key, the operator's public key and the credentials of one who reads.

use age::x25519;
use anyhow::{Context, ensure};
use harness::bare_debian::{BareDebian, PAGE};
use harness::page;
use harness::protected::{Protected, Wanted};
use harness::run;

use valv_cluster::BUCKET;
use valv_cluster::s3::{Method, Request};

/// The section whose block lists the versions of a commit.
const COVERED: &str = "### When something lies over it";

const NOTE: &str = "Läses om tio år.";

#[test]
fn the_page_s_block_restores_a_tenant_in_a_bare_debian() {
    run(async |test| {
        let Some(protected) = Protected::bring(test, Wanted::default()).await? else { return Ok(()) };
        let tenant = &protected.tenant;
        tenant.up().await?;
        let journal = tenant.journal().await?;
        journal.write(NOTE).await?;
        journal.attach("remiss.pdf", &[7; 300_000]).await?;
        let name = protected.complete().await?;
        let slot = protected.backup(&name).await?["status"]["slot"].as_str().context("a slot")?.to_owned();

        let mut debian = BareDebian::new(test, protected.store(), &tenant.name, &slot).await?;
        for (part, key) in [
            ("database", &protected.escrow),
            ("attachments", &protected.owner),
            ("tenant", &protected.escrow),
        ] {
            debian.restores(part, key).with_context(|| part.to_owned())?;
        }

        debian.runs(DATABASE).context("the restored database")?;
        let told = debian.read("answers")?;
        ensure!(told == format!("{slot}\n{NOTE}\n"), "it has: {told}");
        let attachments = debian.runs("find /restored/attachments -type f -size 300000c | wc -l")?;
        ensure!(attachments.trim() == "1", "{attachments} attachments");
        let secrets = debian.runs("ls /restored/tenant /restored/tenant/secrets")?;
        ensure!(secrets.contains("tenant.yaml") && secrets.contains("login-owner"), "{secrets}");

        // Something lies over the commit: by the page's block its versions are found, and the true one restores.
        let commit = format!("/{BUCKET}/{}/v1/{}/commits/{slot}.json", protected.store().name, tenant.name);
        let younger = Request::new(Method::Put, &commit).body("{}");
        protected.store().server.administrator()?.must(&younger.checked())?;
        ensure!(debian.restores("tenant", &protected.escrow).is_err(), "any commit will do");
        let listed = debian.runs(&page::block(PAGE, COVERED)?)?;
        let versions: Vec<_> =
            listed.split("<VersionId>").skip(1).filter_map(|rest| rest.split('<').next()).collect();
        let [_, oldest] = versions.as_slice() else { anyhow::bail!("not two versions: {listed}") };
        debian.with_commit_version(oldest);
        debian.restores("tenant", &protected.escrow).context("by the oldest version of its commit")?;

        let stranger = x25519::Identity::generate();
        ensure!(debian.restores("tenant", &stranger).is_err(), "anybody can open it");
        debian.signed_by_another()?;
        let refused = debian.restores("tenant", &protected.escrow).err().context("any signature will do")?;
        ensure!(format!("{refused:#}").contains("not signed by this key"), "{refused:#}");
        test.measured(
            "three parts restored; database verified, started and read; no other key, no other signature",
        );
        Ok(())
    });
}

/// `pg_verifybackup`, and a server on the folder, whose answers are written down.
const DATABASE: &str = r#"
export PATH=/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/bin
cd /
chown -R postgres /restored/database
chmod 700 /restored/database
as() { chroot --userspec=postgres:postgres / "$@"; }
as pg_verifybackup --exit-on-error /restored/database
echo 'local all all trust' >/tmp/hba
chmod 644 /tmp/hba
as postgres -D /restored/database -c hba_file=/tmp/hba -c ssl=off -c archive_mode=off -c listen_addresses= \
    -c unix_socket_directories=/tmp >/tmp/log 2>&1 &
server=$!
ready=no
for _ in $(seq 120); do
    if pg_isready -q -h /tmp -U postgres; then ready=yes; break; fi
    kill -0 $server || break
    sleep 0.5
done
[ $ready = yes ] || { cat /tmp/log >&2; exit 1; }
psql -h /tmp -U postgres -d journal -qAt -v ON_ERROR_STOP=1 >/answers <<'END'
SELECT slot FROM valv.sentinel ORDER BY slot DESC LIMIT 1;
SELECT text FROM note;
END
as pg_ctl stop --silent --wait --mode fast --pgdata /restored/database
wait $server
"#;
