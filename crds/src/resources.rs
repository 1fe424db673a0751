//! CPU and memory of one container.

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CPU and memory of one container.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(self.requests.cpu) || !has(self.limits.cpu) || quantity(self.requests.cpu).compareTo(quantity(self.limits.cpu)) <= 0", "requests.cpu is above limits.cpu"),
    validation = ("!has(self.requests.memory) || !has(self.limits.memory) || quantity(self.requests.memory).compareTo(quantity(self.limits.memory)) <= 0", "requests.memory is above limits.memory")
)]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default)]
    pub requests: Amounts,
    /// What the container may not exceed.
    #[serde(default)]
    pub limits: Amounts,
}

/// Amounts of CPU and memory.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Cores, e.g. `500m` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Cores>")]
    pub cpu: Option<Quantity>,
    /// Bytes, e.g. `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Bytes>")]
    pub memory: Option<Quantity>,
}

/// Cores: a number, or thousandths with `m`; above zero.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "names the schema only")]
#[schemars(transparent)]
struct Cores(
    #[schemars(
        length(min = 1, max = 16),
        regex(pattern = r"^([1-9][0-9]*(m|\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9]))$")
    )]
    String,
);

/// Bytes, with a unit; at least a mebibyte in any sensible use.
#[derive(JsonSchema)]
#[allow(dead_code, reason = "names the schema only")]
#[schemars(transparent)]
struct Bytes(
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[1-9][0-9]*(Mi|Gi|Ti|M|G|T)$"))] String,
);

impl Resources {
    /// As a container has them, with `default` where nothing is said.
    pub fn or(&self, default: &Self) -> ResourceRequirements {
        let pick = |own: &Amounts, default: &Amounts| {
            let cpu = own.cpu.clone().or_else(|| default.cpu.clone());
            let memory = own.memory.clone().or_else(|| default.memory.clone());
            let named = [("cpu", cpu), ("memory", memory)];
            named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
        };
        // A limit below the default request would be refused: what is stated alone stands for both.
        let requests = Amounts {
            cpu: self.requests.cpu.clone().or_else(|| self.limits.cpu.clone()),
            memory: self.requests.memory.clone().or_else(|| self.limits.memory.clone()),
        };
        let limits = Amounts {
            cpu: self.limits.cpu.clone().or_else(|| self.requests.cpu.clone()),
            memory: self.limits.memory.clone().or_else(|| self.requests.memory.clone()),
        };
        ResourceRequirements {
            requests: Some(pick(&requests, &default.requests)),
            limits: Some(pick(&limits, &default.limits)),
            ..ResourceRequirements::default()
        }
    }

    /// From cores and bytes that both stand for request and limit of memory, with CPU requested only.
    pub fn of(cpu: &str, cpu_limit: &str, memory: &str, memory_limit: &str) -> Self {
        let amounts = |cpu: &str, memory: &str| Amounts {
            cpu: Some(Quantity(cpu.to_owned())),
            memory: Some(Quantity(memory.to_owned())),
        };
        Self { requests: amounts(cpu, memory), limits: amounts(cpu_limit, memory_limit) }
    }
}
