//! The kubelet.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cgroup::Layout;
use crate::network::DNS_SERVICE;
use crate::part::Part;
use crate::parts::Site;

/// The kubelet of this node.
pub fn kubelet(site: &Site) -> Result<Part> {
    let config = site.folder.write("etc/kubelet.yaml", &serde_yaml::to_string(&config(site)?)?)?;
    let kubeconfig = site.folder.pki().kubeconfig(&format!("kubelet-{}", site.name()));
    let mut command = site.command("kubelet")?;
    command.arg(format!("--config={}", config.display()));
    command.arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.args([format!("--hostname-override={}", site.name()), format!("--node-ip={}", site.address())]);
    command.arg(format!("--root-dir={}", site.folder.path("kubelet").display()));
    command.arg(format!("--cert-dir={}", site.folder.path("kubelet/pki").display()));
    command.arg("--v=2");
    Ok(Part { name: "kubelet", command })
}

fn config(site: &Site) -> Result<Value> {
    let pki = site.folder.pki();
    // Empty: the host's resolver is not the pods'.
    let resolver = site.folder.write("etc/resolv.conf", "")?;
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": site.address(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.file(&format!("kubelet-server-{}.crt", site.name())),
        "tlsPrivateKeyFile": pki.file(&format!("kubelet-server-{}.key", site.name())),
        "containerRuntimeEndpoint": format!("unix://{}", site.folder.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": Layout::detect()?.kubelet_root(&site.name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "maxPods": 110,
        "makeIPTablesUtilChains": false,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": resolver,
        "podLogsDir": site.folder.path("log/pods"),
        "volumePluginDir": site.folder.path("kubelet/plugins"),
        // An image that is collected cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        "serializeImagePulls": true,
        // Changed Secrets and ConfigMaps are in their pods within seconds.
        "syncFrequency": "10s",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
        "registerNode": true,
    }))
}
