//! Events: what a person should notice, on the object that it happened to.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use tracing::warn;

use crate::{digest, error::chain};

/// Something to notice.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct News {
    /// How it sounds.
    pub tone: Tone,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// How an event sounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tone {
    /// Good to know.
    Normal,
    /// Somebody may have to act.
    Warning,
}

/// Tells `news` of the object. An event that cannot be told is no reason to stop.
pub async fn publish(recorder: &Recorder, of: &ObjectReference, news: Vec<News>) {
    for News { tone, reason, note } in news {
        let event = Event {
            type_: match tone {
                Tone::Normal => EventType::Normal,
                Tone::Warning => EventType::Warning,
            },
            reason,
            // kube's recorder counts an event as the one before it if all but the note are the same, and keeps the
            // first note: this makes another note another event.
            action: format!("Reconcile-{}", &digest::of(note.as_bytes())[..8]),
            note: Some(note.chars().take(1000).collect()),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, of).await {
            warn!(error = chain(&error), "failed to publish an event");
        }
    }
}
