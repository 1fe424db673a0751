//! The standard tools, as somebody would use them who has no Valv.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{
    backup::Keys,
    data::mixed,
    store::{ACCESS_KEY, BUCKET, PREFIX, REGION, SECRET_KEY, Store},
};

/// The page that must be true.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backup-format.md");

/// The section whose only block is run.
const SECTION: &str = "## Restore without Valv";

/// A folder with a few files, and its tar.
pub fn tree_and_its_tar() -> (TempDir, Vec<u8>) {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("base/16384")).unwrap();
    fs::write(tree.path().join("PG_VERSION"), "17\n").unwrap();
    fs::write(tree.path().join("base/16384/1259"), mixed(60 << 20, 1)).unwrap();
    fs::write(tree.path().join("base/16384/empty"), "").unwrap();
    let tar = Command::new("tar").arg("-C").arg(tree.path()).args(["-c", "."]).output().unwrap();
    assert!(tar.status.success(), "{tar:?}");
    (tree, tar.stdout)
}

/// Runs what the page says, with nothing in the environment but what it asks for.
pub fn run_the_page_s_block(store: &Store, keys: &Keys, identity: &str, target: &Path) -> Output {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    fs::write(path("identity"), identity).unwrap();
    fs::write(path("public.pem"), keys.public().to_pem()).unwrap();
    fs::write(path("restore.sh"), block()).unwrap();
    Command::new("bash")
        .arg(path("restore.sh"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("S3_ENDPOINT", store.endpoint())
        .env("S3_REGION", REGION)
        .env("S3_BUCKET", BUCKET)
        .env("S3_PREFIX", PREFIX)
        .env("S3_ACCESS_KEY_ID", ACCESS_KEY)
        .env("S3_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("S3_CA_FILE", store.authority_file())
        .env("ARCHIVE", "ada")
        .env("SLOT", "20261122T010000Z")
        .env("PART", "database")
        .env("PUBLIC_KEY", path("public.pem"))
        .env("IDENTITY", path("identity"))
        .env("TARGET", target)
        .output()
        .unwrap()
}

fn block() -> String {
    let page = fs::read_to_string(PAGE).unwrap();
    let section = page.split(SECTION).nth(1).expect("the page has the section");
    let block = section.split("```bash\n").nth(1).expect("the section has a block");
    block.split("```").next().unwrap().to_owned()
}

/// Compares two folders with `diff`.
pub fn assert_same(one: &Path, other: &Path) {
    let compared = Command::new("diff").arg("--recursive").arg(one).arg(other).output().unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}
