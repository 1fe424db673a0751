//! The Job of one copy. Pure.
//!
//! It runs in the operator's namespace, where the credentials of the stores are: they are mounted from the Secrets that
//! the stores name, and copied nowhere.

use kube::ResourceExt;
use serde_json::{Value, json};
use valv_crds::reference::ROLE_LABEL;

use super::check::Copy;
use crate::{
    agent::{copy::Order, run_file},
    archive::commit::ManifestRef,
    digest,
    io::kind::{Key, Kind},
    segmentation::Role,
    settings::Settings,
    store::check::{Identity, Store},
    tenant::objects::{Wanted, container_security, pod, pod_security},
};

/// Label: UID of the `Backup`.
pub const BACKUP_LABEL: &str = "valv.eu/backup";

/// Label: name of the `BackupStore` that is copied to.
pub const STORE_LABEL: &str = "valv.eu/store";

/// Label: number of the attempt.
pub const ATTEMPT_LABEL: &str = "valv.eu/attempt";

/// Annotation, for people: the `Backup`.
const OF_ANNOTATION: &str = "valv.eu/of";

/// Annotation: how much the Job reads back. What the policy asks for when it ends may be something else.
pub const DEPTH_ANNOTATION: &str = "valv.eu/depth";

/// Name of the container.
pub const CONTAINER: &str = "agent";

/// What the name of the pods' ServiceAccount has after the operator's: the chart makes it, without rights.
const ACCOUNT_SUFFIX: &str = "-copy";

/// Nobody: who copies needs no file of anybody's.
const UNPRIVILEGED: i64 = 65_532;

/// Five segments of 16 MiB, and the rest.
const MEMORY: &str = "192Mi";

/// A copy that takes longer is begun anew, and finds what is there.
const DEADLINE_SECONDS: i64 = 24 * 3600;

/// How long a Job that ended stays, for whoever asks what happened.
const KEPT_SECONDS: i64 = 24 * 3600;

/// The Job of attempt `number`, which copies the backup whose manifest in the source is `manifest`.
pub fn job(copy: &Copy, manifest: &ManifestRef, settings: &Settings, number: i32) -> Wanted {
    let (backup, store) = copy.key();
    let short = digest::of_entries([("backup", backup.as_bytes()), ("store", store.as_bytes())]);
    let name = format!("copy-{short}-{number}");
    let labels = json!({
        ROLE_LABEL: Role::Copy.as_str(), BACKUP_LABEL: backup, STORE_LABEL: store,
        ATTEMPT_LABEL: number.to_string(),
    });
    let of = format!("{}/{}", copy.backup.namespace().unwrap_or_default(), copy.backup.name_any());
    let value = json!({
        "apiVersion": Kind::Job.api_version(),
        "kind": Kind::Job.as_str(),
        "metadata": {
            "name": name, "namespace": settings.operator_namespace, "labels": labels,
            "annotations": { OF_ANNOTATION: of, DEPTH_ANNOTATION: copy.depth.to_string() },
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": { "metadata": { "labels": labels }, "spec": pod_spec(copy, manifest, settings) },
        },
    });
    Wanted { key: Key::new(Kind::Job, name), value }
}

fn pod_spec(copy: &Copy, manifest: &ManifestRef, settings: &Settings) -> Value {
    let mounted = [
        ("source-reader", copy.source.secret(Identity::Reader)),
        ("target-reader", copy.target.secret(Identity::Reader)),
        ("target-writer", copy.target.secret(Identity::Writer)),
    ];
    let order = Order {
        archive: copy.archive.clone(),
        slot: copy.slot,
        manifest: manifest.clone(),
        source: spoken_to(copy, &copy.source),
        target: spoken_to(copy, &copy.target),
    };
    let folder = |name: &str| format!("/valv/{name}");
    let mut args = vec!["agent".to_owned(), "copy".to_owned(), format!("--order={}", order.to_argument())];
    args.extend(mounted.iter().map(|(name, _)| format!("--{name}={}", folder(name))));
    args.push(format!("--depth={}", copy.depth));
    let volumes: Vec<_> = mounted
        .iter()
        .map(|(name, secret)| {
            json!({ "name": name, "secret": { "secretName": secret, "defaultMode": 0o440, "items": [
                { "key": "accessKeyID", "path": "accessKeyID" },
                { "key": "secretAccessKey", "path": "secretAccessKey" }] } })
        })
        .collect();
    let mounts: Vec<_> = mounted
        .iter()
        .map(|(name, _)| json!({ "name": name, "mountPath": folder(name), "readOnly": true }))
        .collect();
    let mut spec = pod(None);
    spec["serviceAccountName"] = json!(format!("{}{ACCOUNT_SUFFIX}", settings.service_account));
    spec["restartPolicy"] = json!("Never");
    spec["securityContext"] = pod_security(UNPRIVILEGED, UNPRIVILEGED);
    spec["volumes"] = json!(volumes);
    spec["containers"] = json!([{
        "name": CONTAINER,
        "image": settings.images.valv.as_str(),
        "imagePullPolicy": settings.image_pull_policy.as_str(),
        "args": args,
        "securityContext": container_security(),
        "resources": {
            "requests": { "cpu": "100m", "memory": MEMORY }, "limits": { "cpu": "2", "memory": MEMORY },
        },
        "volumeMounts": mounts,
    }]);
    spec
}

/// A store, as the agent speaks to it.
fn spoken_to(copy: &Copy, store: &Store) -> run_file::Store {
    store.spoken_to(store.share(copy.policy.spec.limits.bytes_per_second), store.lock())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{archive::digest::Blake3, copy::check::tests::copies_for};

    fn job() -> Wanted {
        let copy = copies_for(&["helsinki", "frankfurt"]).remove(0);
        let manifest = ManifestRef {
            key: "v1/ada/data/x/y/manifest.json".to_owned(),
            version: Some(crate::io::bucket::Version::new("v$(X)")),
            size: 2,
            blake3: Blake3::of(b"{}"),
        };
        let settings = "images: {valv: registry.example/valv:1, postgres: registry.example/postgres:17, proxy: registry.example/proxy:1}";
        super::job(&copy, &manifest, &Settings::parse(settings, "valv-system").unwrap(), 2)
    }

    #[test]
    fn the_pod_has_the_three_identities_that_it_needs_and_no_token() {
        let job = job().value;
        let pod = &job["spec"]["template"]["spec"];

        let volumes = pod["volumes"].as_array().unwrap();
        let secrets: Vec<_> = volumes.iter().map(|volume| volume["secret"]["secretName"].clone()).collect();
        // The fixture's two stores name the same Secrets: reader, reader, writer.
        assert_eq!(secrets, ["r", "r", "w"]);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(job["metadata"]["namespace"], "valv-system");
        assert_eq!(job["spec"]["backoffLimit"], 0);
    }

    #[test]
    fn its_arguments_are_understood_by_the_agent_and_hold_nothing_that_kubernetes_replaces() {
        use clap::Parser;

        #[derive(Parser)]
        struct Agent {
            #[command(subcommand)]
            command: crate::agent::Command,
        }
        let job = job();
        let args = job.value["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let args: Vec<String> = serde_json::from_value(args).unwrap();
        assert!(!args.iter().any(|argument| argument.contains("$(")), "{args:?}");

        let Agent { command } = Agent::try_parse_from(&args).unwrap();

        let crate::agent::Command::Copy(copy) = command else { panic!("{command:?}") };
        assert_eq!(copy.order.target.name, "frankfurt");
        assert_eq!(copy.order.manifest.version.unwrap().as_str(), "v$(X)");
    }

    #[test]
    fn its_name_is_the_same_at_every_look_and_another_for_each_attempt() {
        assert_eq!(job().key, job().key);
        assert!(job().key.name.starts_with("copy-") && job().key.name.ends_with("-2"));
    }
}
