//! The local members of a room: a list that is shared while it is written to, and copied only then.

use std::sync::Arc;

use crate::session::{Conn, ConnId};

/// Members in no order. One member costs no allocation: most personal streams have one.
#[derive(Clone, Debug, Default)]
pub(super) enum Members {
    #[default]
    None,
    One(Arc<Conn>),
    Many(Arc<Vec<Arc<Conn>>>),
}

impl Members {
    pub(super) fn as_slice(&self) -> &[Arc<Conn>] {
        match self {
            Self::None => &[],
            Self::One(conn) => std::slice::from_ref(conn),
            Self::Many(conns) => conns,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.as_slice().iter().any(|conn| conn.id == id)
    }

    /// Whether another connection of the user is here.
    pub(super) fn has_other_of(&self, user: &str, but: ConnId) -> bool {
        self.as_slice()
            .iter()
            .any(|conn| conn.id != but && *conn.user == *user)
    }

    pub(super) fn push(&mut self, conn: Arc<Conn>) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(conn),
            Self::One(first) => Self::Many(Arc::new(vec![first, conn])),
            Self::Many(mut conns) => {
                Arc::make_mut(&mut conns).push(conn);
                Self::Many(conns)
            }
        };
    }

    /// False when it was not here.
    pub(super) fn remove(&mut self, id: ConnId) -> bool {
        let Some(index) = self.as_slice().iter().position(|conn| conn.id == id) else {
            return false;
        };
        match self {
            Self::Many(conns) if conns.len() > 1 => {
                let conns = Arc::make_mut(conns);
                conns.swap_remove(index);
                if conns.capacity() > 16 && conns.len() < conns.capacity() / 4 {
                    conns.shrink_to(conns.len() * 2);
                }
            }
            _ => *self = Self::None,
        }
        true
    }
}
