//! Kinds of objects, by the names that the API has for them.

use kube::core::ApiResource;

/// A kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// As it stands in `kind`.
    pub name: &'static str,
    plural: &'static str,
}

impl Kind {
    const fn of(group: &'static str, name: &'static str, plural: &'static str) -> Self {
        Self { group, version: "v1", name, plural }
    }

    const fn core(name: &'static str, plural: &'static str) -> Self {
        Self::of("", name, plural)
    }

    /// As it stands in `apiVersion`.
    pub fn api_version(self) -> String {
        let Self { group, version, .. } = self;
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    pub(crate) fn resource(self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.name.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// `valv.eu/v1alpha1`.
pub const JOURNAL_TENANT: Kind =
    Kind { group: "valv.eu", version: "v1alpha1", name: "JournalTenant", plural: "journaltenants" };

/// `valv.eu/v1alpha1`.
pub const BACKUP_STORE: Kind =
    Kind { group: "valv.eu", version: "v1alpha1", name: "BackupStore", plural: "backupstores" };

/// `valv.eu/v1alpha1`.
pub const BACKUP_POLICY: Kind =
    Kind { group: "valv.eu", version: "v1alpha1", name: "BackupPolicy", plural: "backuppolicies" };

/// `valv.eu/v1alpha1`.
pub const BACKUP: Kind = Kind { group: "valv.eu", version: "v1alpha1", name: "Backup", plural: "backups" };

/// `valv.eu/v1alpha1`.
pub const RESTORE_DRILL: Kind =
    Kind { group: "valv.eu", version: "v1alpha1", name: "RestoreDrill", plural: "restoredrills" };

/// All of Valv.
pub const OF_VALV: [Kind; 5] = [JOURNAL_TENANT, BACKUP_STORE, BACKUP_POLICY, BACKUP, RESTORE_DRILL];

macro_rules! kinds {
    ($($constant:ident = $kind:expr;)*) => {
        $(#[doc = concat!("`", stringify!($kind), "`.")] pub const $constant: Kind = $kind;)*
    };
}

kinds! {
    CONFIG_MAP = Kind::core("ConfigMap", "configmaps");
    EVENT = Kind::core("Event", "events");
    LIMIT_RANGE = Kind::core("LimitRange", "limitranges");
    NAMESPACE = Kind::core("Namespace", "namespaces");
    NODE = Kind::core("Node", "nodes");
    PERSISTENT_VOLUME = Kind::core("PersistentVolume", "persistentvolumes");
    PERSISTENT_VOLUME_CLAIM = Kind::core("PersistentVolumeClaim", "persistentvolumeclaims");
    POD = Kind::core("Pod", "pods");
    RESOURCE_QUOTA = Kind::core("ResourceQuota", "resourcequotas");
    SECRET = Kind::core("Secret", "secrets");
    SERVICE = Kind::core("Service", "services");
    SERVICE_ACCOUNT = Kind::core("ServiceAccount", "serviceaccounts");
    CONTROLLER_REVISION = Kind::of("apps", "ControllerRevision", "controllerrevisions");
    DEPLOYMENT = Kind::of("apps", "Deployment", "deployments");
    REPLICA_SET = Kind::of("apps", "ReplicaSet", "replicasets");
    STATEFUL_SET = Kind::of("apps", "StatefulSet", "statefulsets");
    JOB = Kind::of("batch", "Job", "jobs");
    LEASE = Kind::of("coordination.k8s.io", "Lease", "leases");
    ENDPOINT_SLICE = Kind::of("discovery.k8s.io", "EndpointSlice", "endpointslices");
    INGRESS_CLASS = Kind::of("networking.k8s.io", "IngressClass", "ingressclasses");
    INGRESS = Kind::of("networking.k8s.io", "Ingress", "ingresses");
    NETWORK_POLICY = Kind::of("networking.k8s.io", "NetworkPolicy", "networkpolicies");
    POD_DISRUPTION_BUDGET = Kind::of("policy", "PodDisruptionBudget", "poddisruptionbudgets");
    CLUSTER_ROLE = Kind::of("rbac.authorization.k8s.io", "ClusterRole", "clusterroles");
    CLUSTER_ROLE_BINDING = Kind::of("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings");
    ROLE = Kind::of("rbac.authorization.k8s.io", "Role", "roles");
    ROLE_BINDING = Kind::of("rbac.authorization.k8s.io", "RoleBinding", "rolebindings");
    STORAGE_CLASS = Kind::of("storage.k8s.io", "StorageClass", "storageclasses");
    SUBJECT_ACCESS_REVIEW = Kind::of("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews");
    SELF_SUBJECT_RULES_REVIEW = Kind::of("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews");
}

/// Kinds of what a tenant's namespace can hold, Secrets apart.
pub const IN_A_NAMESPACE: [Kind; 17] = [
    CONFIG_MAP,
    EVENT,
    LIMIT_RANGE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    RESOURCE_QUOTA,
    SERVICE,
    SERVICE_ACCOUNT,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    JOB,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    ROLE_BINDING,
];
