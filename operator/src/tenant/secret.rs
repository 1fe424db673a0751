//! The Secrets that Valv makes: what they are called, what is written on them, and whether they are as made.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::observe::Observed;
use crate::{agent::roles::Role, digest};

/// Label: the generation that the Secret was made for.
pub const GENERATION_LABEL: &str = "valv.eu/generation";

/// Label: the Secret was generated, not computed from others.
pub const GENERATED_LABEL: &str = "valv.eu/generated";

/// Annotation: digest of the data as they were made.
pub const DIGEST_ANNOTATION: &str = "valv.eu/digest";

/// Annotation: number of the authority that signed.
pub const SIGNED_BY_ANNOTATION: &str = "valv.eu/signed-by";

/// Annotation: `spec.certificates.rotation.generation` that asked for the authority.
pub const ASKED_ANNOTATION: &str = "valv.eu/asked";

/// Annotation: the password before this one is not known, so only the database's own pod can set it.
pub const RECOVERED_ANNOTATION: &str = "valv.eu/recovered";

/// A Secret that apply is to make, with what only apply has: randomness and keys. Its `Debug` is its name.
#[derive(Clone, PartialEq)]
pub enum Order {
    /// A login with a new password.
    Login {
        /// Of whom.
        role: Role,
        /// For which generation.
        generation: i64,
        /// The Secret that it replaces.
        replaces: Option<Secret>,
    },
    /// A new authority.
    Authority {
        /// Its number.
        number: i64,
        /// The generation that asked for it.
        asked: i64,
    },
    /// A server's certificate.
    Certificate {
        /// Name of the Secret.
        name: &'static str,
        /// Host names in it.
        names: Vec<String>,
        /// Number of the authority that signs.
        signer: i64,
        /// The authority's Secret.
        authority: Box<Secret>,
        /// The Secret that it replaces.
        replaces: Option<Secret>,
    },
}

impl Order {
    /// Name of the Secret.
    pub fn name(&self) -> String {
        match self {
            Self::Login { role, .. } => login_name(*role).to_owned(),
            Self::Authority { number, .. } => authority_name(*number),
            Self::Certificate { name, .. } => (*name).to_owned(),
        }
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Order({})", self.name())
    }
}

/// Name of the Secret with the login of `role`.
pub fn login_name(role: Role) -> &'static str {
    match role {
        Role::JournalOwner => "login-owner",
        Role::JournalAppA => "login-app-a",
        Role::JournalAppB => "login-app-b",
        Role::JournalReplication => "login-replication",
        Role::JournalCheck => "login-check",
        Role::ValvRoles => "login-roles",
    }
}

/// Name of the Secret with the authority of that number.
pub fn authority_name(number: i64) -> String {
    format!("authority-{number}")
}

/// A value of `secret`, as text.
pub fn value(secret: &Secret, key: &str) -> Option<String> {
    let data = secret.data.as_ref()?.get(key)?;
    String::from_utf8(data.0.clone()).ok()
}

/// The generation that `secret` was made for.
pub fn generation(secret: &Secret) -> i64 {
    secret.labels().get(GENERATION_LABEL).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A number in an annotation of `secret`.
pub fn number(secret: &Secret, annotation: &str) -> Option<i64> {
    secret.annotations().get(annotation)?.parse().ok()
}

/// Digest of a Secret's data.
pub fn digest(data: &BTreeMap<String, k8s_openapi::ByteString>) -> String {
    digest::of_entries(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

/// Whether `secret` holds what it held when it was made.
pub fn is_intact(secret: &Secret) -> bool {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    secret.annotations().get(DIGEST_ANNOTATION).is_none_or(|made| *made == digest(data))
}

impl Observed {
    /// The login of `role`, if its Secret is there and as it was made.
    pub fn login(&self, role: Role) -> Option<&Secret> {
        self.secrets.get(login_name(role)).filter(|secret| is_intact(secret))
    }
}
