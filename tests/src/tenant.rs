//! A tenant, as its users and the platform engineer see it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::Instant;
use valv_crds::condition::{ConditionType, Reason};
use valv_crds::reference::{
    CONFIRM_DELETION_ANNOTATION, NAMESPACE_PREFIX, PAUSED_ANNOTATION, RETAINED_ANNOTATION,
};

use crate::actor::{Actor, Change, Grace};
use crate::eventually::{Seen, eventually};
use crate::journal::JournalClient;
use crate::kind::{self, Kind};
use crate::manifest::Manifest;
use crate::ownership::{MADE, THROWAWAY};
use crate::world::World;

/// No step of a tenant takes longer than this, even when six are made at once on two processors.
pub const STEP: Duration = Duration::from_secs(180);

/// A namespace is emptied pod by pod.
const GONE: Duration = Duration::from_secs(150);

/// A tenant. Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub struct Tenant {
    world: &'static World,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    manifest: Arc<Mutex<Manifest>>,
}

/// A condition, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, for machines.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    generation: i64,
}

impl Tenant {
    /// The tenant `name`, as `yaml` asks for it. Nothing is applied yet.
    pub fn new(world: &'static World, name: &str, yaml: &str) -> Result<Self> {
        let mut manifest = Manifest::new(yaml, name, world.images())?;
        manifest.label(MADE, THROWAWAY);
        Ok(Self {
            world,
            name: name.to_owned(),
            namespace: format!("{NAMESPACE_PREFIX}{name}"),
            manifest: Arc::new(Mutex::new(manifest)),
        })
    }

    /// The same, asked for differently: a part of `spec` as YAML.
    pub fn with(self, spec: &str) -> Result<Self> {
        self.manifest().change(spec)?;
        Ok(self)
    }

    /// The same, with an annotation.
    pub fn annotated(self, name: &str, value: &str) -> Self {
        self.manifest().annotate(name, Some(value));
        self
    }

    /// The same, of which the operator makes nothing: for what needs only the object.
    pub fn paused(self) -> Self {
        self.annotated(PAUSED_ANNOTATION, "")
    }

    fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admin(&self) -> &'static Actor {
        &self.world.admin
    }

    pub(crate) fn world(&self) -> &'static World {
        self.world
    }

    /// The host name that its users type.
    pub fn host(&self) -> String {
        self.manifest().value()["spec"]["host"].as_str().unwrap_or_default().to_owned()
    }

    /// Applies the manifest.
    pub async fn apply(&self) -> Result<()> {
        let manifest = self.manifest().value().clone();
        self.admin().apply(kind::JOURNAL_TENANT, "", &manifest).await.map(drop)
    }

    /// Applies the manifest and waits until the tenant is ready. Returns how long that took.
    pub async fn up(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.apply().await?;
        self.ready().await?;
        Ok(begun.elapsed())
    }

    /// Edits a part of `spec`, given as YAML, and applies the whole.
    pub async fn edit(&self, spec: &str) -> Result<()> {
        self.manifest().change(spec)?;
        self.apply().await
    }

    /// Tries an edit, which is forgotten again if it is refused.
    pub async fn try_edit(&self, spec: &str) -> Result<()> {
        let before = self.manifest().clone();
        let answer = self.edit(spec).await;
        if answer.is_err() {
            *self.manifest() = before;
        }
        answer
    }

    /// Sets an annotation, or takes it away, and applies the whole.
    pub async fn annotate(&self, name: &str, value: Option<&str>) -> Result<()> {
        self.manifest().annotate(name, value);
        self.apply().await
    }

    /// `kubectl delete journaltenant`, without waiting.
    pub async fn delete(&self) -> Result<()> {
        self.admin().delete(kind::JOURNAL_TENANT, "", &self.name, Grace::Usual).await
    }

    /// The object as it stands.
    pub async fn object(&self) -> Result<Value> {
        self.admin().get(kind::JOURNAL_TENANT, "", &self.name).await
    }

    /// A condition; absent if nothing was said of it yet.
    pub async fn condition(&self, kind: ConditionType) -> Result<Option<Condition>> {
        Ok(condition(&self.object().await?, kind))
    }

    /// Waits until a condition has this status and reason, said of the spec as it stands.
    pub async fn says(&self, kind: ConditionType, status: &str, reason: Reason) -> Result<Condition> {
        let wanted = format!("{reason:?}");
        let what = format!("{} says {} {status} {wanted}", self.name, kind.as_str());
        let said = eventually(what, STEP, async || {
            let object = self.object().await?;
            let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
            Ok(match condition(&object, kind) {
                Some(said)
                    if said.status == status && said.reason == wanted && said.generation >= generation =>
                {
                    Seen::Yes(said)
                }
                _ => Seen::NotYet(summary(&object)),
            })
        });
        match said.await {
            Ok(said) => Ok(said),
            Err(error) => bail!("{error:#}\n{}", self.picture().await),
        }
    }

    /// Waits until it is ready, by the spec as it stands.
    pub async fn ready(&self) -> Result<()> {
        self.says(ConditionType::Ready, "True", Reason::AsAsked).await.map(drop)
    }

    /// Waits until a field of the object has a value, by JSON pointer.
    pub async fn shows(&self, pointer: &str, value: &Value) -> Result<()> {
        eventually(format!("{} shows {pointer} {value}", self.name), STEP, async || {
            let object = self.object().await?;
            let shown = object.pointer(pointer).unwrap_or(&Value::Null);
            Ok(Seen::when((shown == value).then_some(()), shown))
        })
        .await
    }

    /// The journal, for somebody who signs in.
    pub async fn journal(&self) -> Result<JournalClient> {
        JournalClient::connect(self).await
    }

    /// An object in its namespace, which is there.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value> {
        self.admin().get(kind, &self.namespace, name).await
    }

    /// An object in its namespace, if it is there.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>> {
        self.admin().find(kind, &self.namespace, name).await
    }

    /// Objects in its namespace, all or those with these labels.
    pub async fn list(&self, kind: Kind, labels: &str) -> Result<Vec<Value>> {
        self.admin().list(kind, &self.namespace, labels).await
    }

    /// Changes an object in its namespace, like somebody who should not.
    pub async fn meddle(&self, kind: Kind, name: &str, change: Change<'_>) -> Result<Value> {
        self.admin().change(kind, &self.namespace, name, change).await
    }

    /// Deletes an object in its namespace, like somebody who should not.
    pub async fn remove(&self, kind: Kind, name: &str) -> Result<()> {
        self.admin().delete(kind, &self.namespace, name, Grace::Usual).await
    }

    /// Waits until an object is in its namespace.
    pub async fn is_there(&self, kind: Kind, name: &str) -> Result<Value> {
        eventually(format!("{} {name} of {} is there", kind.name, self.name), STEP, async || {
            let found = self.find(kind, name).await?;
            Ok(found.map_or(Seen::NotYet("absent".to_owned()), Seen::Yes))
        })
        .await
    }

    /// Waits until another object stands in place of `before`: one of its name, made later.
    pub async fn is_replaced(&self, kind: Kind, before: &Value, deadline: Duration) -> Result<Value> {
        let name = before["metadata"]["name"].as_str().context("every object has a name")?;
        eventually(format!("there is another {} {name}", kind.name), deadline, async || {
            Ok(match self.find(kind, name).await? {
                Some(object) if object["metadata"]["uid"] != before["metadata"]["uid"] => Seen::Yes(object),
                Some(_) => Seen::NotYet("the one before is there".to_owned()),
                None => Seen::NotYet("there is none".to_owned()),
            })
        })
        .await
    }

    /// Its pods that play a role: `journal`, `database` ….
    pub async fn pods(&self, role: &str) -> Result<Vec<Value>> {
        self.list(kind::POD, &format!("valv.eu/role={role},valv.eu/serving=true")).await
    }

    /// A value of a Secret in its namespace, as text.
    pub async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let secret = self.get(kind::SECRET, name).await?;
        let value = secret["data"][key].as_str().with_context(|| format!("Secret {name} has no {key}"))?;
        Ok(String::from_utf8(base64(value)?)?)
    }

    /// Creates a Secret in its namespace, once that is there.
    pub async fn bring_secret(&self, name: &str, data: &[(&str, &str)]) -> Result<()> {
        self.namespace_is_there().await?;
        let data: serde_json::Map<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": data,
        });
        self.admin().create(kind::SECRET, &self.namespace, secret).await.map(drop)
    }

    /// Waits until its namespace is there.
    pub async fn namespace_is_there(&self) -> Result<()> {
        eventually(format!("the namespace {} is there", self.namespace), STEP, async || {
            let found = self.admin().find(kind::NAMESPACE, "", &self.namespace).await?;
            Ok(Seen::when(found.map(drop), "absent"))
        })
        .await
    }

    /// Waits until the object is gone. Returns how long that took.
    pub async fn is_gone(&self) -> Result<Duration> {
        let begun = Instant::now();
        eventually(format!("the tenant {} is gone", self.name), GONE, async || {
            let found = self.admin().find(kind::JOURNAL_TENANT, "", &self.name).await?;
            Ok(found.map_or(Seen::Yes(()), |object| Seen::NotYet(summary(&object))))
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Waits until its namespace is gone, with all that was in it. Returns how long that took.
    pub async fn namespace_is_gone(&self) -> Result<Duration> {
        let begun = Instant::now();
        eventually(format!("the namespace {} is gone", self.namespace), GONE, async || {
            let found = self.admin().find(kind::NAMESPACE, "", &self.namespace).await?;
            Ok(found.map_or(Seen::Yes(()), |namespace| {
                let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let said: Vec<_> = conditions.iter().filter(|said| said["status"] == "True").collect();
                Seen::NotYet(format!("{} {said:?}", namespace["status"]["phase"]))
            }))
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Takes away all of it, whatever it is like now, and waits until nothing is left.
    pub async fn destroy(&self) -> Result<()> {
        self.let_go().await?;
        self.is_gone().await?;
        self.namespace_is_gone().await.map(drop)
    }

    /// Has all of it deleted, whatever it is like now. From here on it goes by itself.
    pub async fn let_go(&self) -> Result<()> {
        let admin = self.admin();
        if admin.find(kind::JOURNAL_TENANT, "", &self.name).await?.is_some() {
            let annotations = json!({ PAUSED_ANNOTATION: null, CONFIRM_DELETION_ANNOTATION: self.name });
            let change =
                json!({ "metadata": { "annotations": annotations }, "spec": { "deletionPolicy": "Delete" } });
            admin.change(kind::JOURNAL_TENANT, "", &self.name, Change::Merge(&change)).await?;
            return self.delete().await;
        }
        let namespace = admin.find(kind::NAMESPACE, "", &self.namespace).await?;
        let left = namespace.filter(|left| {
            let annotations = &left["metadata"]["annotations"];
            annotations[RETAINED_ANNOTATION].is_string() && left["metadata"]["deletionTimestamp"].is_null()
        });
        if left.is_some() {
            let confirmed =
                json!({ "metadata": { "annotations": { CONFIRM_DELETION_ANNOTATION: self.name } } });
            admin.change(kind::NAMESPACE, "", &self.namespace, Change::Merge(&confirmed)).await?;
            admin.delete(kind::NAMESPACE, "", &self.namespace, Grace::Usual).await?;
        }
        Ok(())
    }

    /// How everything of it stands, for whoever reads why a test failed.
    pub async fn picture(&self) -> String {
        let mut lines = vec![];
        if let Ok(object) = self.object().await {
            lines.push(summary(&object));
        }
        for pod in self.list(kind::POD, "").await.unwrap_or_default() {
            lines.push(pod_line(&pod));
        }
        for event in self.list(kind::EVENT, "").await.unwrap_or_default() {
            if event["type"] == "Warning" {
                lines.push(format!("event {}: {}", event["reason"], event["message"]));
            }
        }
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// Bytes of a value in a Secret.
pub fn base64(text: &str) -> Result<Vec<u8>> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(text))?;
    Ok(bytes.0)
}

fn condition(object: &Value, kind: ConditionType) -> Option<Condition> {
    let conditions = object["status"]["conditions"].as_array()?;
    let said = conditions.iter().find(|condition| condition["type"] == kind.as_str())?;
    let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        generation: said["observedGeneration"].as_i64().unwrap_or_default(),
    })
}

/// What is not as asked, in one line.
fn summary(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let wrong = conditions.iter().filter(|said| said["status"] != "True" || said["reason"] != "AsAsked");
    let wrong: Vec<_> = wrong
        .map(|said| {
            let text = |field: &str| said[field].as_str().unwrap_or_default();
            format!("{} {} {}: {}", text("type"), text("status"), text("reason"), text("message"))
        })
        .collect();
    let generation = &object["metadata"]["generation"];
    let observed = &object["status"]["observedGeneration"];
    format!("generation {generation}, observed {observed}; {}", wrong.join("; "))
}

fn pod_line(pod: &Value) -> String {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let statuses = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let containers: Vec<_> = statuses
        .map(|status| {
            format!(
                "{} ready={} restarts={} {}",
                status["name"], status["ready"], status["restartCount"], status["state"]
            )
        })
        .collect();
    format!("pod {} {} {}", pod["metadata"]["name"], pod["status"]["phase"], containers.join(", "))
}
