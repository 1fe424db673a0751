//! Whoever has taken over the agent and holds the operator's signing key: rewrites a backup so that every digest and
//! signature fits. What then still finds the fault is whoever looks at what was restored.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use age::x25519;
use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use zstd::bulk::Compressor;

use crate::drilled::Drilled;
use crate::kind;
use crate::operator::NAMESPACE;
use crate::protected::{opened, segments};

/// Bytes of the tar stream in one zstd frame, as the format has it.
const SLICE: usize = 1 << 20;

/// The largest segment, as the format has it.
const SEGMENT: usize = 16 << 20;

/// What a public key of Ed25519 begins with in DER, before its 32 bytes.
const PUBLIC_KEY_START: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The public half of a key that is not the operator's.
pub struct Stranger {
    /// Its name, as the bucket's folder of keys has it.
    pub id: String,
    /// The key.
    pub pem: String,
}

/// A backup that is rewritten.
pub struct Forger {
    commit: PathBuf,
    data: PathBuf,
    signing: Ed25519KeyPair,
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Forger {
    /// Of the newest backup of `drilled`, whose data lie in `data`.
    ///
    /// # Errors
    /// If its files or the operator's key cannot be read.
    pub async fn of(drilled: &Drilled<'_>, data: PathBuf) -> Result<Self> {
        let slot =
            data.parent().and_then(|folder| folder.file_name()).context("data lie in a slot's folder")?;
        let commit = drilled.archive().join("commits").join(slot).with_extension("json");
        let secret = drilled.test().world.admin.get(kind::SECRET, NAMESPACE, "valv-signing-key").await?;
        let key = secret["data"]["signing.key"].as_str().context("the Secret has a key")?;
        let key = String::from_utf8(STANDARD.decode(key)?)?;
        let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
        let signing = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(body)?)
            .map_err(|refusal| anyhow!("the signing key cannot be used: {refusal}"))?;
        let manifest = data.join("manifest.json");
        let pages =
            fs::read_dir(data.join("index"))?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?;
        let parts = ["database", "attachments", "tenant"].map(|part| segments(&data.join(part)));
        let mut files = vec![commit.clone(), manifest];
        files.extend(pages);
        for part in parts {
            files.extend(part?);
        }
        let before = files.into_iter().map(|file| {
            let content = fs::read(&file).with_context(|| file.display().to_string())?;
            Ok((file, content))
        });
        Ok(Self { commit, signing, before: before.collect::<Result<_>>()?, data })
    }

    /// The tar stream of a part.
    ///
    /// # Errors
    /// If `identity` does not open it.
    pub fn stream(&self, part: &str, identity: &x25519::Identity) -> Result<Vec<u8>> {
        opened(&self.data.join(part), identity)
    }

    /// Puts `stream` in the place of a part's, encrypted for `recipients`, with all digests and the signature made to
    /// fit.
    ///
    /// # Errors
    /// If the part has, or would have, more than one segment: the database of a test has not.
    pub fn replace(&self, part: &str, stream: &[u8], recipients: &[x25519::Recipient]) -> Result<()> {
        let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
        let mut encrypted = vec![];
        let mut writer = age::Encryptor::with_recipients(recipients)?.wrap_output(&mut encrypted)?;
        let mut compressor = Compressor::new(3)?;
        compressor.include_checksum(true)?;
        for slice in stream.chunks(SLICE) {
            writer.write_all(&compressor.compress(slice)?)?;
        }
        writer.finish()?;
        self.put(part, &encrypted, stream.len())
    }

    /// Alters the last byte of a part's only segment, with all digests and the signature made to fit.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub fn spoil(&self, part: &str, plain: usize) -> Result<()> {
        let mut encrypted = fs::read(self.only_segment(part)?)?;
        let last = encrypted.last_mut().context("it is not empty")?;
        *last ^= 1;
        self.put(part, &encrypted, plain)
    }

    /// Changes the manifest, and commits it as the operator would.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn manifest(&self, change: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        let file = self.data.join("manifest.json");
        let mut said: Value = serde_json::from_slice(&fs::read(&file)?)?;
        change(&mut said)?;
        let said = said.to_string();
        fs::write(&file, &said)?;
        self.sign(&said)
    }

    fn only_segment(&self, part: &str) -> Result<PathBuf> {
        let mut all = segments(&self.data.join(part))?;
        ensure!(all.len() == 1, "{part} has {} segments", all.len());
        all.pop().context("it has one")
    }

    fn put(&self, part: &str, encrypted: &[u8], plain: usize) -> Result<()> {
        ensure!(encrypted.len() <= SEGMENT, "{part} would have more than one segment");
        fs::write(self.only_segment(part)?, encrypted)?;
        let page = self.data.join(format!("index/{part}-00000.jsonl"));
        let mut line: Value = serde_json::from_slice(&fs::read(&page)?)?;
        line["size"] = json!(encrypted.len());
        line["blake3"] = json!(blake3::hash(encrypted).to_string());
        line["plain"] = json!(plain);
        let line = format!("{line}\n");
        fs::write(&page, &line)?;
        self.manifest(|said| {
            let parts = said["parts"].as_array_mut().context("a manifest has parts")?;
            let named = parts.iter_mut().find(|found| found["name"] == part).context("it has that part")?;
            named["bytes"] = json!(encrypted.len());
            named["plainBytes"] = json!(plain);
            named["pages"][0]["size"] = json!(line.len());
            named["pages"][0]["blake3"] = json!(blake3::hash(line.as_bytes()).to_string());
            Ok(())
        })
    }

    /// Puts the commit back: what was rewritten fits in itself, and nobody signed it. That is all that whoever has only
    /// an agent's credentials can do.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn unsign(&self) -> Result<()> {
        let commit = self.before.iter().find(|(file, _)| *file == self.commit).context("it was read")?;
        Ok(fs::write(&self.commit, &commit.1)?)
    }

    /// Signs the commit as it stands with a key of one's own, and names that key in it.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn sign_as_a_stranger(&self) -> Result<Stranger> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|refusal| anyhow!("no key can be made: {refusal}"))?;
        let key = Ed25519KeyPair::from_pkcs8(made.as_ref())
            .map_err(|refusal| anyhow!("the key cannot be used: {refusal}"))?;
        let der = [&PUBLIC_KEY_START[..], key.public_key().as_ref()].concat();
        let id: String =
            digest(&SHA256, &der).as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
        let mut envelope: Value = serde_json::from_slice(&fs::read(&self.commit)?)?;
        let payload = STANDARD.decode(text(&envelope["payload"])?)?;
        let sealed = signed(&text(&envelope["payloadType"])?, &payload);
        envelope["signatures"] = json!([{ "keyid": id, "sig": STANDARD.encode(key.sign(&sealed)) }]);
        fs::write(&self.commit, envelope.to_string())?;
        Ok(Stranger { id, pem })
    }

    /// Commits this manifest, as the operator would.
    fn sign(&self, manifest: &str) -> Result<()> {
        let mut envelope: Value = serde_json::from_slice(&fs::read(&self.commit)?)?;
        let mut payload: Value = serde_json::from_slice(&STANDARD.decode(text(&envelope["payload"])?)?)?;
        payload["manifest"]["size"] = json!(manifest.len());
        payload["manifest"]["blake3"] = json!(blake3::hash(manifest.as_bytes()).to_string());
        let (payload, kind) = (payload.to_string(), text(&envelope["payloadType"])?);
        let sealed = signed(&kind, payload.as_bytes());
        envelope["payload"] = json!(STANDARD.encode(&payload));
        envelope["signatures"][0]["sig"] = json!(STANDARD.encode(self.signing.sign(&sealed)));
        Ok(fs::write(&self.commit, envelope.to_string())?)
    }

    /// As it was.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn put_right(&self) -> Result<()> {
        Ok(self.before.iter().try_for_each(|(file, content)| fs::write(file, content))?)
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).context("an envelope has text")
}

/// What is signed of an envelope.
fn signed(kind: &str, payload: &[u8]) -> Vec<u8> {
    [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), payload].concat()
}
