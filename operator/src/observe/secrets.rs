//! The few Secrets that resources name, read one by one and only now and then: a watch would need the right to read
//! all Secrets of a namespace.
//!
//! Kept in memory: which keys exist, and the value of admin tokens. Values are never logged and have no Debug.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::ObserveError;
use crate::apply::CALL_TIMEOUT;

/// How long a Secret that exists is believed to be as it was.
const KEEP: Duration = Duration::from_mins(5);
/// How long a Secret or key that does not exist is believed to be missing.
pub const RECHECK_MISSING: Duration = Duration::from_secs(5);

/// An admin token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// The token as it goes on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[derive(Clone, Debug, Default)]
struct Entry {
    keys: BTreeSet<String>,
    token: Option<(String, Token)>,
    /// UID of the object that controls the Secret, with which it is deleted.
    owner: Option<String>,
}

/// The cache.
pub struct Secrets {
    client: Client,
    entries: Mutex<HashMap<(String, String), (Instant, Entry)>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// An empty cache.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            entries: Mutex::default(),
        }
    }

    /// Whether the Secret has the key.
    pub async fn has(&self, namespace: &str, name: &str, key: &str) -> Result<bool, ObserveError> {
        let known = self.fresh(namespace, name, |entry| entry.keys.contains(key));
        match known {
            Some(found) => Ok(found),
            None => Ok(self.read(namespace, name, None).await?.keys.contains(key)),
        }
    }

    /// Like [`Secrets::has`], for a Secret that goes with the resource `uid`: one of a resource of the same name that
    /// was deleted is not it, and is about to be collected.
    pub async fn has_its_own(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
        uid: &str,
    ) -> Result<bool, ObserveError> {
        let stays = |entry: &Entry| entry.owner.as_deref().is_none_or(|owner| owner == uid);
        let holds = |entry: &Entry| entry.keys.contains(key) && stays(entry);
        let known = self.fresh(namespace, name, |entry| stays(entry).then(|| holds(entry)));
        match known.flatten() {
            Some(found) => Ok(found),
            None => Ok(holds(&self.read(namespace, name, Some(key)).await?)),
        }
    }

    /// The admin token in that key, if there is one.
    pub async fn token(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Token>, ObserveError> {
        let of = |entry: &Entry| {
            entry
                .token
                .as_ref()
                .filter(|(of, _)| of == key)
                .map(|(_, token)| token.clone())
        };
        // an entry that was read for its keys only has no token yet
        let known = self.fresh(namespace, name, |entry| {
            if entry.keys.contains(key) {
                of(entry).map(Some)
            } else {
                Some(None)
            }
        });
        match known.flatten() {
            Some(token) => Ok(token),
            None => Ok(of(&self.read(namespace, name, Some(key)).await?)),
        }
    }

    /// The Secret has changed, or is suspected to have: read it again at the next question.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.entries
            .lock()
            .remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn fresh<T>(&self, namespace: &str, name: &str, look: impl Fn(&Entry) -> T) -> Option<T> {
        let entries = self.entries.lock();
        let (until, entry) = entries.get(&(namespace.to_owned(), name.to_owned()))?;
        (Instant::now() < *until).then(|| look(entry))
    }

    async fn read(
        &self,
        namespace: &str,
        name: &str,
        token_key: Option<&str>,
    ) -> Result<Entry, ObserveError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = timeout(CALL_TIMEOUT, api.get_opt(name))
            .await
            .map_err(|_| ObserveError::Timeout)??;
        let owner = secret.as_ref().and_then(controller);
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let token = token_key.and_then(|key| {
            let text = std::str::from_utf8(&data.get(key)?.0).ok()?.trim().to_owned();
            Some((key.to_owned(), Token(text.into())))
        });
        let entry = Entry {
            keys: data.into_keys().collect(),
            token,
            owner,
        };
        let keep = if entry.keys.is_empty() {
            RECHECK_MISSING
        } else {
            KEEP
        };
        let mut entries = self.entries.lock();
        entries.retain(|_, (until, _)| Instant::now() < *until);
        entries.insert(
            (namespace.to_owned(), name.to_owned()),
            (Instant::now() + keep, entry.clone()),
        );
        Ok(entry)
    }
}

fn controller(secret: &Secret) -> Option<String> {
    let owners = secret.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.next().map(|owner| owner.uid.clone())
}
