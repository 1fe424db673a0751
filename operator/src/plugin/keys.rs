//! `valv keys prove`: the holder of a key shows that they have it, without the key leaving this process.
//!
//! The identity comes on standard input and never as an argument, which other users of the machine could see. It is kept in
//! memory that is wiped, and printed nowhere; what goes to the API server is the answer to one challenge.

use std::io::Read;

use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::ConfigMap;
use secrecy::SecretString;
use tokio::time::sleep;
use valv_crds::JournalTenant;

use super::{Api, Connection, Error, Input, Surroundings, Verdict};
use crate::{
    error::chain,
    keys::{ANSWER_ANNOTATION, CHALLENGE_PREFIX, proof, read_config_map},
    overview::key_fingerprint,
};

/// A file of identities is not longer.
const LONGEST_INPUT_BYTES: u64 = 64 * 1024;

/// Looks until the operator is taken to be away.
const LOOKS: u32 = 60;

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prove that you hold a key of a tenant: give its age identity on standard input
    Prove(Prove),
}

/// `keys prove`.
#[derive(Args, Debug)]
pub struct Prove {
    /// Whose backups it opens
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// Which cluster
    #[command(flatten)]
    pub connection: Connection,
}

impl Command {
    /// Which cluster it asks.
    pub fn connection(&self) -> &Connection {
        let Self::Prove(Prove { connection, .. }) = self;
        connection
    }
}

/// Does it.
pub async fn run(
    api: &Api,
    command: &Command,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error> {
    let Command::Prove(Prove { tenant: name, .. }) = command;
    let Some(file) = read(&mut surroundings.input)? else {
        let told = format!(
            "give the identity on standard input, where nobody sees it: kubectl valv keys prove {name} < identity.txt"
        );
        surroundings.say(&told)?;
        return Ok(Verdict::Wrong);
    };
    let identities = match proof::identities(&file) {
        Ok(identities) => identities,
        Err(refusal) => return wrong(surroundings, &refusal),
    };
    drop(file);
    let tenant = api.tenant(name).await?;
    let recipients = recipients(&tenant);
    let known = identities.each().find_map(|identity| {
        let recipient = identity.to_public().to_string();
        recipients.contains(&recipient).then_some((identity, recipient))
    });
    let Some((identity, recipient)) = known else {
        surroundings.say(&format!(
            "this key is none of the recipients of {name}: its backups are not encrypted for it"
        ))?;
        return Ok(Verdict::Wrong);
    };
    let fingerprint = key_fingerprint(&recipient);
    let object = format!("{CHALLENGE_PREFIX}{fingerprint}");
    let Some(challenge) = api.find::<ConfigMap>(name, &object).await? else {
        return not_asked(&tenant, &fingerprint, surroundings);
    };
    let Some(read) = challenge.data.as_ref().and_then(read_config_map) else {
        return Err(Error::Unreadable { what: format!("ConfigMap {object} of {name}") });
    };
    let answer = match read.answer(identity) {
        Ok(answer) => answer,
        Err(refusal) => return wrong(surroundings, &refusal),
    };
    surroundings.say(&format!("the key {fingerprint} opens the header of backup {}", read.slot))?;
    let before = proven(&tenant, &fingerprint);
    api.annotate(name, &challenge, ANSWER_ANNOTATION, &answer).await?;
    let mut is_gone = false;
    for _ in 0..LOOKS {
        sleep(surroundings.look_every).await;
        let tenant = api.tenant(name).await?;
        let now = proven(&tenant, &fingerprint);
        if let Some(when) = now.filter(|now| Some(now) != before.as_ref()) {
            surroundings.say(&format!("proven at {when}"))?;
            return Ok(Verdict::Well);
        }
        let is_refused = match api.find::<ConfigMap>(name, &object).await? {
            Some(found) => !found.metadata.annotations.is_some_and(|all| all.contains_key(ANSWER_ANNOTATION)),
            // It went because it was answered, which the status says by the next look; or it is not asked any more.
            None if is_gone => return not_asked(&tenant, &fingerprint, surroundings),
            None => {
                is_gone = true;
                false
            }
        };
        if is_refused && proven(&api.tenant(name).await?, &fingerprint) == before {
            surroundings
                .say("the operator refused the answer: the challenge was renewed meanwhile; try again")?;
            return Ok(Verdict::Wrong);
        }
    }
    surroundings.say("the answer was given, and the operator has not taken it yet: does one lead? `kubectl valv status` will show it")?;
    Ok(Verdict::Wrong)
}

/// What stands on standard input; absent: it is a terminal.
fn read(input: &mut Input<'_>) -> Result<Option<SecretString>, Error> {
    let Input::Stream(stream) = input else { return Ok(None) };
    // As large as it can become, so that it does not move and leave a copy behind.
    let longest = usize::try_from(LONGEST_INPUT_BYTES).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(longest);
    let read = stream.take(LONGEST_INPUT_BYTES).read_to_string(&mut text);
    let text = SecretString::from(text);
    read.map(|_| Some(text)).map_err(Error::Read)
}

fn recipients(tenant: &JournalTenant) -> Vec<String> {
    let recipients = tenant.spec.backup.as_ref().map(|backup| &backup.recipients);
    recipients
        .map(|all| {
            [Some(&all.tenant), Some(&all.escrow), all.drill.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        })
        .unwrap_or_default()
}

/// When the key was last proven, as the tenant's status says.
fn proven(tenant: &JournalTenant, fingerprint: &str) -> Option<jiff::Timestamp> {
    let status = tenant.status.as_ref()?.backup.as_ref()?;
    let key = status.keys.iter().find(|key| key.fingerprint == fingerprint)?;
    key.proven.as_ref().map(|proven| proven.0)
}

fn not_asked(
    tenant: &JournalTenant,
    fingerprint: &str,
    surroundings: &mut Surroundings<'_>,
) -> Result<Verdict, Error> {
    let (told, verdict) = match proven(tenant, fingerprint) {
        Some(when) => (
            format!("nothing is asked of this key now: it was proven at {when}, and is asked for again a month before it is due"),
            Verdict::Well,
        ),
        None => (
            "there is no challenge for this key yet: the operator makes one within a minute of the first complete backup; look at `kubectl valv status`".to_owned(),
            Verdict::Wrong,
        ),
    };
    surroundings.say(&told)?;
    Ok(verdict)
}

fn wrong(surroundings: &mut Surroundings<'_>, refusal: &proof::Refusal) -> Result<Verdict, Error> {
    surroundings.say(&chain(refusal))?;
    Ok(Verdict::Wrong)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use ::http::{Method, Request, Response, StatusCode};
    use age::x25519;
    use base64::{Engine, prelude::BASE64_STANDARD};
    use kube::client::Body;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        archive::envelope::SigningKey,
        fake_api::{self, refuse, respond},
        overview::tests::{World, noon},
        plugin::Screen,
    };

    /// An API server behind which the operator takes right answers.
    #[derive(Clone)]
    struct Fake(Arc<Mutex<State>>);

    struct State {
        tenant: Value,
        challenge: Option<Value>,
        nonce: String,
        answers: Vec<String>,
        operator: Operator,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Operator {
        Leads,
        IsAway,
        Withdraws,
    }

    impl Fake {
        fn api(&self) -> Api {
            let fake = self.clone();
            Api::new(fake_api::client(move |request| {
                let answer = fake.0.lock().unwrap().answer(&request);
                async move { answer }
            }))
        }
    }

    impl State {
        fn answer(&mut self, request: &Request<Value>) -> Response<Body> {
            let path = request.uri().path();
            if request.method() == Method::PATCH {
                let answer = request.body()["metadata"]["annotations"][ANSWER_ANNOTATION].as_str().unwrap();
                assert_eq!(request.body()["metadata"]["resourceVersion"], "7");
                self.answers.push(answer.to_owned());
                if self.operator == Operator::Withdraws {
                    return respond(StatusCode::OK, &self.challenge.take().unwrap());
                }
                let challenge = self.challenge.as_mut().unwrap();
                if self.operator == Operator::Leads && answer == self.nonce {
                    self.tenant["status"]["backup"]["keys"][1]["proven"] = json!("2026-11-23T12:00:00Z");
                } else if self.operator == Operator::IsAway {
                    challenge["metadata"]["annotations"] = json!({ ANSWER_ANNOTATION: answer });
                }
                return respond(StatusCode::OK, challenge);
            }
            match (path.rsplit('/').next().unwrap(), &self.challenge) {
                ("ada", _) => respond(StatusCode::OK, &self.tenant),
                (name, Some(challenge)) if challenge["metadata"]["name"] == name => {
                    respond(StatusCode::OK, challenge)
                }
                _ => refuse(StatusCode::NOT_FOUND, "NotFound"),
            }
        }
    }

    /// A tenant with a challenge for its escrow; the backup is encrypted for `readers`.
    fn fake(escrow: &x25519::Identity, readers: &[&x25519::Identity]) -> Fake {
        let recipient = escrow.to_public().to_string();
        let mut world = World::well().tenant("/spec/backup/recipients/escrow", json!(recipient));
        world.tenant["status"]["backup"]["keys"][1]["fingerprint"] = json!(key_fingerprint(&recipient));
        let readers: Vec<_> = readers.iter().map(|identity| identity.to_public()).collect();
        let all = readers.iter().map(|recipient| recipient as &dyn age::Recipient);
        let mut segment = vec![];
        let mut writer = age::Encryptor::with_recipients(all).unwrap().wrap_output(&mut segment).unwrap();
        writer.write_all(b"records").unwrap();
        writer.finish().unwrap();
        let signing = SigningKey::from_pem(&SigningKey::generate().unwrap()).unwrap();
        let slot = "20261123T010000Z".parse().unwrap();
        let nonce = proof::nonce(&signing, "ada", slot, &recipient, None).unwrap();
        let header = proof::header(&segment).unwrap();
        let challenge = proof::Challenge::make("ada", slot, &recipient, header, &nonce).unwrap();
        let challenge = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": format!("{CHALLENGE_PREFIX}{}", key_fingerprint(&recipient)),
                "namespace": "journal-ada", "resourceVersion": "7",
            },
            "data": {
                "archive": "ada", "slot": slot.to_string(), "recipient": recipient,
                "header": BASE64_STANDARD.encode(&challenge.header),
                "challenge": BASE64_STANDARD.encode(&challenge.sealed),
            },
        });
        Fake(Arc::new(Mutex::new(State {
            tenant: world.tenant,
            challenge: Some(challenge),
            nonce: nonce.to_string(),
            answers: vec![],
            operator: Operator::Leads,
        })))
    }

    async fn told(fake: &Fake, identity: &x25519::Identity) -> (Verdict, String) {
        let secret = identity.to_string();
        let file = format!("# a comment\n{}\n", secret.expose_secret());
        let (mut input, mut out) = (file.as_bytes(), vec![]);
        let mut surroundings = Surroundings {
            input: Input::Stream(&mut input),
            out: &mut out,
            screen: Screen::Lines,
            now: noon,
            look_every: Duration::ZERO,
        };
        let connection = Connection::default();
        let command = Command::Prove(Prove { tenant: "ada".to_owned(), connection });
        let verdict = run(&fake.api(), &command, &mut surroundings).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(secret.expose_secret()));
        (verdict, text)
    }

    #[tokio::test]
    async fn whoever_holds_the_key_proves_it_and_is_told_when() {
        let (tenant, escrow) = (x25519::Identity::generate(), x25519::Identity::generate());
        let fake = fake(&escrow, &[&tenant, &escrow]);

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Well, "{text}");
        assert!(text.contains("opens the header of backup 20261123T010000Z"), "{text}");
        assert!(text.contains("proven at 2026-11-23T12:00:00Z"), "{text}");
    }

    #[tokio::test]
    async fn a_key_that_does_not_open_the_backup_answers_nothing() {
        let (tenant, escrow) = (x25519::Identity::generate(), x25519::Identity::generate());
        let fake = fake(&escrow, &[&tenant]);

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Wrong);
        assert!(text.contains("does NOT open the header"), "{text}");
        assert!(fake.0.lock().unwrap().answers.is_empty());
    }

    #[tokio::test]
    async fn a_stranger_s_key_is_told_so_and_answers_nothing() {
        let escrow = x25519::Identity::generate();
        let fake = fake(&escrow, &[&escrow]);

        let (verdict, text) = told(&fake, &x25519::Identity::generate()).await;

        assert_eq!(verdict, Verdict::Wrong);
        assert!(text.contains("none of the recipients"), "{text}");
        assert!(fake.0.lock().unwrap().answers.is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_no_proof() {
        let escrow = x25519::Identity::generate();
        let fake = fake(&escrow, &[&escrow]);
        fake.0.lock().unwrap().operator = Operator::IsAway;

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Wrong);
        assert!(text.contains("has not taken it yet"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_to_what_is_just_being_withdrawn_is_told_as_not_asked() {
        let escrow = x25519::Identity::generate();
        let fake = fake(&escrow, &[&escrow]);
        fake.0.lock().unwrap().operator = Operator::Withdraws;

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Well);
        assert!(text.contains("nothing is asked of this key now"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_that_was_taken_away_is_told_as_refused() {
        let escrow = x25519::Identity::generate();
        let fake = fake(&escrow, &[&escrow]);
        fake.0.lock().unwrap().nonce = "another".to_owned();

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Wrong);
        assert!(text.contains("refused"), "{text}");
    }

    #[tokio::test]
    async fn a_key_of_which_nothing_is_asked_is_told_since_when() {
        let escrow = x25519::Identity::generate();
        let fake = fake(&escrow, &[&escrow]);
        fake.0.lock().unwrap().challenge = None;

        let (verdict, text) = told(&fake, &escrow).await;

        assert_eq!(verdict, Verdict::Well);
        assert!(text.contains("proven at 2026-11-01T00:00:00Z"), "{text}");
    }

    #[test]
    fn an_identity_is_not_read_from_a_terminal() {
        assert!(read(&mut Input::Terminal).unwrap().is_none());
    }
}
