//! How a store fails.

use std::{error::Error as StdError, fmt};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::patience::TooSlow;
use crate::error::chain;

/// One request failed. Says what was asked of which object; its source has the store's own words.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation} {}{key} in bucket {bucket}: {kind}", if key.is_empty() { "all" } else { "" })]
pub struct Error {
    /// What was asked.
    pub operation: Operation,
    /// Of which bucket.
    pub bucket: String,
    /// Of which object: its key below the prefix. Empty: of the bucket as a whole.
    pub key: String,
    /// What came of it.
    pub kind: Kind,
    /// The store's words, or the connection's.
    #[source]
    pub(super) cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `PutObject`.
    Put,
    /// `GetObject`.
    Get,
    /// `HeadObject`.
    Head,
    /// `ListObjectsV2`.
    List,
    /// `ListObjectVersions`.
    ListVersions,
    /// `DeleteObject`.
    Delete,
    /// `PutObjectRetention`.
    Retain,
    /// `GetObjectRetention`.
    Retention,
    /// `GetBucketVersioning`.
    Versioning,
    /// `GetObjectLockConfiguration`.
    ObjectLock,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "look at",
            Self::List => "list",
            Self::ListVersions => "list the versions of",
            Self::Delete => "delete",
            Self::Retain => "extend the retention of",
            Self::Retention => "read the retention of",
            Self::Versioning => "read the versioning of",
            Self::ObjectLock => "read the object lock of",
        })
    }
}

/// What a failed request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no such object, version or bucket.
    NotFound,
    /// The store refuses this identity.
    Denied,
    /// It was to be made only if it is not there, and it is there.
    PreconditionFailed,
    /// A lock keeps it.
    Locked,
    /// The store is full, or its quota.
    Full,
    /// The store's clock and ours differ too much.
    ClockSkew,
    /// The store says that it is busy or broken, or cannot be reached.
    Unavailable,
    /// Too little moved for too long.
    Timeout,
    /// The store's certificate is not to be trusted, or TLS failed otherwise.
    Tls,
    /// Anything else that the store answered.
    Other {
        /// The HTTP status; 0 if there was no answer.
        status: u16,
        /// S3's name for it.
        code: String,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotFound => "it is not there",
            Self::Denied => "the store refuses this identity",
            Self::PreconditionFailed => "it is there already",
            Self::Locked => "a lock keeps it",
            Self::Full => "the store is full",
            Self::ClockSkew => "the store's clock and ours differ too much",
            Self::Unavailable => "the store is not available",
            Self::Timeout => "the store was too slow",
            Self::Tls => "the store's identity could not be verified",
            Self::Other { status, code } => return write!(formatter, "{code} (status {status})"),
        })
    }
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub fn can_retry(&self) -> bool {
        match &self.kind {
            Kind::Unavailable | Kind::Timeout => true,
            Kind::NotFound
            | Kind::Denied
            | Kind::PreconditionFailed
            | Kind::Locked
            | Kind::Full
            | Kind::ClockSkew
            | Kind::Tls
            | Kind::Other { .. } => false,
        }
    }

    /// What the store answered, if it did.
    pub fn reply(&self) -> Option<&Reply> {
        self.cause.as_deref().and_then(|cause| cause.downcast_ref())
    }

    /// An error with this answer.
    #[cfg(test)]
    pub(crate) fn answered_for_tests(kind: Kind, status: u16, code: &str) -> Self {
        let reply = Reply { status, code: code.to_owned(), message: String::new() };
        Self { cause: Some(Box::new(reply)), ..Self::for_tests(Operation::Put, kind) }
    }

    /// An error without a request.
    #[cfg(test)]
    pub(crate) fn for_tests(operation: Operation, kind: Kind) -> Self {
        Self { operation, bucket: "valv".into(), key: "key".into(), kind, cause: None }
    }

    /// Whether it says something about the store's health, and not about this one request.
    pub fn is_of_the_store(&self) -> bool {
        self.can_retry() || self.kind == Kind::Tls
    }
}

/// What the store answered, without the rest of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// S3's name for it; empty if it gave none.
    pub code: String,
    /// For people.
    pub message: String,
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the store answered {} {}: {}", self.status, self.code, self.message)
    }
}

impl StdError for Reply {}

/// Kind and cause of a request that the SDK says failed.
pub(super) fn classify<E>(error: SdkError<E, HttpResponse>) -> (Kind, Option<Box<dyn StdError + Send + Sync>>)
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().unwrap_or_default().to_owned();
            let message = answer.err().message().unwrap_or_default().to_owned();
            let kind = of_answer(status, &code, &message);
            // What was done, and is not understood.
            if (200..300).contains(&status) {
                return (kind, Some(Box::new(answer.into_err())));
            }
            (kind, Some(Box::new(Reply { status, code, message })))
        }
        // An answer that is no S3: a proxy's page, or one that was cut off.
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            let kind = of_answer(status, "", "");
            let kind = if matches!(kind, Kind::Other { .. }) { Kind::Unavailable } else { kind };
            let message = SdkError::<E, HttpResponse>::ResponseError(answer)
                .into_source()
                .map(|source| chain(source.as_ref()))
                .unwrap_or_default();
            let message = format!("an answer that is no S3: {message}");
            (kind, Some(Box::new(Reply { status, code: String::new(), message })))
        }
        SdkError::TimeoutError(_) => (Kind::Timeout, error.into_source().ok()),
        SdkError::DispatchFailure(_) => {
            let cause = error.into_source().ok();
            (of_connection(cause.as_deref()), cause)
        }
        // A request that could not be made, and what the SDK may come to know.
        SdkError::ConstructionFailure(_) | _ => {
            (Kind::Other { status: 0, code: "InvalidRequest".to_owned() }, error.into_source().ok())
        }
    }
}

/// Kind of a failure while a body was read.
pub(super) fn of_connection(cause: Option<&(dyn StdError + Send + Sync + 'static)>) -> Kind {
    let mut cause: Option<&(dyn StdError + 'static)> = cause.map(|cause| cause as _);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return Kind::Tls;
        }
        if error.is::<TooSlow>() {
            return Kind::Timeout;
        }
        // What an I/O error wraps is not among its sources.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map(|wrapped| wrapped as _).or_else(|| error.source());
    }
    Kind::Unavailable
}

/// Kind of an answer.
///
/// # Source
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, and what Ceph, Garage and versitygw
/// answer. An answer to HEAD has no body, hence no code.
fn of_answer(status: u16, code: &str, message: &str) -> Kind {
    let lower = message.to_ascii_lowercase();
    let locked = lower.contains("object lock") || lower.contains("worm");
    match (code, status) {
        ("NoSuchKey" | "NoSuchVersion" | "NoSuchBucket" | "NotFound", _) => Kind::NotFound,
        ("ObjectLocked", _) => Kind::Locked,
        ("AccessDenied" | "InvalidRequest", _) if locked => Kind::Locked,
        ("RequestTimeTooSkewed" | "RequestExpired", _) => Kind::ClockSkew,
        ("QuotaExceeded" | "ServiceQuotaExceeded" | "InsufficientStorage" | "StorageFull", _) | (_, 507) => {
            Kind::Full
        }
        ("XMinioStorageFull", _) => Kind::Full,
        ("SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout" | "BadDigest", _) => {
            Kind::Unavailable
        }
        ("IncompleteBody" | "OperationAborted" | "ConditionalRequestConflict", _) => Kind::Unavailable,
        ("PreconditionFailed", _) | (_, 412) => Kind::PreconditionFailed,
        ("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken", _) => Kind::Denied,
        ("NotImplemented", _) => Kind::Other { status, code: code.to_owned() },
        ("", 404) => Kind::NotFound,
        (_, 401 | 403) => Kind::Denied,
        (_, 408 | 429 | 500..=599) => Kind::Unavailable,
        _ => Kind::Other { status, code: if code.is_empty() { "Unknown" } else { code }.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_real_stores_are_told_apart() {
        let locked = "Access Denied because object protected by object lock.";
        for (status, code, message, kind) in [
            (404, "NoSuchKey", "", Kind::NotFound),
            (404, "", "", Kind::NotFound),
            (403, "AccessDenied", "Access Denied", Kind::Denied),
            (403, "", "", Kind::Denied),
            (403, "AccessDenied", locked, Kind::Locked),
            (403, "RequestTimeTooSkewed", "", Kind::ClockSkew),
            (403, "QuotaExceeded", "", Kind::Full),
            (507, "", "", Kind::Full),
            (412, "PreconditionFailed", "", Kind::PreconditionFailed),
            (503, "SlowDown", "", Kind::Unavailable),
            (500, "InternalError", "", Kind::Unavailable),
            (429, "", "", Kind::Unavailable),
            (400, "BadDigest", "", Kind::Unavailable),
            (501, "NotImplemented", "", Kind::Other { status: 501, code: "NotImplemented".into() }),
            (405, "MethodNotAllowed", "", Kind::Other { status: 405, code: "MethodNotAllowed".into() }),
        ] {
            assert_eq!(of_answer(status, code, message), kind, "{status} {code}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_not_a_busy_store() {
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let connection = std::io::Error::other(std::io::Error::other(refused));

        assert_eq!(of_connection(Some(&connection)), Kind::Tls);
        assert_eq!(of_connection(Some(&std::io::Error::other("reset"))), Kind::Unavailable);
    }

    #[test]
    fn an_error_says_what_was_asked_of_which_object() {
        let error = Error {
            operation: Operation::Head,
            bucket: "valv-hel".into(),
            key: "v1/ada/commits/20260301T020000Z.json".into(),
            kind: Kind::Denied,
            cause: None,
        };

        assert_eq!(
            error.to_string(),
            "failed to look at v1/ada/commits/20260301T020000Z.json in bucket valv-hel: \
             the store refuses this identity",
        );
        assert!(!error.can_retry());
    }
}
