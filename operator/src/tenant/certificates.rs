//! Decides which authorities and certificates there are, who signs, and what is trusted.
//!
//! Input: the tenant and its Secrets, the time. Output: a [`Certificates`]. Pure.
//!
//! A new authority is trusted everywhere before it signs anything, and the one before it until nothing that it
//! signed is in use: so a client meets no certificate that it does not trust.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    tenant::CertificateStatus,
};

use super::{
    check::Tenant,
    observe::Observed,
    secret::{self, ASKED_ANNOTATION, Order, SIGNED_BY_ANNOTATION, authority_name},
};
use crate::{io::kind::Kind, pki, settings::Certificates as Settings};

/// Name of the Secret with the database's certificate.
pub const DATABASE_TLS: &str = "database-tls";

/// Name of the Secret with the journal's certificate.
pub const JOURNAL_TLS: &str = "journal-tls";

/// How long an authority stays trusted after the last certificate of its was replaced: longer than any node
/// takes to hand out a changed Secret.
const OVERLAP: Duration = Duration::from_secs(600);

/// How long before its end a certificate that the user brings is spoken of.
const EXPIRING: Duration = Duration::from_secs(14 * 86_400);

/// What is to happen with certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// Secrets to make first.
    pub orders: Vec<Order>,
    /// Secrets that are gone or were edited.
    pub lost: Vec<String>,
    /// Authorities that are trusted, PEM, oldest first.
    pub bundle: String,
    /// Authorities that are trusted no more.
    pub retired: Vec<String>,
    /// What `CertificatesValid` says.
    pub saying: Saying,
    /// What the status shows.
    pub status: CertificateStatus,
    /// When to look again.
    pub look_again_at: Option<Timestamp>,
}

/// What is to happen with the certificates of `tenant`.
pub fn certificates(
    tenant: &Tenant,
    observed: &Observed,
    settings: &Settings,
    now: Timestamp,
) -> Certificates {
    let asked = tenant.certificates.rotation.generation;
    let mut authorities: Vec<(i64, &Secret)> = observed
        .secrets
        .iter()
        .filter(|(name, secret)| name.starts_with("authority-") && secret::is_intact(secret))
        .map(|(_, secret)| (secret::generation(secret), secret))
        .collect();
    authorities.sort_by_key(|(number, _)| *number);
    let newest = authorities.last().copied();
    let leaves = leaves(tenant, observed);

    let mut orders = vec![];
    let mut lost = vec![];
    match newest {
        None => {
            // What was signed shows that there was an authority.
            let signed = leaves.iter().filter_map(|leaf| leaf.signer()).max();
            let asked_before = leaves.iter().filter_map(|leaf| leaf.asked()).max().unwrap_or_default();
            match signed {
                Some(number) if asked <= asked_before => lost.push(authority_name(number)),
                signed => orders.push(Order::Authority { number: signed.unwrap_or_default() + 1, asked }),
            }
        }
        Some((number, secret)) => {
            let asked_before = secret::number(secret, ASKED_ANNOTATION).unwrap_or_default();
            let ends = ends(secret);
            let expiring = ends.is_some_and(|ends| ends < now + settings.lifetime + settings.renew_before);
            if asked > asked_before || expiring {
                orders.push(Order::Authority { number: number + 1, asked });
            }
        }
    }

    let bundle: String =
        authorities.iter().filter_map(|(_, secret)| secret::value(secret, "tls.crt")).collect();
    let signer = signer(observed, &authorities, &bundle);
    if orders.is_empty()
        && let Some((number, authority)) = signer
    {
        for leaf in &leaves {
            if leaf.needs_renewal(number, now, settings.renew_before) {
                orders.push(Order::Certificate {
                    name: leaf.name,
                    names: leaf.names.clone(),
                    signer: number,
                    authority: Box::new(authority.clone()),
                    replaces: leaf.secret.cloned(),
                });
            }
        }
    }
    let retired = retired(&authorities, &leaves, now);
    let renewals =
        leaves.iter().filter_map(|leaf| leaf.facts()).map(|facts| facts.not_after - settings.renew_before);
    let overlapping = authorities.len() > 1;
    let look_again_at = renewals.chain(overlapping.then(|| now + Duration::from_secs(15))).min();
    let own = user_certificate(tenant, observed, now);
    Certificates {
        saying: own.unwrap_or_else(|| {
            saying(&lost, &leaves, newest.map(|(number, _)| number), settings.renew_before / 2, now)
        }),
        status: status(&leaves, newest),
        orders,
        lost,
        bundle,
        retired,
        look_again_at,
    }
}

/// A server's certificate that the tenant's own authority signs.
struct Leaf<'a> {
    name: &'static str,
    names: Vec<String>,
    secret: Option<&'a Secret>,
}

fn leaves<'a>(tenant: &Tenant, observed: &'a Observed) -> Vec<Leaf<'a>> {
    let leaf =
        |name: &'static str, names: Vec<String>| Leaf { name, names, secret: observed.secrets.get(name) };
    let database = tenant.has_builtin_database().then(|| leaf(DATABASE_TLS, tenant.database_names()));
    let journal =
        tenant.certificates.journal_secret_ref.is_none().then(|| leaf(JOURNAL_TLS, tenant.journal_names()));
    database.into_iter().chain(journal).collect()
}

impl Leaf<'_> {
    fn facts(&self) -> Option<pki::Facts> {
        let pem = secret::value(self.secret?, "tls.crt")?;
        pki::facts(pem.as_bytes()).ok()
    }

    fn signer(&self) -> Option<i64> {
        secret::number(self.secret?, SIGNED_BY_ANNOTATION)
    }

    fn asked(&self) -> Option<i64> {
        secret::number(self.secret?, ASKED_ANNOTATION)
    }

    fn needs_renewal(&self, signer: i64, now: Timestamp, renew_before: Duration) -> bool {
        let intact = self.secret.is_some_and(secret::is_intact);
        self.facts().is_none_or(|facts| {
            !intact
                || facts.not_after < now + renew_before
                || facts.names != self.names
                || self.signer() != Some(signer)
        })
    }
}

fn ends(secret: &Secret) -> Option<Timestamp> {
    let pem = secret::value(secret, "tls.crt")?;
    pki::facts(pem.as_bytes()).ok().map(|facts| facts.not_after)
}

/// The newest authority that everybody trusts already.
fn signer<'a>(
    observed: &Observed,
    authorities: &[(i64, &'a Secret)],
    bundle: &str,
) -> Option<(i64, &'a Secret)> {
    let newest = authorities.last().copied()?;
    let trusted = observed
        .text(Kind::Deployment, "journal", "/spec/template/metadata/annotations/valv.eu~1authorities")
        .is_none_or(|trusted| {
            let rolled_out = observed.rollout(Kind::Deployment, "journal").is_complete();
            trusted == super::objects::digest(bundle.as_bytes()) && rolled_out
        });
    if trusted || authorities.len() == 1 {
        return Some(newest);
    }
    authorities.len().checked_sub(2).and_then(|index| authorities.get(index).copied())
}

/// Authorities that signed nothing which is in use, or was until just now.
fn retired(authorities: &[(i64, &Secret)], leaves: &[Leaf<'_>], now: Timestamp) -> Vec<String> {
    let in_use = leaves.iter().filter_map(Leaf::signer).min();
    let backdated = Duration::from_secs(3600);
    let settled = leaves
        .iter()
        .all(|leaf| leaf.facts().is_some_and(|facts| facts.not_before + backdated + OVERLAP < now));
    let old = authorities.iter().filter(|(number, _)| settled && in_use.is_some_and(|used| *number < used));
    old.map(|(number, _)| authority_name(*number)).collect()
}

fn status(leaves: &[Leaf<'_>], newest: Option<(i64, &Secret)>) -> CertificateStatus {
    let time = |name: &str| {
        let leaf = leaves.iter().find(|leaf| leaf.name == name)?;
        leaf.facts().map(|facts| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(facts.not_after))
    };
    CertificateStatus {
        generation: leaves.iter().filter_map(Leaf::signer).min(),
        journal_not_after: time(JOURNAL_TLS),
        database_not_after: time(DATABASE_TLS),
        authority_not_after: newest
            .and_then(|(_, secret)| ends(secret))
            .map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time),
    }
}

fn saying(
    lost: &[String],
    leaves: &[Leaf<'_>],
    newest: Option<i64>,
    overdue: Duration,
    now: Timestamp,
) -> Saying {
    let kind = ConditionType::CertificatesValid;
    if let Some(name) = lost.first() {
        return Saying::no(
            kind,
            Reason::SecretLost,
            format!(
                "the Secret {name} is lost: put it back from a backup, or raise spec.certificates.rotation.generation for a new authority"
            ),
        );
    }
    let missing = leaves.iter().find(|leaf| leaf.facts().is_none());
    let ended = leaves.iter().find(|leaf| leaf.facts().is_some_and(|facts| facts.not_after <= now));
    let old = leaves.iter().any(|leaf| leaf.signer() != newest);
    match (missing, ended) {
        (Some(leaf), _) => Saying::no(kind, Reason::Progressing, format!("{} is being made", leaf.name)),
        (_, Some(leaf)) => Saying::no(kind, Reason::CertificateExpiring, format!("{} has ended", leaf.name)),
        _ if leaves.iter().any(|leaf| leaf.facts().is_some_and(|facts| facts.not_after < now + overdue)) => {
            Saying::yes(
                kind,
                Reason::CertificateExpiring,
                "a certificate ends soon and should have been renewed by now",
            )
        }
        _ if old => Saying::yes(
            kind,
            Reason::AuthorityOverlapping,
            "a new authority is being trusted everywhere before it signs",
        ),
        _ => {
            let first = leaves.iter().filter_map(Leaf::facts).map(|facts| facts.not_after).min();
            let until = first.map(|time| time.to_string()).unwrap_or_default();
            Saying::yes(kind, Reason::AsAsked, format!("all are valid, the first until {until}"))
        }
    }
}

/// What is wrong with the certificate that the user brings.
fn user_certificate(tenant: &Tenant, observed: &Observed, now: Timestamp) -> Option<Saying> {
    let kind = ConditionType::CertificatesValid;
    let name = &tenant.certificates.journal_secret_ref.as_ref()?.name;
    let key = crate::io::kind::Key::new(Kind::Secret, name.clone());
    // A Secret that is not there is told by ReferencesResolved.
    let reference = observed.references.get(&key)?.as_ref()?;
    let invalid = |why: String| {
        Some(Saying::no(
            kind,
            Reason::CertificateInvalid,
            format!("the certificate in the Secret {name} {why}"),
        ))
    };
    let Some(pem) = reference.data.get("tls.crt") else { return invalid("lacks the key tls.crt".to_owned()) };
    if !reference.data.contains_key("tls.key") {
        return invalid("lacks the key tls.key".to_owned());
    }
    let facts = match pki::facts(pem) {
        Ok(facts) => facts,
        Err(error) => return invalid(format!("cannot be read: {error}")),
    };
    let wildcard = tenant.host.split_once('.').map(|(_, parent)| format!("*.{parent}")).unwrap_or_default();
    if !facts.names.contains(&tenant.host) && !facts.names.contains(&wildcard) {
        return invalid(format!("is for {}, not for {}", facts.names.join(", "), tenant.host));
    }
    if facts.not_after <= now {
        return invalid(format!("ended at {}", facts.not_after));
    }
    (facts.not_after < now + EXPIRING).then(|| {
        let message =
            format!("the certificate in the Secret {name} ends at {}: bring a new one", facts.not_after);
        Saying::yes(kind, Reason::CertificateExpiring, message)
    })
}
