//! What the operator knows of the cluster's objects, without a cluster: for unit tests of what reads it.

use kube::{
    Resource,
    core::DeserializeGuard,
    runtime::{
        reflector::{Store, store::Writer},
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// From now on `objects` are there, and no others.
pub fn fill<K>(writer: &mut Writer<DeserializeGuard<K>>, objects: impl IntoIterator<Item = Value>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

/// A store in which `objects` are, for as long as the test lives.
pub fn filled<K>(objects: impl IntoIterator<Item = Value>) -> Store<DeserializeGuard<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + 'static,
{
    let mut writer = Writer::default();
    fill(&mut writer, objects);
    let reader = writer.as_reader();
    // Without who writes, a store says that it is not ready.
    std::mem::forget(writer);
    reader
}
