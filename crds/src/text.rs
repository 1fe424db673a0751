//! Strings with rules of their own, each with the sentence that `kubectl apply` shows when it refuses one.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// What S3 clients and people agree a host name, a bucket and a folder look like; what a cron line and a time
/// zone look like. The rules are CEL, not `pattern`, so that a refusal says what is wrong in words. Every one has
/// a length: the apiserver bounds what a rule may cost.
fn checked(longest: u32, rules: &[(&str, &str)]) -> Schema {
    let rules: Vec<_> =
        rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message })).collect();
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "x-kubernetes-validations": rules,
    })
}

/// A list of `one`, each once, at least one and at most `most`.
fn each_once(one: Schema, most: u32, message: &str) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": most,
        "items": one,
        "x-kubernetes-validations": [{
            "rule": "self.all(one, self.exists_one(other, other == one))",
            "message": message,
        }],
    })
}

/// Name of an object: a DNS subdomain of RFC 1123.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

/// Name of a store or a policy: a label of RFC 1123, since it stands in labels and metrics.
pub(crate) fn label_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    })
}

/// Names of stores, each once, at least one and at most eight.
pub(crate) fn store_names(generator: &mut SchemaGenerator) -> Schema {
    each_once(label_name(generator), 8, "a name stands twice")
}

/// `https://host[:port]` and nothing else: what follows the host is Valv's to say.
pub(crate) fn endpoint(_: &mut SchemaGenerator) -> Schema {
    checked(
        300,
        &[
            (
                "self.startsWith('https://')",
                "endpoint is https: credentials and data never travel in the clear",
            ),
            (
                "self.matches('^[a-z]+://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?$')",
                "endpoint is https://host or https://host:port, in lower case: no user, no path, no bucket",
            ),
        ],
    )
}

/// `http(s)://host:port`; a proxy sees ciphertext only, for the endpoint is https.
pub(crate) fn proxy_url(_: &mut SchemaGenerator) -> Schema {
    checked(
        300,
        &[(
            "self.matches('^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?:[1-9][0-9]{0,4}$')",
            "proxy is http://host:port or https://host:port, without user and password",
        )],
    )
}

/// The rules that all S3 servers share.
///
/// # Source
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
pub(crate) fn bucket(_: &mut SchemaGenerator) -> Schema {
    checked(
        63,
        &[
            (
                "self.matches('^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')",
                "bucket has 3 to 63 characters of a-z, 0-9, '-' and '.', and begins and ends with a letter or digit",
            ),
            (
                "!self.contains('..') && !self.matches('^[0-9]+([.][0-9]+){3}$')",
                "bucket has no two dots in a row and does not look like an address",
            ),
            (
                "!self.startsWith('xn--') && !self.endsWith('-s3alias')",
                "bucket does not begin with xn-- nor end with -s3alias: S3 keeps these for itself",
            ),
        ],
    )
}

/// Folders, `a/b/c`: no slash first or last, no empty one, none that begins with a dot.
pub(crate) fn prefix(_: &mut SchemaGenerator) -> Schema {
    checked(
        200,
        &[(
            "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$')",
            "prefix is folders of A-Z, a-z, 0-9, '.', '_' and '-' with '/' between: none at either end, none empty",
        )],
    )
}

/// PEM, one certificate or several, and no key.
pub(crate) fn certificates(_: &mut SchemaGenerator) -> Schema {
    checked(
        65_536,
        &[
            (
                "self.startsWith('-----BEGIN CERTIFICATE-----')",
                "caBundle is certificates in PEM, beginning with -----BEGIN CERTIFICATE-----",
            ),
            (
                "!self.contains('PRIVATE KEY')",
                "caBundle holds a private key: take it out, and make a new one",
            ),
        ],
    )
}

/// ISO 3166-1 alpha-2. Whether it is a country that may be used is the sovereignty policy's to say.
pub(crate) fn country(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 2,
        "x-kubernetes-validations": [
            { "rule": "self.matches('^[A-Z]{2}$')", "message": "country is two capital letters of ISO 3166-1, e.g. FI" },
            {
                "rule": "!(self in ['EL', 'EU', 'UK'])",
                "message": "EL, EU and UK are no countries of ISO 3166-1: Greece is GR, the United Kingdom GB, the Union none",
            },
        ],
    })
}

/// Countries, each once, at most as many as the European Economic Area has.
pub(crate) fn countries(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 30,
        "items": country(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(one, self.exists_one(other, other == one))",
            "message": "a country stands twice",
        }],
    })
}

/// A day, `2026-11-22`.
pub(crate) fn day(_: &mut SchemaGenerator) -> Schema {
    checked(
        10,
        &[(
            "self.matches('^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$')",
            "a day is written year-month-day, e.g. 2026-11-22",
        )],
    )
}

/// A provider's name of a region or a zone.
pub(crate) fn place_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$",
    })
}

/// Names of the provider register, each once.
pub(crate) fn register_names(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": label_name(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(one, self.exists_one(other, other == one))",
            "message": "a name stands twice",
        }],
    })
}

/// A host name, or `*.` and a host name of at least two labels.
pub(crate) fn host_pattern(_: &mut SchemaGenerator) -> Schema {
    checked(
        253,
        &[(
            "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$')",
            "a host is a whole name in lower case, or *. and what the name ends with: a * stands nowhere else",
        )],
    )
}

/// Host names, whole ones, each once. None of the cluster's own.
pub(crate) fn host_names(_: &mut SchemaGenerator) -> Schema {
    let one = checked(
        253,
        &[
            (
                "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+$')",
                "a name is a whole host name in lower case, with a dot in it and none at its end: no *, no address with a port",
            ),
            (
                "!self.matches('^[0-9.]+$')",
                "this is an address: write it under addresses, as a CIDR block such as 203.0.113.7/32",
            ),
            (
                "!self.matches('[.](cluster[.]local|svc|localhost|internal)$')",
                "a name that ends in cluster.local, svc, localhost or internal is within a cluster: nothing outside has it",
            ),
        ],
    );
    each_once(one, 16, "a name stands twice")
}

/// CIDR blocks, each once, none of which is a large part of the Internet. What else is wrong with one only a parser can
/// tell: the operator says it.
pub(crate) fn networks(_: &mut SchemaGenerator) -> Schema {
    let one = checked(
        43,
        &[
            (
                "self.matches('^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-f:.]*:[0-9a-f:.]*)/[0-9]{1,3}$')",
                "an address is a CIDR block, e.g. 203.0.113.7/32 or 2001:db8::7/128: no *, no name",
            ),
            (
                "self.contains(':') ? self.matches('/(4[89]|[5-9][0-9]|1[01][0-9]|12[0-8])$') : self.matches('/(1[6-9]|2[0-9]|3[0-2])$')",
                "a block is of /16 at the widest, of IPv6 of /48: a wider one opens what nobody looked at",
            ),
        ],
    );
    each_once(one, 16, "a block stands twice")
}

/// TCP ports, each once.
pub(crate) fn ports(_: &mut SchemaGenerator) -> Schema {
    let one = json_schema!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65_535 });
    each_once(one, 16, "a port stands twice")
}

/// Countries and unions of them, each once.
pub(crate) fn territories(_: &mut SchemaGenerator) -> Schema {
    let one = checked(
        3,
        &[
            ("self.matches('^([A-Z]{2}|EEA)$')", "two capital letters of ISO 3166-1, e.g. FI, or EU or EEA"),
            (
                "!(self in ['EL', 'UK'])",
                "EL and UK are no countries of ISO 3166-1: Greece is GR, the United Kingdom GB",
            ),
        ],
    );
    each_once(one, 60, "a country stands twice")
}

/// Registries of images, each once.
pub(crate) fn registries(_: &mut SchemaGenerator) -> Schema {
    let one = checked(
        253,
        &[(
            "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[1-9][0-9]{0,4})?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)*$')",
            "a registry is host, host:port, or either with folders after it; no scheme, no *",
        )],
    );
    each_once(one, 32, "a registry stands twice")
}

/// What an exception is for: a kind and a name.
pub(crate) fn subject(_: &mut SchemaGenerator) -> Schema {
    checked(
        300,
        &[(
            "self.matches('^(store|image|node|class|tenant|provider|passage|system)/.+$')",
            "subject is store/, image/, node/, class/, tenant/, provider/, passage/ or system/ and a name",
        )],
    )
}

/// Five fields of cron: minute, hour, day of month, month, day of week. Numbers, names, `*`, `-`, `,`, `/`.
pub(crate) fn cron(_: &mut SchemaGenerator) -> Schema {
    let field = |one: &str| {
        let item = format!("([*](/[1-9][0-9]?)?|{one}(-{one}(/[1-9][0-9]?)?)?)");
        format!("{item}(,{item})*")
    };
    let fields = [
        field("[0-5]?[0-9]"),
        field("([01]?[0-9]|2[0-3])"),
        field("(0?[1-9]|[12][0-9]|3[01])"),
        field("(0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)"),
        field("([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)"),
    ];
    let rule = format!("self.matches('^{}$')", fields.join(" "));
    checked(
        128,
        &[(
            &rule,
            "cron has five fields with one space between: minute, hour, day of month, month, day of week; e.g. '0 1 * * *'",
        )],
    )
}

/// A name of the IANA time zone database.
pub(crate) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    checked(
        64,
        &[(
            "self == 'UTC' || self.matches('^[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]*){1,2}$')",
            "timeZone is a name of the IANA database such as Europe/Stockholm, or UTC: an abbreviation knows no summer time",
        )],
    )
}

/// An age X25519 recipient: a public key.
///
/// # Source
/// <https://age-encryption.org/v1>, "X25519": Bech32, human-readable part `age`, 32 bytes.
pub(crate) fn recipient(_: &mut SchemaGenerator) -> Schema {
    checked(
        62,
        &[
            (
                "!self.startsWith('AGE-SECRET-KEY-')",
                "this is an identity, the secret half: give the recipient, age1…, and make a new pair",
            ),
            (
                "self.matches('^age1[02-9ac-hj-np-z]{58}$')",
                "a recipient is an age X25519 public key, age1 and 58 characters",
            ),
        ],
    )
}

/// A slot, `20261122T010000Z`.
pub(crate) const SLOT_PATTERN: &str = "^[0-9]{8}T[0-9]{6}Z$";
