//! `POST /api/v1/disconnect`, `POST /api/v1/revoke`: done here at once, then ordered of the whole fleet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde::{Deserialize, Serialize};

use super::extract::Body;
use super::message::{self, Addressed, publish};
use super::refusal::{Refusal, Served};
use crate::broker::{BrokerError, StreamKey};
use crate::clock::Clock;
use crate::fleet::{self, Disconnect, LONGEST, Order, Revocation, Whom};
use crate::gateway::Gateway;
use crate::protocol::{CloseCode, CloseReason};
use crate::session::ConnId;

/// Longest reason in bytes (RFC 6455 §5.5).
const REASON_BYTES: usize = 123;
/// Longest id of a token in bytes.
const TOKEN_ID_BYTES: usize = 255;
/// How long a revocation lasts that does not say it, in seconds.
const DEFAULT_REVOCATION: u64 = 30 * 86_400;

/// Whose connections are to be closed, and how.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DisconnectBody {
    user_id: Option<Arc<str>>,
    connection_id: Option<Arc<str>>,
    token_id: Option<Arc<str>>,
    code: Option<u16>,
    reason: Option<Arc<str>>,
}

/// Whose tokens are not to be accepted any more, and for how long.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeBody {
    user_id: Option<Arc<str>>,
    token_id: Option<Arc<str>>,
    until: Option<u64>,
}

/// What is known when the answer is given.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ordered {
    /// Connections that were closed on the gateway that was asked.
    closed_here: usize,
    /// Every other gateway of the fleet is told; false: there is nothing that it could do.
    fleet: bool,
    /// When a revocation ends, in seconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// Closes connections.
pub(super) async fn disconnect(
    State(gateway): State<Arc<Gateway>>,
    Body(body): Body<DisconnectBody>,
) -> Served<Json<Ordered>> {
    let whom = match (body.user_id, body.connection_id, body.token_id) {
        (Some(user), None, None) => Whom::User(message::user("userId", user)?),
        (None, Some(id), None) => Whom::Connection(bounded("connectionId", id)?),
        (None, None, Some(id)) => Whom::Token(bounded("tokenId", id)?),
        _ => {
            return Err(Refusal::Invalid(
                "give one of userId, connectionId, tokenId".into(),
            ));
        }
    };
    let order = Disconnect {
        whom,
        code: code(body.code)?.get(),
        reason: reason(body.reason)?,
        at: Clock::unix_millis(),
    };
    let closed_here = gateway.disconnect(&order);
    // the id of a connection says on which gateway it is
    let ours =
        matches!(&order.whom, Whom::Connection(id) if ConnId::parse(id, &gateway.env.instance).is_some());
    if !ours {
        tell_fleet(
            &gateway,
            fleet::disconnects(),
            &Order::Disconnect(order),
            closed_here,
        )
        .await?;
    }
    Ok(Json(Ordered {
        closed_here,
        fleet: !ours,
        until: None,
    }))
}

/// Lets tokens in no more.
pub(super) async fn revoke(
    State(gateway): State<Arc<Gateway>>,
    Body(body): Body<RevokeBody>,
) -> Served<Json<Ordered>> {
    let whom = match (body.user_id, body.token_id) {
        (Some(user), None) => Whom::User(message::user("userId", user)?),
        (None, Some(id)) => Whom::Token(bounded("tokenId", id)?),
        _ => return Err(Refusal::Invalid("give one of userId, tokenId".into())),
    };
    let at = Clock::unix_seconds();
    let until = body.until.unwrap_or(at + DEFAULT_REVOCATION);
    if until <= at || until > at + LONGEST {
        return Err(Refusal::Invalid(format!(
            "until must lie ahead, by {LONGEST} seconds at most; it is in seconds since 1970-01-01 UTC, as a token's exp"
        )));
    }
    let revocation = Revocation { whom, at, until };
    let closed_here = gateway.revoke(&revocation);
    tell_fleet(
        &gateway,
        fleet::revocations(),
        &Order::Revoke(revocation),
        closed_here,
    )
    .await?;
    Ok(Json(Ordered {
        closed_here,
        fleet: true,
        until: Some(until),
    }))
}

async fn tell_fleet(gateway: &Gateway, stream: StreamKey, order: &Order, closed_here: usize) -> Served<()> {
    let event = order.event(&gateway.env.server_id);
    let event = event.map_err(|error| Refusal::Malformed(error.to_string()))?;
    let outcome = publish(gateway, [(Addressed { stream, event }, None)])
        .await
        .pop();
    match outcome.unwrap_or(Err(BrokerError::Unconfirmed)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::HereOnly(error, closed_here)),
    }
}

fn bounded(what: &str, id: Arc<str>) -> Served<Arc<str>> {
    if (1..=TOKEN_ID_BYTES).contains(&id.len()) {
        return Ok(id);
    }
    Err(Refusal::Invalid(format!(
        "{what} must have 1 to {TOKEN_ID_BYTES} bytes"
    )))
}

/// A code with which a server may close, and that does not mean something else already.
fn code(code: Option<u16>) -> Served<CloseCode> {
    let Some(code) = code else {
        return Ok(CloseReason::Disconnected.code());
    };
    let allowed = matches!(code, 1000 | 1008 | 3000..=4999);
    let code = CloseCode::from_wire(code).filter(|_| allowed);
    code.ok_or_else(|| Refusal::Invalid("code must be 1000, 1008, or 3000 to 4999".into()))
}

fn reason(reason: Option<Arc<str>>) -> Served<Arc<str>> {
    let reason = reason.unwrap_or_else(|| CloseReason::Disconnected.text().into());
    if reason.len() <= REASON_BYTES {
        return Ok(reason);
    }
    Err(Refusal::Invalid(format!(
        "reason must have {REASON_BYTES} bytes at most"
    )))
}
