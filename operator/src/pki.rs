//! A tenant's own certificate authority, and what it signs.
//!
//! Input: names, times, the authority's key. Output: PEM. Keys are ECDSA P-256: every PostgreSQL and every
//! browser of the last ten years takes them. Nothing here reads a clock.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use x509_parser::{pem::parse_x509_pem, prelude::GeneralName};

/// A certificate and its key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS #8 PEM. Secret.
    pub key: String,
}

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refused.
    #[error("failed to make a certificate for {subject}")]
    Make {
        /// For whom.
        subject: String,
        /// Why not.
        source: rcgen::Error,
    },
    /// It is not a certificate.
    #[error("failed to read a certificate: {0}")]
    Read(String),
}

/// Clocks differ: a certificate is valid from this long before it was made.
pub const BACKDATED: Duration = Duration::from_secs(3600);

/// An authority, which signs itself.
pub fn authority(name: &str, now: Timestamp, lifetime: Duration) -> Result<Issued, Error> {
    let failed = |source| Error::Make { subject: name.to_owned(), source };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, now + lifetime);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A server's certificate for `names`, signed by `authority`, which it does not outlive.
pub fn server(
    names: &[String],
    authority: &Issued,
    now: Timestamp,
    lifetime: Duration,
) -> Result<Issued, Error> {
    let subject = names.first().cloned().unwrap_or_default();
    let failed = |source| Error::Make { subject: subject.clone(), source };
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let ends = facts(authority.certificate.as_bytes())?.not_after.min(now + lifetime);
    validity(&mut params, now, ends);
    let signer = KeyPair::from_pem(&authority.key).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signer).map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn validity(params: &mut CertificateParams, now: Timestamp, ends: Timestamp) {
    let date = |time: Timestamp| {
        std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_second().unsigned_abs())
    };
    params.not_before = date(now - BACKDATED).into();
    params.not_after = date(ends).into();
}

/// What a certificate says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Facts {
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// For which host names.
    pub names: Vec<String>,
}

/// Reads the first certificate of `pem`.
pub fn facts(pem: &[u8]) -> Result<Facts, Error> {
    let unreadable = |error: &dyn std::fmt::Display| Error::Read(error.to_string());
    let (_, block) = parse_x509_pem(pem).map_err(|error| unreadable(&error))?;
    let certificate = block.parse_x509().map_err(|error| unreadable(&error))?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| unreadable(&error));
    let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = names.map(|extension| extension.value.general_names.clone()).unwrap_or_default();
    let dns = names.iter().filter_map(|name| {
        if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }
    });
    Ok(Facts {
        not_before: time(certificate.validity().not_before.timestamp())?,
        not_after: time(certificate.validity().not_after.timestamp())?,
        names: dns.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn noon() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_server_certificate_says_for_whom_and_until_when() {
        let authority = authority("journal-ada authority 1", noon(), 3650 * DAY).unwrap();
        let names = ["database.journal-ada.svc".to_owned(), "localhost".to_owned()];

        let issued = server(&names, &authority, noon(), 90 * DAY).unwrap();
        let facts = facts(issued.certificate.as_bytes()).unwrap();

        assert_eq!(facts.names, names);
        assert_eq!(facts.not_after, noon() + 90 * DAY);
        assert_eq!(facts.not_before, noon() - BACKDATED);
    }

    #[test]
    fn a_server_certificate_does_not_outlive_its_authority() {
        let authority = authority("journal-ada authority 1", noon(), 40 * DAY).unwrap();

        let issued = server(&["localhost".to_owned()], &authority, noon(), 90 * DAY).unwrap();

        assert_eq!(facts(issued.certificate.as_bytes()).unwrap().not_after, noon() + 40 * DAY);
    }

    #[test]
    fn an_authority_signs_servers_but_no_further_authorities() {
        let issued = authority("journal-ada authority 1", noon(), 3650 * DAY).unwrap();
        let (_, block) = parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        let certificate = block.parse_x509().unwrap();

        let constraints = certificate.basic_constraints().unwrap().unwrap().value;

        assert!(constraints.ca);
        assert_eq!(constraints.path_len_constraint, Some(0));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        assert!(facts(b"-----BEGIN NOTHING-----").is_err());
    }
}
