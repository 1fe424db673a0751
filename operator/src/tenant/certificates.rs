//! Decides which authorities and certificates there are, who signs, and what is trusted.
//!
//! Input: the tenant and its Secrets, the time. Output: a [`Certificates`]. Pure.
//!
//! A new authority is trusted everywhere before it signs anything, and the one before it until nothing that it
//! signed is in use: so a client meets no certificate that it does not trust.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, core::DynamicObject};
use valv_crds::{
    condition::{ConditionType, Reason, Saying},
    tenant::CertificateStatus,
};

use super::{
    check::Tenant,
    objects::{credentials::AUTHORITIES, journal::AUTHORITIES_ANNOTATION},
    observe::Observed,
    secret::{self, ASKED_ANNOTATION, Order, SIGNED_BY_ANNOTATION, authority_name},
    workload,
};
use crate::{digest, io::kind::Kind, pki, segmentation::Role, settings::Certificates as Settings};

/// Annotation on the ConfigMap of the authorities that are trusted: the number of the newest.
pub const NEWEST_ANNOTATION: &str = "valv.eu/newest-authority";

/// Key of a server's Secret: the certificate of the authority that signed.
pub const ISSUER: &str = "ca.crt";

/// Key of a server's Secret: the certificate of the authority that signed the one before.
pub const PREVIOUS_ISSUER: &str = "previous-ca.crt";

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
    /// Number of the newest authority that there was.
    pub newest: i64,
    /// The highest generation that asked for an authority.
    pub asked: i64,
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

    let before = Before::of(&leaves, newest, observed);
    let is_there = |number: &i64| authorities.iter().any(|(there, _)| there == number);
    // One that a newer one stands in for is not missed.
    let lost: Vec<_> = before
        .numbers
        .iter()
        .filter(|number| !is_there(number) && newest.is_none_or(|(newest, _)| **number > newest))
        .map(|number| authority_name(*number))
        .collect();
    let expiring = newest
        .and_then(|(_, secret)| ends(secret))
        .is_some_and(|ends| ends < now + settings.lifetime + settings.renew_before);
    let mut orders = vec![];
    if before.numbers.is_empty() || asked > before.asked || (expiring && lost.is_empty()) {
        let number = before.numbers.last().copied().unwrap_or_default() + 1;
        orders.push(Order::Authority { number, asked });
    }

    let is_settled = is_settled(&leaves, now);
    let bundle =
        bundle(&authorities, &leaves, if is_settled { &[ISSUER] } else { &[ISSUER, PREVIOUS_ISSUER] });
    if orders.is_empty() {
        let trusted = newest.filter(|_| is_trusted(observed, &bundle));
        for leaf in &leaves {
            let signer = trusted.or_else(|| leaf.standing_signer(&authorities, &leaves));
            let Some((number, authority)) = signer else { continue };
            if leaf.needs_renewal(number, ends(authority), now, settings) {
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
    let retired = if is_settled { retired(&authorities, &leaves) } else { vec![] };
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
        newest: before.numbers.last().copied().unwrap_or_default(),
        asked: before.asked,
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

    /// Who signs it while not everybody trusts the newest authority: the one whose certificates are in use.
    fn standing_signer<'s>(
        &self,
        authorities: &[(i64, &'s Secret)],
        leaves: &[Leaf<'_>],
    ) -> Option<(i64, &'s Secret)> {
        match self.signer().or_else(|| leaves.iter().filter_map(Leaf::signer).min()) {
            Some(number) => authorities.iter().find(|(there, _)| *there == number).copied(),
            None => authorities.last().copied(),
        }
    }

    /// `until`: the end of the authority that would sign it, beyond which no certificate of its helps.
    fn needs_renewal(
        &self,
        signer: i64,
        until: Option<Timestamp>,
        now: Timestamp,
        settings: &Settings,
    ) -> bool {
        let intact = self.secret.is_some_and(secret::is_intact);
        self.facts().is_none_or(|facts| {
            let expiring = facts.not_after < now + settings.renew_before;
            !intact
                || (expiring && until.is_none_or(|until| facts.not_after < until))
                || facts.names != self.names
                || self.signer() != Some(signer)
        })
    }
}

fn ends(secret: &Secret) -> Option<Timestamp> {
    let pem = secret::value(secret, "tls.crt")?;
    pki::facts(pem.as_bytes()).ok().map(|facts| facts.not_after)
}

/// Which authorities there were, as what they signed and what is trusted shows.
struct Before {
    numbers: BTreeSet<i64>,
    /// The highest generation that asked for one.
    asked: i64,
}

impl Before {
    fn of(leaves: &[Leaf<'_>], newest: Option<(i64, &Secret)>, observed: &Observed) -> Self {
        let trusted = observed.get(Kind::ConfigMap, AUTHORITIES);
        let noted =
            |annotation: &str| -> Option<i64> { trusted?.annotations().get(annotation)?.parse().ok() };
        let signers = leaves.iter().filter_map(Leaf::signer);
        let numbers =
            signers.chain(noted(NEWEST_ANNOTATION)).chain(newest.map(|(number, _)| number)).collect();
        let asked_for_newest = newest.and_then(|(_, secret)| secret::number(secret, ASKED_ANNOTATION));
        let asked =
            leaves.iter().filter_map(Leaf::asked).chain(noted(ASKED_ANNOTATION)).chain(asked_for_newest);
        Self { asked: asked.max().unwrap_or_default(), numbers }
    }
}

/// What is trusted, oldest first: every authority, and the `issuers` of certificates in use though their Secret is
/// lost.
fn bundle(authorities: &[(i64, &Secret)], leaves: &[Leaf<'_>], issuers: &[&str]) -> String {
    let own = authorities.iter().filter_map(|(_, secret)| secret::value(secret, "tls.crt"));
    let intact = leaves.iter().filter_map(|leaf| leaf.secret).filter(|secret| secret::is_intact(secret));
    let signers = intact.flat_map(|secret| issuers.iter().filter_map(|key| secret::value(secret, key)));
    let dated = own.chain(signers).filter_map(|pem| Some((pki::facts(pem.as_bytes()).ok()?.not_before, pem)));
    dated.collect::<BTreeSet<_>>().into_iter().map(|(_, pem)| pem).collect()
}

/// Whether every pod that meets the tenant's servers trusts all of `bundle`. One on its way out counts: it may open
/// one more connection; so does a migration that runs.
fn is_trusted(observed: &Observed, bundle: &str) -> bool {
    let digest = digest::of(bundle.as_bytes());
    let trusts = |pod: &DynamicObject| pod.annotations().get(AUTHORITIES_ANNOTATION) == Some(&digest);
    let deployed = observed.get(Kind::Deployment, "journal").is_none_or(|deployment| {
        let template = deployment.data.pointer("/spec/template/metadata/annotations");
        let trusted = template.and_then(|annotations| annotations.get(AUTHORITIES_ANNOTATION)?.as_str());
        trusted == Some(digest.as_str()) && observed.rollout(Kind::Deployment, "journal").is_complete()
    });
    deployed
        && workload::pods(observed, Role::Journal).all(|pod| workload::has_ended(pod) || trusts(pod))
        && workload::pods(observed, Role::Migration).all(workload::has_ended)
}

/// Whether what was signed last has reached every node.
fn is_settled(leaves: &[Leaf<'_>], now: Timestamp) -> bool {
    let signed = |facts: pki::Facts| facts.not_before + pki::BACKDATED;
    leaves.iter().all(|leaf| leaf.facts().is_some_and(|facts| signed(facts) + OVERLAP < now))
}

/// Authorities that signed nothing which is in use.
fn retired(authorities: &[(i64, &Secret)], leaves: &[Leaf<'_>]) -> Vec<String> {
    let in_use = leaves.iter().filter_map(Leaf::signer).min();
    let old = authorities.iter().filter(|(number, _)| in_use.is_some_and(|used| *number < used));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use valv_crds::condition::Truth;

    use super::*;
    use crate::{io::kind::Key, tenant::simulation::Simulation};

    fn ask_for(simulation: &mut Simulation, generation: i64) {
        simulation.tenant.spec.certificates.rotation.generation = generation;
    }

    fn trusted(simulation: &Simulation) -> String {
        simulation.observed.text(Kind::ConfigMap, AUTHORITIES, "/data/ca.crt").unwrap_or_default().to_owned()
    }

    fn everybody_trusts_the_servers(simulation: &Simulation) {
        for name in [DATABASE_TLS, JOURNAL_TLS] {
            if let Some(issuer) = simulation.secret(name, ISSUER) {
                assert!(trusted(simulation).contains(&issuer), "{name} is signed by one that is not trusted");
            }
        }
    }

    /// What trusts the pods of the journal have, as their Deployment says.
    fn pods_trust(simulation: &Simulation) -> Option<String> {
        let annotations = "/spec/template/metadata/annotations/valv.eu~1authorities";
        simulation.observed.text(Kind::Deployment, "journal", annotations).map(str::to_owned)
    }

    /// From now on the journal's pods stay as they are.
    fn stop_rollout(simulation: &mut Simulation) {
        let key = Key::new(Kind::Deployment, "journal");
        let mut deployment = simulation.observed.objects[&key].as_ref().clone();
        deployment.data["status"]["readyReplicas"] = json!(0);
        simulation.observed.objects.insert(key, Arc::new(deployment));
    }

    #[test]
    fn an_authority_that_not_everybody_trusts_yet_signs_nothing_though_a_third_one_is_asked_for() {
        let mut simulation = Simulation::running();
        let first = simulation.secret(DATABASE_TLS, ISSUER);

        for generation in [2, 3] {
            ask_for(&mut simulation, generation);
            for _ in 0..4 {
                stop_rollout(&mut simulation);
                let plan = simulation.plan();
                simulation.carry_out(&plan);
            }
            assert_eq!(simulation.secret(DATABASE_TLS, ISSUER), first);
        }
        simulation.settle(everybody_trusts_the_servers);

        assert_eq!(simulation.plan().certificates.generation, Some(3));
    }

    #[test]
    fn a_pod_on_its_way_out_that_does_not_trust_the_new_authority_keeps_it_from_signing() {
        let mut simulation = Simulation::running();
        let before = simulation.secret(DATABASE_TLS, ISSUER);
        let old = pods_trust(&simulation).unwrap();
        let key = Key::new(Kind::Pod, "journal-0");
        let pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "journal-0", "deletionTimestamp": "2026-03-01T12:00:00Z",
                "labels": { "valv.eu/tenant": "ada", "valv.eu/role": "journal" },
                "annotations": { "valv.eu/authorities": old },
            },
            "status": { "phase": "Running" },
        }));
        simulation.observed.objects.insert(key.clone(), Arc::new(pod.unwrap()));

        ask_for(&mut simulation, 2);
        simulation.settle(|_| {});
        assert_eq!(simulation.secret(DATABASE_TLS, ISSUER), before);

        simulation.observed.objects.remove(&key);
        simulation.settle(everybody_trusts_the_servers);
        assert_ne!(simulation.secret(DATABASE_TLS, ISSUER), before);
    }

    #[test]
    fn a_lost_authority_changes_nothing_that_runs_and_is_replaced_when_asked_for() {
        let mut simulation = Simulation::running();
        let (bundle, pods) = (trusted(&simulation), pods_trust(&simulation));
        let first = simulation.secret(DATABASE_TLS, ISSUER).unwrap();
        simulation.observed.secrets.remove("authority-1");

        simulation.settle(|_| {});
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::False, Reason::SecretLost));
        assert_eq!((trusted(&simulation), pods_trust(&simulation)), (bundle, pods));

        ask_for(&mut simulation, 2);
        simulation.settle(everybody_trusts_the_servers);
        assert_eq!(simulation.plan().certificates.generation, Some(2));
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::True, Reason::AsAsked));
        assert!(trusted(&simulation).contains(&first), "a node may hand out what it signed a little longer");
        simulation.now += 2 * OVERLAP + pki::BACKDATED;
        simulation.settle(everybody_trusts_the_servers);
        assert!(!trusted(&simulation).contains(&first));
    }

    #[test]
    fn a_new_authority_that_is_lost_before_it_signed_is_not_made_again_in_silence() {
        let mut simulation = Simulation::running();
        ask_for(&mut simulation, 2);
        for _ in 0..3 {
            let plan = simulation.plan();
            simulation.carry_out(&plan);
        }
        assert!(simulation.observed.secrets.remove("authority-2").is_some());

        simulation.settle(|_| {});

        assert!(!simulation.observed.secrets.contains_key("authority-2"));
        assert_eq!(simulation.says(ConditionType::SecretsIntact), (Truth::False, Reason::SecretLost));
        ask_for(&mut simulation, 3);
        simulation.settle(everybody_trusts_the_servers);
        assert_eq!(simulation.plan().certificates.generation, Some(3));
    }

    #[test]
    fn an_authority_near_its_end_is_not_asked_to_sign_over_and_over() {
        let mut simulation = Simulation::running();
        simulation.now += Duration::from_secs((3650 - 10) * 86_400);
        stop_rollout(&mut simulation);
        let mut certificates = 0;
        for _ in 0..6 {
            stop_rollout(&mut simulation);
            let plan = simulation.plan();
            certificates +=
                plan.orders.iter().filter(|order| matches!(order, Order::Certificate { .. })).count();
            simulation.carry_out(&plan);
        }

        assert!(certificates <= 2, "{certificates}");
    }
}
