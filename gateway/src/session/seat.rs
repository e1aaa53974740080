//! The place of a connection among those of its user, in the whole fleet.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Conn;
use crate::broker::{Seat, StreamKey};
use crate::gateway::Gateway;
use crate::room::{JoinError, JoinStep, Room};

/// Joins the user's personal stream, if there is a seat.
pub(super) fn join_personal(gateway: &Arc<Gateway>, conn: &Arc<Conn>) -> JoinStep {
    let most = gateway.env.connections_per_user.get();
    let seat = most.and_then(|most| gateway.broker.take_seat(&conn.user, conn.id.0, most));
    match seat {
        Some(seat) => JoinStep::Wait(Box::pin(join_seated(Arc::clone(gateway), Arc::clone(conn), seat))),
        None => join(gateway, conn),
    }
}

fn join(gateway: &Gateway, conn: &Arc<Conn>) -> JoinStep {
    let key = StreamKey::User(Arc::clone(&conn.user));
    gateway.rooms.join(conn, key, &gateway.broker)
}

/// When it is not known whether there is a seat, the gateway's own count decides. Not cancel-safe: poll to completion.
async fn join_seated(
    gateway: Arc<Gateway>,
    conn: Arc<Conn>,
    seat: BoxFuture<'static, Seat>,
) -> Result<Arc<Room>, JoinError> {
    let seat = seat.await;
    if seat == Seat::Full {
        return Err(JoinError::Full);
    }
    let joined = match join(&gateway, &conn) {
        JoinStep::Done(joined) => joined,
        JoinStep::Wait(done) => done.await,
    }?;
    gateway.broker.keep_seat(&conn.user, conn.id.0, seat);
    Ok(joined)
}

/// Frees the seat. At the connection's end it goes behind the leave: until then the connection may be counted anew.
pub(crate) fn give(gateway: &Gateway, conn: &Conn) {
    let counted = gateway.env.connections_per_user.get().is_some();
    // one whose token was refused has no user, and never had a seat
    if counted && !conn.user.is_empty() {
        gateway.broker.give_seat(&conn.user, conn.id.0);
    }
}
