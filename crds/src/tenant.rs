//! `JournalTenant`: one care provider's journal, in a namespace of its own.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::LocalObjectReference,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{Condition, Time},
    },
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    database::{Database, Size},
    journal::Journal,
};

/// One care provider's journal: its server, database, attachments and certificates, in the namespace
/// `journal-<name>`, walled off from all others.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "valv.eu",
    version = "v1alpha1",
    kind = "JournalTenant",
    shortname = "jt",
    category = "valv",
    status = "JournalTenantStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Is all as the spec asks?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "The reason for that"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host", description = "Host name that its users type"),
    printcolumn(name = "Running", type_ = "string", json_path = ".status.journal.image", description = "Image that serves now"),
    printcolumn(name = "PostgreSQL", type_ = "string", json_path = ".status.database.version", description = "Version that runs now", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("a tenant's name has at most 40 characters, so that every name made from it fits Kubernetes' 63"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a tenant's name is a label of RFC 1123: a-z, 0-9 and '-', no dot"),
    validation = Rule::new("!self.metadata.name.matches('[0-9]{6}-?[0-9]{4}')").message("a tenant's name holds no organisation number: a sole trader's is a personnummer")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.archiveID) == has(oldSelf.archiveID) && (!has(self.archiveID) || self.archiveID == oldSelf.archiveID)", "archiveID is immutable: backups lie under it"),
    validation = ("has(self.attachments) || !has(oldSelf.attachments)", "attachments cannot be taken away from a tenant that has them: their volume holds records"),
    validation = ("!has(self.attachments) || !has(oldSelf.attachments) || quantity(self.attachments.size).compareTo(quantity(oldSelf.attachments.size)) >= 0", "attachments.size cannot shrink: a smaller volume could not hold the files; restore into a new tenant")
)]
pub struct JournalTenantSpec {
    /// Name of the care provider as people write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub display_name: Option<String>,

    /// Who the care provider is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub care_provider: Option<CareProvider>,

    /// The journal as a medical device, for the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medical_device: Option<MedicalDevice>,

    /// Under which name its backups lie; absent: the tenant's name. Immutable; survives re-creation and
    /// another cluster.
    #[serde(default, rename = "archiveID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub archive_id: Option<String>,

    /// Host name that users type. No two tenants have the same: the older keeps it.
    #[schemars(
        length(min = 4, max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    pub host: String,

    /// How its users reach it. Absent: a node port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,

    /// The journal system.
    pub journal: Journal,

    /// The volume for attachments. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Attachments>,

    /// The database.
    pub database: Database,

    /// Certificates of journal and database. Absent: from a certificate authority of the tenant's own.
    #[serde(default)]
    pub certificates: Certificates,

    /// What becomes of the data when the tenant is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Scales journal and database to zero; the data are kept.
    #[serde(default)]
    pub suspended: bool,
}

/// Who the care provider is. A sole trader's organisation number is a personnummer: it stands in no name,
/// label, metric, log or event.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CareProvider {
    /// Swedish organisation number, `NNNNNN-NNNN`, with its check digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 11, max = 11), regex(pattern = r"^[0-9]{6}-[0-9]{4}$"))]
    #[x_kube(validation = ("!self.matches('^[0-9]{6}-[0-9]{4}$') || ([0, 2, 4, 7, 9].map(i, int('0246813579'.charAt(int(self.charAt(i))))).sum() + [1, 3, 5, 8, 10].map(i, int(self.charAt(i))).sum()) % 10 == 0", "organisationNumber has a wrong check digit"))]
    pub organisation_number: Option<String>,

    /// HSA-id of the care provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 31), regex(pattern = r"^SE[0-9]{10}-[A-Z0-9]{1,18}$"))]
    pub hsa_id: Option<String>,
}

/// How the journal is registered as a medical device.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MedicalDevice {
    /// Class.
    pub class: DeviceClass,
    /// Version as registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub registered_version: Option<String>,
}

/// Class of a medical device, or Sweden's national medical information system.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeviceClass {
    /// National medical information system (Swedish: NMI).
    #[serde(rename = "NMI")]
    Nmi,
    /// MDR class I.
    I,
    /// MDR class IIa.
    #[serde(rename = "IIa")]
    IIa,
    /// MDR class IIb.
    #[serde(rename = "IIb")]
    IIb,
    /// MDR class III.
    #[serde(rename = "III")]
    III,
}

/// How users reach the journal: one of the three.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.gateway), has(self.ingress), has(self.nodePort)].filter(there, there).size() <= 1", "name one of gateway, ingress and nodePort"))]
pub struct Access {
    /// Through a Gateway of the Gateway API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
    /// Through an ingress controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressRef>,
    /// Through a port of the node on which the journal runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<NodePort>,
}

/// A Gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The one listener to use; absent: all that match the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// An ingress controller.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRef {
    /// Name of its `IngressClass`.
    #[schemars(length(min = 1, max = 253))]
    pub class_name: String,
    /// Annotations that tell the controller to speak TLS to the journal (each controller has its own).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A port of the node.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePort {
    /// The port; absent: one that the cluster picks and the status shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30000, max = 32767))]
    pub port: Option<i32>,
}

/// The volume for attachments.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "attachments.storageClassName is immutable: restore into a new tenant"))]
pub struct Attachments {
    /// Its size. May grow where the storage class can expand, and never shrinks.
    #[schemars(with = "Size")]
    pub size: Quantity,
    /// Where the journal finds it.
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]+$"))]
    pub mount_path: String,
    /// Storage class; absent: the operator's, or the cluster's default. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Whether pods on several nodes may use it at once.
    #[serde(default)]
    pub access_mode: AccessMode,
}

/// Who may use a volume at once. `ReadWriteOncePod` is not among them: a backup reads beside the journal.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AccessMode {
    /// Pods on one node: all the journal's pods then run on one node.
    #[default]
    ReadWriteOnce,
    /// Pods on any node.
    ReadWriteMany,
}

/// Certificates of journal and database.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// Secret in the tenant's namespace with `tls.crt` and `tls.key` for the journal's host, such as
    /// cert-manager writes. Absent: the tenant's own authority signs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_secret_ref: Option<LocalObjectReference>,

    /// Ask for a new authority and new certificates by raising the generation.
    #[serde(default)]
    pub rotation: CertificateRotation,
}

/// Asks for a new authority and new certificates.
#[derive(Clone, Copy, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRotation {
    /// Raise it by one for a new authority. It never goes back.
    #[serde(default = "default_generation")]
    #[schemars(range(min = 1))]
    #[x_kube(validation = ("self >= oldSelf", "certificates.rotation.generation never goes back"))]
    pub generation: i64,
}

impl Default for CertificateRotation {
    fn default() -> Self {
        Self { generation: default_generation() }
    }
}

fn default_generation() -> i64 {
    1
}

/// What becomes of the data when the tenant is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// Namespace, volumes and Secrets stay; a new tenant of the same name takes them over.
    #[default]
    Retain,
    /// All is deleted with the namespace. The API refuses the deletion until the annotation
    /// `valv.eu/confirm-deletion` has the tenant's name.
    Delete,
}

/// What the operator last saw. Written by the operator only.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalTenantStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The tenant's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// Where its users reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// The journal as it runs.
    #[serde(default)]
    pub journal: JournalStatus,

    /// The database as it runs.
    #[serde(default)]
    pub database: DatabaseStatus,

    /// The certificates in use.
    #[serde(default)]
    pub certificates: CertificateStatus,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The journal as it runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    /// Image that serves now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its digest, as the node that runs it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Images whose migration succeeded, oldest first; the last one made the schema what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrated: Vec<String>,
    /// Pods that serve.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Port of the node, where users come in by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// The database as it runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Version as the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Digest of its image, as the node that runs it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// PostgreSQL's identifier of this database: once known, an empty volume is never taken for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Generation of the passwords in use everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_generation: Option<i64>,
}

/// The certificates in use.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Generation of the authority that signed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the journal's ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_not_after: Option<Time>,
    /// When the database's ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_not_after: Option<Time>,
    /// When the authority ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_not_after: Option<Time>,
}
