//! The tokens that are not accepted any more, as this gateway knows them: what a handshake asks costs no question to anybody.
//!
//! A revoked user's tokens are those that were issued until then (`iat`); one that does not say when it was issued counts as
//! such. So who logs in again, and gets another token, comes in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;

use super::{Revocation, Whom};
use crate::auth::{AuthError, Identity};

/// Most revocations that a fleet keeps; the oldest give way.
pub const MOST_REVOCATIONS: u32 = 65_536;
/// Longest that one may last, in seconds.
pub const LONGEST: u64 = 400 * 86_400;

type Known<V> = HashMap<Arc<str>, V, ahash::RandomState>;

#[derive(Debug, Default)]
struct Table {
    /// When each ends.
    tokens: Known<u64>,
    /// When each was revoked, and when that ends.
    users: Known<(u64, u64)>,
}

/// The revocations that have not ended.
#[derive(Debug, Default)]
pub struct Revocations {
    table: RwLock<Table>,
    loaded: AtomicBool,
}

impl Revocations {
    /// What is kept was read.
    pub fn set_loaded(&self) {
        self.loaded.store(true, Relaxed);
    }

    /// Whether what is kept was ever read.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Relaxed)
    }

    /// Remembers one; false when it is known already, or has ended. `now` is in seconds since 1970-01-01 UTC.
    pub fn insert(&self, revocation: &Revocation, now: u64) -> bool {
        if revocation.until <= now {
            return false;
        }
        let mut table = self.table.write();
        if table.tokens.len() + table.users.len() >= MOST_REVOCATIONS as usize {
            table.tokens.retain(|_, until| *until > now);
            table.users.retain(|_, (_, until)| *until > now);
        }
        match &revocation.whom {
            Whom::Token(token) => {
                let until = table.tokens.entry(Arc::clone(token)).or_default();
                let news = revocation.until > *until;
                *until = revocation.until.max(*until);
                news
            }
            Whom::User(user) => {
                let (at, until) = table.users.entry(Arc::clone(user)).or_default();
                let news = revocation.at > *at || revocation.until > *until;
                *at = revocation.at.max(*at);
                *until = revocation.until.max(*until);
                news
            }
            // nobody comes in by the id of a connection
            Whom::Connection(_) => false,
        }
    }

    /// Whether somebody may come in; until the revocations are known, nobody may.
    pub fn check(&self, who: &Identity, now: u64) -> Result<(), AuthError> {
        if !self.is_loaded() {
            return Err(AuthError::RevocationsUnknown);
        }
        let table = self.table.read();
        let token = who.token_id.as_deref().and_then(|id| table.tokens.get(id));
        let token = token.is_some_and(|until| *until > now);
        let user = table.users.get(&who.user_id).is_some_and(|(at, until)| {
            let issued_before = who.issued_at.is_none_or(|issued| issued <= *at);
            *until > now && issued_before
        });
        if token || user {
            return Err(AuthError::Revoked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(token: Option<&str>, issued_at: Option<u64>) -> Identity {
        Identity {
            user_id: "ann".into(),
            expires_at: None,
            grants: None,
            token_id: token.map(Into::into),
            issued_at,
        }
    }

    fn revoked(whom: Whom, at: u64, until: u64) -> Revocations {
        let revocations = Revocations::default();
        revocations.set_loaded();
        let revocation = Revocation { whom, at, until };
        assert!(revocations.insert(&revocation, at), "news");
        assert!(!revocations.insert(&revocation, at), "no news");
        revocations
    }

    #[test]
    fn a_token_is_refused_until_its_revocation_ends() {
        let revocations = revoked(Whom::Token("t".into()), 100, 200);
        let check = |token, now| revocations.check(&who(token, None), now);
        assert_eq!(check(Some("t"), 199), Err(AuthError::Revoked));
        assert_eq!(check(Some("t"), 200), Ok(()));
        assert_eq!((check(Some("u"), 150), check(None, 150)), (Ok(()), Ok(())));
        revocations.insert(
            &Revocation {
                whom: Whom::Token("t".into()),
                at: 110,
                until: 150,
            },
            110,
        );
        assert_eq!(
            check(Some("t"), 199),
            Err(AuthError::Revoked),
            "the longer one counts"
        );
    }

    #[test]
    fn of_a_user_the_tokens_are_refused_that_were_issued_until_then() {
        let revocations = revoked(Whom::User("ann".into()), 100, 200);
        let check = |issued| revocations.check(&who(None, issued), 150);
        assert_eq!(check(Some(100)), Err(AuthError::Revoked));
        assert_eq!(check(Some(101)), Ok(()));
        assert_eq!(check(None), Err(AuthError::Revoked), "it may be an old one");
    }

    #[test]
    fn until_they_are_known_nobody_comes_in() {
        let revocations = Revocations::default();
        assert_eq!(
            revocations.check(&who(None, None), 1),
            Err(AuthError::RevocationsUnknown)
        );
    }
}
