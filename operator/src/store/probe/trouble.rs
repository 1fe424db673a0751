//! What stood in a probe's way, as a reason and a sentence. Pure.

use std::time::Duration;

use valv_crds::store::StoreReason;

use crate::{
    error::chain,
    io::bucket::{Error, Kind, SettingsError, greeting::GreetingError},
    store::check::Identity,
};

/// Something stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What, for machines.
    pub reason: StoreReason,
    /// What, for people.
    pub message: String,
}

impl Trouble {
    /// A request of `who`, which every store must answer, failed.
    pub fn of(who: Identity, error: &Error) -> Self {
        let reason = reason(error);
        let words = words(error);
        let is_refused = reason == StoreReason::CredentialsRefused;
        let message = if is_refused { format!("the {who} is refused: {words}") } else { words };
        Self { reason, message }
    }

    /// The store greeted nobody.
    pub fn of_greeting(error: &GreetingError) -> Self {
        let reason = match error {
            GreetingError::Settings(_) | GreetingError::Tls { .. } => StoreReason::TlsRefused,
            GreetingError::TimedOut { .. } => StoreReason::TimedOut,
            GreetingError::Host { .. } | GreetingError::Connect { .. } | GreetingError::Proxy { .. } => {
                StoreReason::Unreachable
            }
        };
        Self { reason, message: chain(error) }
    }

    /// The bucket could not be opened.
    pub fn of_settings(error: &SettingsError) -> Self {
        let reason = match error {
            SettingsError::Bundle(_) | SettingsError::NoTrust | SettingsError::Tls(_) => {
                StoreReason::TlsRefused
            }
            SettingsError::Endpoint { .. } | SettingsError::Proxy(_) => StoreReason::Unreachable,
        };
        Self { reason, message: chain(error) }
    }

    /// The bucket answers under its other address.
    pub fn addressing() -> Self {
        let message = "the store takes the bucket's name only in the other place than spec.addressing says";
        Self { reason: StoreReason::AddressingDiffers, message: message.to_owned() }
    }

    /// The whole took too long.
    pub fn too_long(limit: Duration) -> Self {
        let message = format!("the probe did not end within {} s", limit.as_secs());
        Self { reason: StoreReason::TimedOut, message }
    }
}

/// What a failure means for the store.
fn reason(error: &Error) -> StoreReason {
    let code = error.reply().map(|reply| reply.code.as_str()).unwrap_or_default();
    match (&error.kind, code) {
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") => {
            StoreReason::RegionDiffers
        }
        (_, "NoSuchBucket") | (Kind::NotFound, _) => StoreReason::BucketMissing,
        (Kind::Denied | Kind::Locked, _) => StoreReason::CredentialsRefused,
        (Kind::ClockSkew, _) => StoreReason::ClockSkewed,
        (Kind::Full, _) => StoreReason::Full,
        (Kind::Timeout, _) => StoreReason::TimedOut,
        (Kind::Tls, _) => StoreReason::TlsRefused,
        (Kind::Unavailable, _) if error.reply().is_none() => StoreReason::Unreachable,
        (Kind::Unavailable | Kind::PreconditionFailed | Kind::Other { .. }, _) => StoreReason::Failing,
    }
}

/// Whether a bucket that is addressed wrongly would fail so.
pub(super) fn may_be_the_address(error: &Error) -> bool {
    match &error.kind {
        Kind::NotFound | Kind::Tls | Kind::Unavailable | Kind::Denied | Kind::Other { .. } => true,
        Kind::PreconditionFailed | Kind::Locked | Kind::Full | Kind::ClockSkew | Kind::Timeout => false,
    }
}

/// The store's words.
pub(super) fn words(error: &Error) -> String {
    chain(error)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::io::bucket::Operation;

    #[test]
    fn each_failure_of_a_request_has_its_reason() {
        let other = |status, code: &str| Kind::Other { status, code: code.into() };
        for (kind, status, code, reason) in [
            (Kind::Denied, 403, "InvalidAccessKeyId", StoreReason::CredentialsRefused),
            (Kind::Denied, 403, "SignatureDoesNotMatch", StoreReason::CredentialsRefused),
            (Kind::NotFound, 404, "NoSuchBucket", StoreReason::BucketMissing),
            (other(400, ""), 400, "AuthorizationHeaderMalformed", StoreReason::RegionDiffers),
            (other(301, ""), 301, "PermanentRedirect", StoreReason::RegionDiffers),
            (Kind::Full, 507, "", StoreReason::Full),
            (Kind::ClockSkew, 403, "RequestTimeTooSkewed", StoreReason::ClockSkewed),
            (Kind::Unavailable, 503, "SlowDown", StoreReason::Failing),
            (Kind::Unavailable, 500, "", StoreReason::Failing),
            (other(418, "Teapot"), 418, "Teapot", StoreReason::Failing),
        ] {
            let error = Error::answered_for_tests(kind, status, code);

            assert_eq!(Trouble::of(Identity::Writer, &error).reason, reason, "{status} {code}");
        }
        for (kind, reason) in [
            (Kind::Unavailable, StoreReason::Unreachable),
            (Kind::Timeout, StoreReason::TimedOut),
            (Kind::Tls, StoreReason::TlsRefused),
        ] {
            let error = Error::for_tests(Operation::Put, kind);

            assert_eq!(Trouble::of(Identity::Writer, &error).reason, reason);
        }
    }

    #[test]
    fn whoever_is_refused_is_named() {
        let trouble = Trouble::of(Identity::Janitor, &Error::for_tests(Operation::Delete, Kind::Denied));

        assert!(
            trouble.message.starts_with("the janitor is refused: failed to delete"),
            "{}",
            trouble.message
        );
    }

    #[test]
    fn each_way_of_not_being_greeted_has_its_reason() {
        let source = || io::Error::other("no");
        let (host, address) = (String::from("h"), String::from("h:443"));

        let of = |error: GreetingError| Trouble::of_greeting(&error).reason;

        assert_eq!(of(GreetingError::Tls { host, source: source() }), StoreReason::TlsRefused);
        assert_eq!(of(GreetingError::TimedOut { address: address.clone() }), StoreReason::TimedOut);
        assert_eq!(of(GreetingError::Connect { address, source: source() }), StoreReason::Unreachable);
    }
}
