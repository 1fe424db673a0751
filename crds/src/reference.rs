//! Names that several kinds share: labels, annotations, namespaces.

use schemars::JsonSchema;

/// Name of an object.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "names the schema only")]
#[schemars(transparent)]
pub(crate) struct ObjectName(
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))] String,
);

/// An object in the tenant's namespace.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "names the schema only")]
#[schemars(inline)]
pub(crate) struct ObjectReference {
    /// Its name.
    name: ObjectName,
}

/// Prefix of a tenant's namespace.
pub const NAMESPACE_PREFIX: &str = "journal-";

/// Prefix of the namespace into which a drill restores.
pub const DRILL_NAMESPACE_PREFIX: &str = "drill-";

/// Label on a namespace into which a drill restores, and on all that is in it: the UID of the `RestoreDrill`.
pub const DRILL_LABEL: &str = "valv.eu/drill";

/// Finalizer on a `RestoreDrill`: what it restored is deleted before it goes.
pub const DRILL_FINALIZER: &str = "valv.eu/drill";

/// Label on everything that belongs to a tenant; its value is the tenant's name.
pub const TENANT_LABEL: &str = "valv.eu/tenant";

/// Label on a pod: what part it plays. Network policies select by it.
pub const ROLE_LABEL: &str = "valv.eu/role";

/// Label on a pod that a Service may send traffic to.
pub const SERVING_LABEL: &str = "valv.eu/serving";

/// Label on pods that use a volume which one node can have at once: they run on one node.
pub const ATTACHMENTS_LABEL: &str = "valv.eu/attachments";

/// Annotation on a tenant: while it is there, the operator writes nothing for it.
pub const PAUSED_ANNOTATION: &str = "valv.eu/paused";

/// Annotation on a tenant whose `deletionPolicy` is `Delete`: its value must be the tenant's name before the
/// API lets it be deleted.
pub const CONFIRM_DELETION_ANNOTATION: &str = "valv.eu/confirm-deletion";

/// Annotation on a tenant, or on a `BackupStore` for archives whose tenant is gone: digests of clean-ups that are
/// acknowledged, with commas between. Which digest is asked for stands in the event and in the tenant's status.
pub const ACKNOWLEDGE_DELETION_ANNOTATION: &str = "valv.eu/acknowledge-deletion";

/// Annotation on a tenant: somebody has looked at all tampering that drills found up to this moment, RFC 3339. One that has
/// not come acknowledges nothing.
pub const ACKNOWLEDGE_TAMPERING_ANNOTATION: &str = "valv.eu/acknowledge-tampering";

/// Annotation on a `BackupStore`: holds that end though nobody can take them out of the spec of a tenant that is gone,
/// as `<archive>/<slot>` with commas between.
pub const LIFT_HOLDS_ANNOTATION: &str = "valv.eu/lift-holds";

/// Annotation on a tenant: any new value has its archives looked after soon, instead of at their moment of the day.
pub const LOOK_AFTER_ANNOTATION: &str = "valv.eu/look-after";

/// Annotation on a `Backup` that was made from the catalogue in the bucket: it was run before, and is not run again.
pub const FROM_CATALOGUE_ANNOTATION: &str = "valv.eu/from-catalogue";

/// Annotation on what is kept after its tenant was deleted: when that was.
pub const RETAINED_ANNOTATION: &str = "valv.eu/retained-since";

/// Annotation on an object that the operator applies: digest of its whole opinion.
pub const APPLIED_ANNOTATION: &str = "valv.eu/applied";

/// Annotation on a tenant: run a failed migration again. Any new value runs it once more.
pub const RETRY_MIGRATION_ANNOTATION: &str = "valv.eu/retry-migration";

/// Annotation on a tenant: its value is the image to which the schema is migrated without a backup before.
pub const MIGRATE_WITHOUT_BACKUP_ANNOTATION: &str = "valv.eu/migrate-without-backup";

/// Label on a Secret with the credentials of a store: name of the `BackupStore` that may use it.
pub const STORE_LABEL: &str = "valv.eu/store";

/// Label on a Secret with the credentials of a store: as which identity.
pub const IDENTITY_LABEL: &str = "valv.eu/identity";

/// Annotation on the ConfigMap with the public half of the signing key: the key that it names is lost or withdrawn, and
/// another may take its place. Its value says who decided so and why.
pub const NEW_SIGNING_KEY_ANNOTATION: &str = "valv.eu/new-signing-key";

/// Annotation on a tenant: its value is the id of an archive that another tenant, or another cluster, began, and that
/// this one goes on with.
pub const TAKE_OVER_ARCHIVE_ANNOTATION: &str = "valv.eu/take-over-archive";

/// Label on what was made for a backup: the UID of the `Backup`.
pub const BACKUP_LABEL: &str = "valv.eu/backup";

/// Finalizer on a tenant.
pub const FINALIZER: &str = "valv.eu/tenant";
