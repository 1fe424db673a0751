//! Names of what is in a drill's namespace. The key holder and people with a key of their own rely on some.

/// Annotation on a drill's namespace: the archive whose key is asked for.
pub const ARCHIVE_ANNOTATION: &str = "valv.eu/archive";

/// Annotation on a drill's namespace: `<namespace>/<name>` of the `RestoreDrill`.
pub const OBJECT_ANNOTATION: &str = "valv.eu/drill-object";

/// Annotation on a drill's namespace: the persistent volumes that hold what was restored, with commas between them.
pub const VOLUMES_ANNOTATION: &str = "valv.eu/drill-volumes";

/// Name of the Secret with the identity that opens the backup: of the key holder, or of a person.
pub const KEY_SECRET: &str = "drill-key";

/// Key of that Secret.
pub const KEY_FILE: &str = "identity";

/// What the name of a key begins with in the key holder's namespace; the archive follows.
pub const KEY_PREFIX: &str = "drill-key-";

/// Name of the Secret with the reader's credentials.
pub const STORE_SECRET: &str = "drill-store";

/// Name of the ConfigMap with the run files, and what was chosen.
pub const CONFIG: &str = "drill";

/// Name of the Job that restores.
pub const RESTORE: &str = "restore";

/// Name of the Job that judges.
pub const JUDGE: &str = "judge";

/// Name of the role binding that lets the key holder bring a key, and of nothing else.
pub const KEYHOLDER_BINDING: &str = "valv-keyholder";
