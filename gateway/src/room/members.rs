//! The local members of a room: a list that is shared while it is written to, and copied only then.

use std::sync::Arc;

use crate::session::Conn;

/// Members in the order of their users' names, those of one user side by side: who is here is known, and told by pages,
/// without anything kept beside the list. One member costs no allocation: most personal streams have one.
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

    /// Where it is, or would be.
    fn place(&self, conn: &Conn) -> Result<usize, usize> {
        self.as_slice()
            .binary_search_by(|member| (&*member.user, member.id).cmp(&(&*conn.user, conn.id)))
    }

    pub(super) fn contains(&self, conn: &Conn) -> bool {
        self.place(conn).is_ok()
    }

    /// Whether another connection of its user is here.
    pub(super) fn has_other_of(&self, conn: &Conn) -> bool {
        let (before, after) = match self.place(conn) {
            Ok(place) => (place.checked_sub(1), place + 1),
            Err(place) => (place.checked_sub(1), place),
        };
        let neighbours = before.into_iter().chain([after]);
        neighbours
            .filter_map(|place| self.as_slice().get(place))
            .any(|member| *member.user == *conn.user)
    }

    /// Those of users behind this one.
    pub(super) fn after(&self, user: Option<&str>) -> &[Arc<Conn>] {
        let all = self.as_slice();
        let from = user.map_or(0, |user| all.partition_point(|member| &*member.user <= user));
        all.get(from..).unwrap_or_default()
    }

    /// Adds one that is not here.
    pub(super) fn insert(&mut self, conn: Arc<Conn>) {
        let place = self.place(&conn).unwrap_or_else(|place| place);
        *self = match std::mem::take(self) {
            Self::None => Self::One(conn),
            Self::One(first) if place == 0 => Self::Many(Arc::new(vec![conn, first])),
            Self::One(first) => Self::Many(Arc::new(vec![first, conn])),
            Self::Many(mut conns) => {
                Arc::make_mut(&mut conns).insert(place, conn);
                Self::Many(conns)
            }
        };
    }

    /// False when it was not here.
    pub(super) fn remove(&mut self, conn: &Conn) -> bool {
        let Ok(place) = self.place(conn) else {
            return false;
        };
        match self {
            Self::Many(conns) if conns.len() > 1 => {
                let conns = Arc::make_mut(conns);
                conns.remove(place);
                if conns.capacity() > 16 && conns.len() < conns.capacity() / 4 {
                    conns.shrink_to(conns.len() * 2);
                }
            }
            _ => *self = Self::None,
        }
        true
    }
}
