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
    protection::{Protection, ProtectionStatus},
    reference::{ObjectName, ObjectReference},
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
    cel,
    status = "JournalTenantStatus",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Is all as the spec asks?"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "The reason for that"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host", description = "Host name that its users type"),
    printcolumn(name = "Running", type_ = "string", json_path = ".status.journal.image", description = "Image that serves now"),
    printcolumn(name = "Backed up", type_ = "string", json_path = ".status.conditions[?(@.type=='BackedUp')].status", description = "Is its newest complete backup young enough?"),
    printcolumn(name = "Last backup", type_ = "date", json_path = ".status.backup.lastBackup.taken", description = "The moment that it holds"),
    printcolumn(name = "Drilled", type_ = "string", json_path = ".status.conditions[?(@.type=='Drilled')].status", description = "Did its last restore drill pass, in time?", priority = 1),
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
    #[x_kube(validation = ("!self.matches('[0-9]{6}-?[0-9]{4}')", "archiveID holds no organisation number: a sole trader's is a personnummer"))]
    pub archive_id: Option<String>,

    /// Host name that users type. No two tenants have the same: who has it keeps it, else the older gets it.
    #[schemars(
        length(min = 4, max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    #[x_kube(validation = ("!self.matches('[0-9]{6}-?[0-9]{4}')", "host holds no organisation number: a sole trader's is a personnummer"))]
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

    /// How it is backed up. Absent: it is not, and the condition `BackedUp` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Protection>,

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
    #[schemars(with = "ObjectName")]
    pub name: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// The one listener to use; absent: all that match the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub section_name: Option<String>,
}

/// An ingress controller.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRef {
    /// Name of its `IngressClass`.
    #[schemars(with = "ObjectName")]
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
#[x_kube(
    validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "attachments.storageClassName is immutable: restore into a new tenant"),
    validation = ("self.accessMode == oldSelf.accessMode", "attachments.accessMode is immutable: restore into a new tenant"),
    validation = ("!self.mountPath.matches('^/etc/valv(/|$)')", "attachments may not lie below /etc/valv, where Valv puts certificates and credentials"),
    validation = ("quantity(self.size).compareTo(quantity('1Mi')) >= 0", "attachments.size is too small for a volume: give it 1Mi or more")
)]
pub struct Attachments {
    /// Its size. May grow where the storage class can expand, and never shrinks.
    #[schemars(with = "Size")]
    pub size: Quantity,
    /// Where the journal finds it.
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]+$"))]
    pub mount_path: String,
    /// Storage class; absent: the operator's, or the cluster's default. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ObjectName>")]
    pub storage_class_name: Option<String>,
    /// Whether pods on several nodes may use it at once.
    #[serde(default)]
    pub access_mode: AccessMode,

    /// One query whose rows are all attachments that the database names: a path below the folder, and the SHA-256 of
    /// the file in hexadecimal. A drill asks it of the restored database, read-only, and looks for each file.
    /// Absent: nobody can say which there should be, and drills say so.
    #[serde(default, rename = "inventorySQL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 4096))]
    pub inventory_sql: Option<String>,
}

/// Who may use a volume at once. `ReadWriteOncePod` is not among them: a backup reads beside the journal.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AccessMode {
    /// Pods on one node: the journal's and the migration's then all run where the first of them does, and a drain
    /// moves them together.
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
    #[schemars(with = "Option<ObjectReference>")]
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

    /// Where its users reach it, by the host name that it has: another one asked for stands here once it was granted.
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

    /// Its backups, drills and keys. It stays when `spec.backup` is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<ProtectionStatus>,

    /// One entry a type.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The journal as it runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    /// Image that the newest ready pod runs; if none is ready, the one that did last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Digest of what that pod runs, as its node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Images whose migration succeeded, the last 20, oldest first; the last one made the schema what it is.
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

#[cfg(test)]
mod tests {
    use kube::{ResourceExt, core::DeserializeGuard};
    use serde_json::json;

    use super::*;

    fn tenant(spec: &str) -> JournalTenant {
        let smallest = r"
            apiVersion: valv.eu/v1alpha1
            kind: JournalTenant
            metadata: {name: stadskliniken}
            spec:
              host: stadskliniken.journal.example
              journal: {image: 'registry.example/journal:4.2.0'}
              database: {size: 20Gi}
        ";
        let mut value: serde_json::Value = serde_yaml::from_str(smallest).unwrap();
        let changes: serde_json::Value = serde_yaml::from_str(spec).unwrap();
        for (field, change) in changes.as_object().into_iter().flatten() {
            value["spec"][field] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn refusal(before: &str, after: &str) -> String {
        format!("{:?}", tenant(after).validate_cel_update(&tenant(before)).expect_err("it is refused"))
    }

    #[test]
    fn the_smallest_tenant_is_valid_and_its_defaults_are_the_safe_ones() {
        let tenant = tenant("{}");

        assert!(tenant.validate_cel().is_ok(), "{:?}", tenant.validate_cel());
        assert_eq!(tenant.spec.deletion_policy, DeletionPolicy::Retain);
        assert_eq!(tenant.spec.database.application_rights, crate::database::ApplicationRights::DataOnly);
        assert_eq!(tenant.spec.database.password_rotation.generation, 1);
        assert!(!tenant.spec.suspended);
    }

    #[test]
    fn a_volume_that_shrinks_is_refused_with_what_to_do() {
        let said = refusal("database: {size: 20Gi}", "database: {size: 10Gi}");

        assert!(said.contains("cannot shrink"), "{said}");
        assert!(tenant("database: {size: 30Gi}").validate_cel_update(&tenant("{}")).is_ok());
    }

    #[test]
    fn another_archive_is_refused() {
        let said = refusal("archiveID: ada", "archiveID: bo");

        assert!(said.contains("archiveID is immutable"), "{said}");
    }

    #[test]
    fn an_organisation_number_with_a_wrong_check_digit_is_refused() {
        let right = tenant("careProvider: {organisationNumber: '559900-0006'}").validate_cel();
        let wrong = tenant("careProvider: {organisationNumber: '559900-0007'}").validate_cel();

        assert!(right.is_ok(), "{right:?}");
        assert!(format!("{wrong:?}").contains("wrong check digit"), "{wrong:?}");
    }

    #[test]
    fn an_organisation_number_in_host_or_archive_is_refused() {
        for spec in
            ["host: ab-000000-0000.example", "host: ab0000000000.example", "archiveID: ab-000000-0000"]
        {
            let said = format!("{:?}", tenant(spec).validate_cel());

            assert!(said.contains("holds no organisation number"), "{said}");
        }
    }

    #[test]
    fn a_database_of_postgresqls_own_name_is_refused() {
        for name in ["postgres", "template1", "all", "samegroup"] {
            let said =
                format!("{:?}", tenant(&format!("database: {{size: 1Gi, name: {name}}}")).validate_cel());

            assert!(said.contains("one of PostgreSQL's own"), "{said}");
        }
    }

    #[test]
    fn a_volume_that_could_hold_nothing_is_refused() {
        let small = |spec: &str| format!("{:?}", tenant(spec).validate_cel());

        assert!(small("database: {size: 1Ki}").contains("too small for a database"));
        assert!(
            small("attachments: {size: 1Ki, mountPath: /attachments}").contains("too small for a volume")
        );
    }

    #[test]
    fn what_would_lie_over_valvs_own_files_is_refused() {
        for spec in [
            "attachments: {size: 1Gi, mountPath: /etc/valv}",
            "journal: {image: 'r.example/j:1', files: [{mountPath: /etc/valv/tls, secretName: mine}]}",
            "journal: {image: 'r.example/j:1', writableFolders: [/etc/valv/x]}",
        ] {
            let said = format!("{:?}", tenant(spec).validate_cel());

            assert!(said.contains("below /etc/valv"), "{spec}: {said}");
        }
    }

    #[test]
    fn an_external_server_and_a_volume_exclude_each_other() {
        let external =
            "{host: db.example, addresses: [192.0.2.1/32], secretRef: {name: a}, caSecretRef: {name: b}}";
        let both = tenant(&format!("database: {{provider: External, size: 1Gi, external: {external}}}"));
        let none = tenant("database: {provider: External}");
        let right = tenant(&format!("database: {{provider: External, external: {external}}}"));

        assert!(both.validate_cel().is_err());
        assert!(none.validate_cel().is_err());
        assert!(right.validate_cel().is_ok(), "{:?}", right.validate_cel());
    }

    #[test]
    fn a_parameter_that_could_weaken_a_promise_is_refused() {
        let weak = tenant("database: {size: 1Gi, parameters: {fsync: 'off'}}").validate_cel();
        let fine = tenant("database: {size: 1Gi, parameters: {work_mem: 64MB}}").validate_cel();

        assert!(format!("{weak:?}").contains("not among those that may be set"), "{weak:?}");
        assert!(fine.is_ok(), "{fine:?}");
    }

    #[test]
    fn a_tenant_that_cannot_be_read_still_has_its_name() {
        let unreadable = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant", "metadata": { "name": "ada" },
            "spec": { "host": "ada.journal.example", "database": { "provider": "FromANewerVersion" } },
        });

        let guarded: DeserializeGuard<JournalTenant> = serde_json::from_value(unreadable).unwrap();

        assert_eq!(guarded.name_any(), "ada");
        assert!(guarded.0.is_err());
    }

    #[test]
    fn a_field_from_a_newer_operator_does_not_break_this_one() {
        let newer = json!({
            "apiVersion": "valv.eu/v1alpha1", "kind": "JournalTenant", "metadata": { "name": "ada" },
            "spec": {
                "host": "ada.journal.example", "journal": { "image": "registry.example/j:1" },
                "database": { "size": "1Gi" }, "theme": "dark",
            },
        });

        assert!(serde_json::from_value::<JournalTenant>(newer).is_ok());
    }

    #[test]
    fn kubectl_get_answers_the_first_three_questions() {
        use kube::CustomResourceExt;
        let columns = JournalTenant::crd().spec.versions[0].additional_printer_columns.clone().unwrap();
        let shown =
            columns.iter().filter(|column| column.priority.is_none()).map(|column| column.name.as_str());

        assert_eq!(
            shown.collect::<Vec<_>>(),
            ["Ready", "Why", "Host", "Running", "Backed up", "Last backup", "Age"]
        );
    }

    #[test]
    fn conditions_merge_by_type() {
        use kube::CustomResourceExt;
        let crd = serde_json::to_value(JournalTenant::crd()).unwrap();
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions";

        assert_eq!(crd.pointer(path).unwrap()["x-kubernetes-list-type"], "map");
    }
}
