//! `GET /api/v1/users/{user}/connections`: where a user is connected.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;

use super::extract::Named;
use super::message;
use super::refusal::Served;
use crate::broker::Whereabouts;
use crate::gateway::Gateway;

/// A user's connections.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connected {
    user_id: Arc<str>,
    /// `fleet`: all there are; `gateway`: those on the gateway that was asked.
    scope: &'static str,
    connections: Vec<Connection>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    connection_id: Arc<str>,
    server_id: Arc<str>,
}

/// Those in the fleet where it counts them, else those here.
pub(super) async fn connections(
    State(gateway): State<Arc<Gateway>>,
    Named(user): Named<Arc<str>>,
) -> Served<Json<Connected>> {
    let user_id = message::user("the user's id", user)?;
    let counted = gateway.env.connections_per_user.get().is_some();
    let fleet = gateway.broker.whereabouts(&user_id).filter(|_| counted);
    let (scope, mut connections) = match fleet {
        Some(fleet) => ("fleet", fleet.await?.into_iter().map(Connection::from).collect()),
        None => (gateway.own_scope(), here(&gateway, &user_id)),
    };
    connections.sort();
    Ok(Json(Connected {
        user_id,
        scope,
        connections,
    }))
}

fn here(gateway: &Gateway, user: &Arc<str>) -> Vec<Connection> {
    let of = |id: crate::session::ConnId| Connection {
        connection_id: id.text(&gateway.env.instance),
        server_id: Arc::clone(&gateway.env.server_id),
    };
    let devices = gateway.rooms.devices(user);
    devices.into_iter().map(|conn| of(conn.id)).collect()
}

impl From<Whereabouts> for Connection {
    fn from(found: Whereabouts) -> Self {
        Self {
            connection_id: crate::session::ConnId(found.connection).text(&found.instance),
            server_id: found.server_id,
        }
    }
}
