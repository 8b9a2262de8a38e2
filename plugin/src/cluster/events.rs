//! Kubernetes Events: notices about an object, where `kubectl describe` shows them.

use super::model::Notice;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use ring::digest::{SHA256, digest};
use serde_json::json;
use std::time::Duration;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// The shortest time between two Events.
const MIN_EVENT_INTERVAL: Duration = Duration::from_millis(100);
/// Events expire after an hour: a lasting problem is reported again after this time.
const REPEAT_INTERVAL: Duration = Duration::from_secs(45 * 60);
/// The limit of notices that are repeated.
const MAX_REMEMBERED_EVENTS: usize = 1024;
/// The limit of characters of an object's name in the name of its Event.
const NAME: usize = 200;
const COMPONENT: &str = "meridian-controller";

/// Writes notices as Events.
pub struct EventRecorder {
    /// The API server.
    pub client: Client,
    /// The notices to write.
    pub notices: mpsc::Receiver<Notice>,
}

impl EventRecorder {
    /// Writes Events until the sender of notices is dropped.
    pub async fn run(mut self) {
        let mut sent: std::collections::VecDeque<(Instant, Notice)> = std::collections::VecDeque::new();
        loop {
            let again = sent.front().map_or_else(|| Instant::now() + REPEAT_INTERVAL, |(at, _)| *at + REPEAT_INTERVAL);
            let notice = tokio::select! {
                notice = self.notices.recv() => notice,
                () = sleep_until(again) => sent.pop_front().map(|(_, notice)| notice),
            };
            let Some(notice) = notice else { return };
            if let Err(error) = self.write(&notice).await {
                tracing::warn!(object = %notice.object, %error, "an Event can't be written");
            }
            if sent.len() == MAX_REMEMBERED_EVENTS {
                sent.pop_front();
            }
            sent.push_back((Instant::now(), notice));
            sleep(MIN_EVENT_INTERVAL).await;
        }
    }

    async fn write(&self, notice: &Notice) -> kube::Result<()> {
        let Some(kind) = notice.object.kind else { return Ok(()) };
        let (group, version, kind, _) = kind.resource();
        let key = &notice.object.key;
        // Events of cluster-scoped objects are in the default namespace.
        let namespace = if key.namespace.is_empty() { "default" } else { &*key.namespace };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = Time(Timestamp::now());
        // A name has at most 253 characters.
        let start: String = key.name.chars().take(NAME).collect();
        let name = format!("{start}.{}", digest_of(notice));
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(if group.is_empty() { version.into() } else { format!("{group}/{version}") }),
                kind: Some(kind.to_owned()),
                name: Some(key.name.to_string()),
                namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
                uid: (!notice.uid.is_empty()).then(|| notice.uid.to_string()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".into()),
            reason: Some(notice.reason.to_owned()),
            message: Some(notice.message.clone()),
            source: Some(EventSource { component: Some(COMPONENT.into()), host: None }),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now.clone()),
            count: Some(1),
            ..Event::default()
        };
        match api.create(&PostParams::default(), &event).await {
            // Every replica writes the same Event under the same name.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patch = json!({ "lastTimestamp": now });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

/// A hash that is the same for the same notice in every replica.
fn digest_of(notice: &Notice) -> String {
    let Notice { object, uid, reason, message } = notice;
    let sum = digest(&SHA256, format!("{object}\n{uid}\n{reason}\n{message}").as_bytes());
    sum.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
