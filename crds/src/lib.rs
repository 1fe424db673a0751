//! The API of Valv, group `valv.eu`, version `v1alpha1`: one file a kind.
//!
//! Shape only: defaults, bounds, immutability and the rules between fields are in the schema, so that
//! `kubectl apply` and the operator cannot disagree about what a valid object is.

pub mod condition;
pub mod database;
pub mod journal;
pub mod reference;
pub mod reference_page;
pub mod resources;
pub mod tenant;

pub use condition::{ConditionType, Reason};
pub use tenant::{JournalTenant, JournalTenantSpec, JournalTenantStatus};

/// Group of every kind.
pub const GROUP: &str = "valv.eu";

/// The custom resource definitions, in the order in which they are installed.
pub fn definitions()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![JournalTenant::crd()]
}
