//! The API server's audit log: who wrote what. The policy logs writes only, at the level Metadata, as soon as they are
//! answered, so a write that was answered is in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

/// Why the audit log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is none: only the local cluster writes one.
    #[error("no audit log in {0}: only the local cluster (CLUSTER=local) has one")]
    Missing(PathBuf),
    /// It can't be read.
    #[error("audit log: {0}")]
    Io(#[from] std::io::Error),
    /// A line of it, in the time that was asked for, is no event.
    #[error("audit log: {0}")]
    Format(#[from] serde_json::Error),
}

/// One request that changes something: create, update, patch, delete or deletecollection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// When the API server received it.
    pub at: Timestamp,
    /// Who: `admin`, `system:node:node-1`, `system:serviceaccount:NAMESPACE:NAME`; empty for somebody who was refused as
    /// unknown (401), as a service account is whose namespace is gone.
    pub user: String,
    /// The program.
    pub user_agent: String,
    /// create, update, patch, delete or deletecollection.
    pub verb: String,
    /// Plural resource, with its subresource: `pods`, `websocketclusters/status`.
    pub resource: String,
    /// Namespace, empty for objects that have none.
    pub namespace: String,
    /// Name, empty where the server chose it.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
}

/// Reads what was written since a time.
#[derive(Clone, Debug)]
pub struct AuditLog {
    folder: PathBuf,
}

impl AuditLog {
    pub(super) fn open(folder: &Path) -> Result<Self, AuditError> {
        let log = Self {
            folder: folder.to_owned(),
        };
        if log.files()?.is_empty() {
            Err(AuditError::Missing(log.folder))
        } else {
            Ok(log)
        }
    }

    /// All writes received at or after the time, oldest file first. A line that is no event is an error only among
    /// them: a disk that was full once leaves a torn line for good.
    pub fn writes_since(&self, since: Timestamp) -> Result<Vec<Write>, AuditError> {
        let mut writes = Vec::new();
        let mut reached = false;
        for file in self.files()? {
            for line in BufReader::new(File::open(file)?).lines() {
                let line = line?;
                // the last line may be under way
                if !line.ends_with('}') {
                    continue;
                }
                match serde_json::from_str::<Event>(&line) {
                    Ok(event) => {
                        reached |= event.at >= since;
                        if event.at >= since && event.stage == "ResponseComplete" {
                            writes.push(event.into());
                        }
                    }
                    Err(error) if reached => return Err(error.into()),
                    Err(_) => {}
                }
            }
        }
        Ok(writes)
    }

    /// The log, and what was rotated away of it.
    fn files(&self) -> Result<Vec<PathBuf>, AuditError> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(|_| AuditError::Missing(self.folder.clone()))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with("audit") && path.extension().is_some_and(|e| e == "log") {
                files.push(path);
            }
        }
        // audit-TIME.log sorts before audit.log
        files.sort();
        Ok(files)
    }
}

/// Counts writes by a key: `tally(&writes, |w| format!("{} {}", w.verb, w.resource))`.
pub fn tally(writes: &[Write], key: impl Fn(&Write) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes {
        *counts.entry(key(write)).or_default() += 1;
    }
    counts
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestReceivedTimestamp")]
    at: Timestamp,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for Write {
    fn from(event: Event) -> Self {
        let ObjectRef {
            mut resource,
            subresource,
            namespace,
            name,
        } = event.object_ref;
        if !subresource.is_empty() {
            resource.push('/');
            resource.push_str(&subresource);
        }
        Self {
            at: event.at,
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            resource,
            namespace,
            name,
            code: event.response_status.code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = r#"{"kind":"Event","stage":"ResponseComplete","verb":"update","user":{},"userAgent":"wsfleet-operator/0.1.0","objectRef":{"resource":"leases","namespace":"ns","name":"n"},"responseStatus":{"code":401},"requestReceivedTimestamp":"2026-11-22T06:28:18.125750Z"}"#;

    #[test]
    fn a_request_of_somebody_unknown_is_a_write_without_a_user() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("audit.log"), format!("{REFUSED}\n")).unwrap();
        let writes = AuditLog::open(folder.path())
            .unwrap()
            .writes_since(Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].user.as_str(), writes[0].code), ("", 401));
    }
}
