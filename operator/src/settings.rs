//! The operator's settings: one YAML file, read once by `main.rs`, checked whole before anything is done.
//!
//! Only `images` must be given; every other setting has a default that is safe, which its documentation states.
//! A setting that nobody knows is refused, not ignored: it may be one that somebody relies on.

use std::{
    collections::BTreeMap, fmt, iter, marker::PhantomData, net::IpAddr, num::NonZeroU32, ops::RangeInclusive,
    str::FromStr, time::Duration,
};

use jiff::{Span, SpanRelativeTo};
use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity as AnyQuantity,
};
use serde::{Deserialize, Deserializer, de};

/// Everything that is the same for all tenants.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// What the operator runs. No default: which image runs is the platform engineer's decision.
    pub images: Images,

    /// When nodes pull images. Default `IfNotPresent`: a registry that is down stops no restart.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,

    /// Storage class of the tenants' volumes. Default: the cluster's own default class.
    #[serde(default)]
    pub storage_class_name: Option<String>,

    /// What the network policies must know of this cluster.
    #[serde(default)]
    pub network: Network,

    /// What all tenants' databases have in common.
    #[serde(default)]
    pub database: Database,

    /// How the operator works.
    #[serde(default)]
    pub reconcile: Reconcile,

    /// The operator's own namespace. Default: that of the pod it runs in; another is refused.
    #[serde(default)]
    pub operator_namespace: String,

    /// The operator's `ServiceAccount`. Default `valv-operator`.
    #[serde(default = "default_service_account")]
    pub service_account: String,

    /// The ClusterRole that the operator binds to itself in each tenant's namespace. Default
    /// `valv-tenant-manager`.
    #[serde(default = "default_tenant_role")]
    pub tenant_role: String,

    /// The ClusterRole that the operator binds to itself in each drill's namespace. Default `valv-drill-manager`.
    #[serde(default = "default_drill_role")]
    pub drill_role: String,

    /// Who brings the keys of unattended drills. Default: nobody, and each drill waits for a person.
    #[serde(default)]
    pub keyholder: Option<Keyholder>,

    /// The certificates inside a tenant's namespace.
    #[serde(default)]
    pub certificates: Certificates,

    /// How backups are taken.
    #[serde(default)]
    pub backups: Backups,

    /// How drills are made.
    #[serde(default)]
    pub drills: Drills,

    /// Where this cluster is: the tenants' own region, in which none of their backups may lie. Default: it is not
    /// said, and no store is refused for its region.
    #[serde(default)]
    pub location: Option<Location>,
}

/// How backups are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backups {
    /// How many run at once, to all stores together. 1 to 1000. Default 16. A store's `limits.concurrentBackups` is
    /// heeded besides.
    pub concurrent: u16,
    /// How many copies of backups to further stores run at once, to all stores together. 1 to 1000. Default 16: 10,000 a
    /// day then, if one takes 138 s. A store's `limits.concurrentBackups` is heeded besides.
    pub concurrent_copies: u16,
}

impl Default for Backups {
    fn default() -> Self {
        Self { concurrent: 16, concurrent_copies: 16 }
    }
}

/// None would be no backups.
const BACKUPS_AT_ONCE: RangeInclusive<u16> = 1..=1000;

/// How drills are made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Drills {
    /// How many work at once, of all tenants together. 1 to 1000. Default 4: each takes the room and the memory of a
    /// tenant. One that waits for its key, or that cannot be torn down, does not count.
    pub concurrent: u16,
    /// Storage class of the volumes that drills restore into, which must delete them with their claims. Default: that of
    /// the tenant.
    pub storage_class_name: Option<String>,
    /// How long a restored journal may take until it answers, with the pull of its image and the start of its
    /// database. Default 15 min.
    #[serde(deserialize_with = "duration")]
    pub journal_limit: Duration,
}

impl Default for Drills {
    fn default() -> Self {
        Self { concurrent: 4, storage_class_name: None, journal_limit: Duration::from_secs(15 * 60) }
    }
}

/// None would be no drills.
const DRILLS_AT_ONCE: RangeInclusive<u16> = 1..=1000;

/// Where a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// The provider's name of the region.
    pub region: String,
    /// What else that region is called: providers give the place of their object store a name of its own. Default: nothing.
    #[serde(default)]
    pub also_named: Vec<String>,
    /// The country, two letters of ISO 3166-1.
    pub country: String,
}

impl Location {
    /// All names of the region.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        iter::once(&self.region).chain(&self.also_named).map(String::as_str)
    }
}

/// Who brings the keys of unattended drills.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keyholder {
    /// Namespace of its pod and of the keys, which the operator cannot read.
    pub namespace: String,
    /// Its `ServiceAccount`.
    pub service_account: String,
    /// The ClusterRole that the operator binds to it in each drill's namespace.
    pub delivery_role: String,
}

/// Full references of the images that the operator runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// The one with the `valv` binary, which agents run.
    pub valv: ImageReference,
    /// `PostgreSQL`, of tenants that name none.
    pub postgres: ImageReference,
    /// The reverse proxy before each journal.
    pub proxy: ImageReference,
}

/// A full image reference: registry, path, and a tag or a digest. `registry.example/valv/valv:0.1.0`.
///
/// The registry must be written: what is left out would be a registry outside the EU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference(String);

impl ImageReference {
    /// The reference as Kubernetes takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageReference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Some((registry, path)) = text.split_once('/') else {
            return Err(Invalid::ImageRegistry(text.to_owned()));
        };
        let is_host = registry.contains('.') || registry.contains(':') || registry == "localhost";
        let last = path.rsplit('/').next().unwrap_or(path);
        let version = last.split_once('@').or_else(|| last.split_once(':'));
        match version {
            _ if !is_host || text.contains(char::is_whitespace) => {
                Err(Invalid::ImageRegistry(text.to_owned()))
            }
            Some((name, version)) if !name.is_empty() && !version.is_empty() => Ok(Self(text.to_owned())),
            Some(_) | None => Err(Invalid::ImageVersion(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_parsed(deserializer)
    }
}

/// When a node pulls an image that it has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ImagePullPolicy {
    /// Never: the registry is asked only for what the node lacks.
    #[default]
    IfNotPresent,
    /// At every start of a container.
    Always,
    /// Not even what the node lacks: for clusters whose nodes are loaded beforehand.
    Never,
}

impl ImagePullPolicy {
    /// The word of the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// What the network policies must know of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Network {
    /// Networks that are this cluster's own: pods, Services, nodes, the cloud's metadata address. They never
    /// count as outside.
    ///
    /// Default: every private, shared and link-local range, so that a cluster which says nothing opens nothing
    /// inside itself. Narrow it where an external system has a private address.
    pub cluster_cidrs: Vec<Cidr>,

    /// The cluster's DNS servers. Default: pods labelled `k8s-app: kube-dns` in `kube-system`.
    pub dns: Pods,

    /// The ingress controllers that may reach tenants' proxies. Default: none, so nobody outside can.
    pub ingress_controllers: Vec<Pods>,

    /// Where the backup stores answer, for the pods that write there and read back. Default: none, so no backup
    /// reaches any.
    pub stores: Vec<Egress>,
}

/// Addresses outside that something may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Which addresses.
    pub cidr: Cidr,
    /// On which TCP ports.
    pub ports: Vec<u16>,
    /// The `BackupStore`s that answer there: a drill reaches them from no other. Default: any may.
    #[serde(default)]
    pub stores: Vec<String>,
}

impl Default for Network {
    fn default() -> Self {
        let private = [
            "10.0.0.0/8",     // RFC 1918
            "172.16.0.0/12",  // RFC 1918
            "192.168.0.0/16", // RFC 1918
            "100.64.0.0/10",  // RFC 6598
            "169.254.0.0/16", // RFC 3927; metadata services
            "fc00::/7",       // RFC 4193
            "fe80::/10",      // RFC 4291
        ];
        Self {
            cluster_cidrs: private.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            dns: Pods {
                namespace: "kube-system".to_owned(),
                pod_labels: BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
            },
            ingress_controllers: vec![],
            stores: vec![],
        }
    }
}

/// Pods of one namespace, by their labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pods {
    /// Their namespace.
    pub namespace: String,
    /// Labels that they all have. At least one: none would mean every pod of the namespace.
    pub pod_labels: BTreeMap<String, String>,
}

/// An IPv4 or IPv6 network, `10.0.0.0/8`. No bits are set beyond the prefix, as `NetworkPolicy` wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many leading bits are the network's.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in it. An address of the other family does not.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && network_of(address, self.prefix) == self.address
    }

    /// Whether they have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::Cidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest || network_of(address, prefix) != address {
            return Err(invalid());
        }
        Ok(Self { address, prefix })
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_parsed(deserializer)
    }
}

/// `address` with all bits after the first `prefix` cleared.
fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or_default();
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or_default();
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

/// What all tenants' databases have in common.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Database {
    /// The user that `PostgreSQL` runs as in its image. Default 999, as in the Debian images; 70 in the Alpine
    /// ones. Never 0.
    pub uid: NonZeroU32,

    /// What a database asks for and may use at most, where a tenant does not say. Default: asks for a tenth of a
    /// CPU and 256 MiB, may use 1 GiB and as much CPU as is free.
    pub resources: Resources,
}

/// The `postgres` user of the Debian images.
/// Source: <https://github.com/docker-library/postgres/blob/master/Dockerfile-debian.template>
const POSTGRES_UID: NonZeroU32 = NonZeroU32::new(999).unwrap();

impl Default for Database {
    fn default() -> Self {
        let quantities = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
        };
        Self {
            uid: POSTGRES_UID,
            resources: Resources {
                requests: quantities(&[("cpu", "100m"), ("memory", "256Mi")]),
                limits: quantities(&[("memory", "1Gi")]),
            },
        }
    }
}

impl Database {
    /// What the database of one tenant asks for: its own word first.
    pub fn resources_of(&self, database: &valv_crds::database::Database) -> ResourceRequirements {
        let own =
            database.resources.clone().unwrap_or_default().or(&valv_crds::resources::Resources::default());
        let default = ResourceRequirements::from(&self.resources);
        let merge = |own: Option<BTreeMap<String, AnyQuantity>>,
                     default: Option<BTreeMap<String, AnyQuantity>>| {
            let mut merged = default.unwrap_or_default();
            merged.extend(own.unwrap_or_default());
            Some(merged)
        };
        ResourceRequirements {
            requests: merge(own.requests, default.requests),
            limits: merge(own.limits, default.limits),
            claims: None,
        }
    }
}

/// Kubernetes' `ResourceRequirements`, whose own type would ignore what is misspelt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What is set aside.
    pub requests: BTreeMap<String, Quantity>,
    /// What may be used at most.
    pub limits: BTreeMap<String, Quantity>,
}

impl From<&Resources> for ResourceRequirements {
    fn from(resources: &Resources) -> Self {
        let any = |quantities: &BTreeMap<String, Quantity>| {
            let pairs = quantities.iter().map(|(name, value)| (name.clone(), AnyQuantity(value.0.clone())));
            Some(pairs.collect::<BTreeMap<_, _>>()).filter(|pairs| !pairs.is_empty())
        };
        Self { requests: any(&resources.requests), limits: any(&resources.limits), claims: None }
    }
}

/// A Kubernetes quantity that is not negative, `250m` or `1Gi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(String);

impl Quantity {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Quantity {
    type Err = Invalid;

    /// # Source
    /// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>, without exponents.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        const SUFFIXES: [&str; 16] =
            ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_ends);
        let starts_with_digit = number.starts_with(|c: char| c.is_ascii_digit());
        if starts_with_digit && number.parse::<f64>().is_ok() && SUFFIXES.contains(&suffix) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::Quantity(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_parsed(deserializer)
    }
}

/// How the operator works.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reconcile {
    /// How many objects of a kind are worked on at once. 1 to 64. Default 8: enough that one slow tenant does
    /// not hold up the others, few enough that the API server does not notice.
    pub concurrency: u16,

    /// How long an object is left alone when nothing about it changed. Default 5 minutes, at least 10 seconds.
    #[serde(deserialize_with = "duration")]
    pub resync: Duration,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { concurrency: 8, resync: Duration::from_secs(5 * 60) }
    }
}

/// None would be no work, and more would be felt by the API server.
const CONCURRENCY: RangeInclusive<u16> = 1..=64;

/// The shortest `reconcile.resync`: below it, the operator would be its own load.
const SHORTEST_RESYNC: Duration = Duration::from_secs(10);

/// The certificates inside a tenant's namespace, between its proxy, its journal and its database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Certificates {
    /// How long a certificate is valid. Default 90 days.
    #[serde(deserialize_with = "duration")]
    pub lifetime: Duration,

    /// How long before its end it is replaced. Default 30 days: a month to notice that it was not.
    #[serde(deserialize_with = "duration")]
    pub renew_before: Duration,

    /// How long the tenant's own authority is valid. Default 3650 days; at least twice `lifetime` and `renewBefore`
    /// together.
    #[serde(deserialize_with = "duration")]
    pub ca_lifetime: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Certificates {
    fn default() -> Self {
        Self { lifetime: 90 * DAY, renew_before: 30 * DAY, ca_lifetime: 3650 * DAY }
    }
}

impl Settings {
    /// The settings in `yaml`, of an operator that runs in `namespace`.
    ///
    /// # Errors
    /// [`Error::Parse`] if a setting is missing, unknown or not what it should be; [`Error::Refused`] if
    /// one is out of bounds, or does not go together with another or with `namespace`. Both name the setting.
    pub fn parse(yaml: &str, namespace: &str) -> Result<Self, Error> {
        let mut settings: Self = serde_yaml::from_str(yaml).map_err(Error::Parse)?;
        if settings.operator_namespace.is_empty() {
            namespace.clone_into(&mut settings.operator_namespace);
        }
        settings.check(namespace)?;
        Ok(settings)
    }

    fn check(&self, namespace: &str) -> Result<(), Error> {
        let Certificates { lifetime, renew_before, ca_lifetime } = self.certificates;
        let names_no_labels = |pods: &Pods| pods.pod_labels.is_empty();
        let refusals = [
            (
                self.operator_namespace != namespace,
                "operatorNamespace is not the namespace that the pod runs in",
            ),
            (renew_before >= lifetime, "certificates.renewBefore is not shorter than certificates.lifetime"),
            (
                ca_lifetime < 2 * (lifetime + renew_before),
                "certificates.caLifetime is shorter than twice certificates.lifetime and renewBefore together, so that an authority would be replaced as soon as it was made",
            ),
            (
                names_no_labels(&self.network.dns),
                "network.dns.podLabels is empty, which would mean every pod",
            ),
            (
                self.network.ingress_controllers.iter().any(names_no_labels),
                "network.ingressControllers has an entry whose podLabels are empty, which would mean every pod",
            ),
            (
                !CONCURRENCY.contains(&self.reconcile.concurrency),
                "reconcile.concurrency is not between 1 and 64",
            ),
            (self.reconcile.resync < SHORTEST_RESYNC, "reconcile.resync is shorter than 10s"),
            (
                !BACKUPS_AT_ONCE.contains(&self.backups.concurrent),
                "backups.concurrent is not between 1 and 1000",
            ),
            (
                !BACKUPS_AT_ONCE.contains(&self.backups.concurrent_copies),
                "backups.concurrentCopies is not between 1 and 1000",
            ),
            (
                !DRILLS_AT_ONCE.contains(&self.drills.concurrent),
                "drills.concurrent is not between 1 and 1000",
            ),
        ];
        match refusals.into_iter().find(|(holds, _)| *holds) {
            Some((_, sentence)) => Err(Error::Refused(sentence)),
            None => Ok(()),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is missing, unknown or not what it should be.
    #[error("failed to read the settings")]
    Parse(#[source] serde_yaml::Error),
    /// A setting is out of bounds, or two do not go together.
    #[error("failed to accept the settings: {0}")]
    Refused(&'static str),
}

/// A text is not what a setting takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An image without its registry.
    #[error("image {0:?} does not name its registry, as registry.example/path:tag does")]
    ImageRegistry(String),
    /// An image without a version.
    #[error("image {0:?} has neither tag nor digest")]
    ImageVersion(String),
    /// Not a network.
    #[error("{0:?} is not a network such as 10.0.0.0/8, with no bits set after its prefix")]
    Cidr(String),
    /// Not a quantity.
    #[error("{0:?} is not a quantity such as 250m or 1Gi")]
    Quantity(String),
    /// Not a length of time.
    #[error("{0:?} is not a length of time such as 5m, 12h or 90d")]
    Length(String),
}

fn default_tenant_role() -> String {
    "valv-tenant-manager".to_owned()
}

fn default_drill_role() -> String {
    "valv-drill-manager".to_owned()
}

fn default_service_account() -> String {
    "valv-operator".to_owned()
}

/// A length of time as people write it: `5m`, `90d`, `1h 30m`. A day has 24 hours; months and years, which have
/// no length, are refused.
struct Length(Duration);

impl FromStr for Length {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let span: Option<Span> = text.parse().ok();
        let length = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let length = length.and_then(|length| Duration::try_from(length).ok());
        let length = length.filter(|length| !length.is_zero());
        length.map(Self).ok_or_else(|| Invalid::Length(text.to_owned()))
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserialize_parsed::<Length, D>(deserializer).map(|Length(duration)| duration)
}

/// Reads a text and parses it *while* it is read: so the error names the setting, where one that is raised
/// afterwards (serde's `try_from`) would name only the group that it is in.
fn deserialize_parsed<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = Invalid>,
    D: Deserializer<'de>,
{
    struct Text<T>(PhantomData<T>);

    impl<T: FromStr<Err = Invalid>> de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    const IMAGES: &str = "
images:
  valv: registry.example/valv/valv:0.1.0
  postgres: registry.example/library/postgres:17
  proxy: registry.example/library/haproxy@sha256:0000
";

    fn parse(more: &str) -> Result<Settings, Error> {
        Settings::parse(&format!("{IMAGES}{more}"), "valv-system")
    }

    fn why_not(more: &str) -> String {
        chain(&parse(more).unwrap_err())
    }

    #[test]
    fn images_alone_are_enough_and_the_rest_is_safe() {
        let settings = parse("").unwrap();

        assert_eq!(settings.images.proxy.as_str(), "registry.example/library/haproxy@sha256:0000");
        assert_eq!(settings.image_pull_policy, ImagePullPolicy::IfNotPresent);
        assert_eq!(settings.storage_class_name, None);
        assert_eq!(settings.network.ingress_controllers, []);
        assert_eq!(settings.network.cluster_cidrs.len(), 7);
        assert_eq!(settings.database.uid.get(), 999);
        assert_eq!(settings.reconcile, Reconcile { concurrency: 8, resync: Duration::from_secs(300) });
        assert_eq!(settings.operator_namespace, "valv-system");
        assert_eq!(settings.service_account, "valv-operator");
        assert_eq!((settings.drill_role.as_str(), settings.keyholder), ("valv-drill-manager", None));
        assert_eq!(settings.certificates, Certificates::default());
        assert_eq!(settings.drills.journal_limit, Duration::from_secs(15 * 60));
    }

    #[test]
    fn every_setting_can_be_set() {
        let settings = parse(
            "
imagePullPolicy: Never
storageClassName: maxiops
network:
  clusterCidrs: [10.244.0.0/16, 'fd00::/48']
  dns: { namespace: dns, podLabels: { app: coredns } }
  ingressControllers:
    - { namespace: ingress, podLabels: { app: traefik } }
database:
  uid: 70
  resources: { requests: { cpu: 250m }, limits: { memory: 2Gi } }
reconcile: { concurrency: 4, resync: 1h 30m }
operatorNamespace: valv-system
serviceAccount: valv
drillRole: drills
keyholder: { namespace: keys, serviceAccount: holder, deliveryRole: delivery }
certificates: { lifetime: 2w, renewBefore: 3d, caLifetime: 365d }
backups: { concurrent: 3, concurrentCopies: 40 }
drills: { concurrent: 9, storageClassName: gone, journalLimit: 40m }
location: { region: se-sto1, alsoNamed: [europe-3], country: SE }
",
        )
        .unwrap();

        assert_eq!((settings.backups.concurrent, settings.backups.concurrent_copies), (3, 40));
        assert_eq!(
            (settings.drills.concurrent, settings.drills.storage_class_name.as_deref()),
            (9, Some("gone"))
        );
        assert_eq!(settings.drills.journal_limit, Duration::from_secs(40 * 60));
        assert_eq!(settings.location.unwrap().names().collect::<Vec<_>>(), ["se-sto1", "europe-3"]);

        assert_eq!(settings.network.cluster_cidrs[1].to_string(), "fd00::/48");
        assert_eq!(settings.network.ingress_controllers[0].namespace, "ingress");
        assert_eq!(settings.reconcile.resync, Duration::from_secs(90 * 60));
        assert_eq!(settings.certificates.lifetime, 14 * DAY);
        assert_eq!(settings.keyholder.unwrap().delivery_role, "delivery");
        let resources = ResourceRequirements::from(&settings.database.resources);
        assert_eq!(resources.limits.unwrap()["memory"].0, "2Gi");
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name_at_every_depth() {
        assert!(why_not("storageClass: fast").contains("unknown field `storageClass`"));
        assert!(why_not("database: { resources: { limit: {} } }").contains("unknown field `limit`"));
    }

    #[test]
    fn a_missing_image_is_named() {
        let error =
            Settings::parse("images: { valv: 'r.example/v:1', proxy: 'r.example/p:1' }", "valv-system");

        let text = chain(&error.unwrap_err());
        assert!(text.contains("images: missing field `postgres`"), "{text}");
    }

    #[test]
    fn a_setting_that_does_not_parse_is_named_with_what_is_wrong() {
        for (yaml, field, what) in [
            ("reconcile: { resync: 5 parsecs }", "reconcile.resync", "not a length of time"),
            ("reconcile: { resync: '0s' }", "reconcile.resync", "not a length of time"),
            ("backups: { concurrent: 0 }", "backups.concurrent", "between 1 and 1000"),
            ("backups: { concurrentCopies: 0 }", "backups.concurrentCopies", "between 1 and 1000"),
            ("drills: { concurrent: 0 }", "drills.concurrent", "between 1 and 1000"),
            ("location: { region: se-sto1 }", "location", "country"),
            ("reconcile: { concurrency: 0 }", "reconcile.concurrency", "between 1 and 64"),
            ("reconcile: { concurrency: many }", "reconcile.concurrency", "u16"),
            ("images2: {}", "images2", "unknown field"),
            ("certificates: { lifetime: 1y }", "certificates.lifetime", "not a length of time"),
            ("certificates: { lifetime: '-3d' }", "certificates.lifetime", "not a length of time"),
            ("network: { clusterCidrs: [10.0.0.1/8] }", "network.clusterCidrs[0]", "not a network"),
            ("network: { clusterCidrs: [10.0.0.0/33] }", "network.clusterCidrs[0]", "not a network"),
            ("database: { uid: 0 }", "database.uid", "nonzero"),
            (
                "database: { resources: { limits: { memory: 1GiB } } }",
                "database.resources.limits",
                "not a quantity",
            ),
            ("imagePullPolicy: Sometimes", "imagePullPolicy", "unknown variant"),
            (
                "network: { ingressControllers: [{ namespace: i, podLabels: {} }] }",
                "network.ingressControllers",
                "every pod",
            ),
        ] {
            let text = why_not(yaml);
            assert!(text.contains(field) && text.contains(what), "{yaml}: {text}");
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        assert!(why_not("certificates: { renewBefore: 90d }").contains("certificates.renewBefore"));
        for length in ["90d", "120d", "239d"] {
            let why = why_not(&format!("certificates: {{ caLifetime: {length} }}"));
            assert!(why.contains("certificates.caLifetime"), "{why}");
        }
        assert!(parse("certificates: { caLifetime: 240d }").is_ok());
        assert!(why_not("operatorNamespace: default").contains("operatorNamespace"));
        assert!(why_not("reconcile: { resync: 1s }").contains("reconcile.resync"));
    }

    #[test]
    fn an_image_without_registry_or_version_is_refused() {
        for image in ["postgres:17", "library/postgres:17", "registry.example/post gres:17"] {
            assert_eq!(image.parse::<ImageReference>(), Err(Invalid::ImageRegistry(image.to_owned())));
        }
        for image in
            ["registry.example/postgres", "registry.example:5000/postgres", "registry.example/postgres:"]
        {
            assert_eq!(image.parse::<ImageReference>(), Err(Invalid::ImageVersion(image.to_owned())));
        }
        for image in ["localhost/valv:dev", "registry.example:5000/valv:1@sha256:00"] {
            assert!(image.parse::<ImageReference>().is_ok(), "{image}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let ten: Cidr = "10.0.0.0/8".parse().unwrap();
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        let ula: Cidr = "fc00::/7".parse().unwrap();

        assert!(ten.contains("10.255.0.1".parse().unwrap()));
        assert!(!ten.contains("11.0.0.1".parse().unwrap()));
        assert!(all.contains("203.0.113.7".parse().unwrap()));
        assert!(!all.contains("::1".parse().unwrap()));
        assert!(ula.contains("fd12::1".parse().unwrap()));
        assert_eq!((ten.address().to_string(), ten.prefix()), ("10.0.0.0".to_owned(), 8));
    }
}
