//! Where a client says that it was, and what it asks for.

use super::*;

#[test]
fn a_client_says_where_it_was() {
    let text = r#"{"type":"join","room":"r","epoch":"e","offset":7}"#;
    let Ok(ClientMessage::Join {
        place: Some(place), ..
    }) = parse(text)
    else {
        panic!("{text}")
    };
    assert_eq!((&*place.epoch, place.offset), ("e", 7));
    let text = r#"{"type":"resume","rooms":[{"room":"a","epoch":"e\u0041","offset":0},{"offset":9007199254740991,"x":1,"epoch":"","room":"b"}],
        "user":{"epoch":"p","offset":3},"id":1}"#;
    let Ok(ClientMessage::Resume {
        rooms,
        user: Some(user),
        id: Some(_),
    }) = parse(text)
    else {
        panic!("{text}")
    };
    let rooms: Vec<_> = rooms
        .iter()
        .map(|room| (&*room.room, &*room.place.epoch, room.place.offset))
        .collect();
    assert_eq!(rooms, [("a", "eA", 0), ("b", "", (1 << 53) - 1)]);
    assert_eq!((&*user.epoch, user.offset), ("p", 3));
    let alone = parse(r#"{"type":"resume","user":{"epoch":"p","offset":3}}"#);
    assert!(matches!(alone, Ok(ClientMessage::Resume { rooms, user: Some(_), .. }) if rooms.is_empty()));
}

#[test]
fn a_client_asks_for_history() {
    let read = parse(r#"{"type":"history","room":"r","limit":50,"before":9,"id":"h"}"#);
    assert!(matches!(
        read,
        Ok(ClientMessage::History {
            limit: 50,
            before: Some(9),
            id: Some(_),
            ..
        })
    ));
    let read = parse(r#"{"type":"history","room":"r","limit":50,"before":null}"#);
    assert!(matches!(
        read,
        Ok(ClientMessage::History {
            before: None,
            id: None,
            ..
        })
    ));
}

#[test]
fn a_client_asks_who_is_in_a_room() {
    let read = parse(r#"{"type":"presence","room":"r","limit":50,"after":"\u0061nn","id":"p"}"#);
    let Ok(ClientMessage::Presence {
        limit: Some(50),
        after: Some(after),
        id: Some(_),
        ..
    }) = read
    else {
        panic!("{read:?}")
    };
    assert_eq!(after, "ann");
    let read = parse(r#"{"type":"presence","room":"r","after":null}"#);
    assert!(matches!(
        read,
        Ok(ClientMessage::Presence {
            limit: None,
            after: None,
            id: None,
            ..
        })
    ));
    let id = raw("7");
    let told = ServerMessage::Presence {
        room: "r",
        users: &["a", "b"],
        count: 9,
        next: Some("b"),
        id: Some(&id),
    };
    let expected = r#"{"type":"presence","room":"r","users":["a","b"],"count":9,"next":"b","id":7}"#;
    assert_eq!(encoded(&told), serde_json::from_str::<Value>(expected).unwrap());
}

#[test]
fn half_a_place_and_what_is_none_are_refused() {
    let table = [
        (
            r#"{"type":"join","room":"r","epoch":"e"}"#,
            ParseError::MissingField("offset"),
        ),
        (
            r#"{"type":"join","room":"r","offset":1}"#,
            ParseError::MissingField("epoch"),
        ),
        (r#"{"type":"resume"}"#, ParseError::MissingField("rooms")),
        (
            r#"{"type":"history","room":"r"}"#,
            ParseError::MissingField("limit"),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), expected, "{text}");
    }
    for (text, field) in [
        (r#"{"type":"join","room":"r","epoch":1,"offset":1}"#, "epoch"),
        (r#"{"type":"join","room":"r","epoch":"e","offset":-1}"#, "offset"),
        (r#"{"type":"join","room":"r","epoch":"e","offset":1.5}"#, "offset"),
        (r#"{"type":"resume","rooms":{}}"#, "rooms"),
        (r#"{"type":"resume","rooms":[{"room":"a"}]}"#, "rooms"),
        (
            r#"{"type":"resume","rooms":[{"room":"","epoch":"e","offset":1}]}"#,
            "room",
        ),
        (r#"{"type":"resume","user":7}"#, "user"),
        (r#"{"type":"history","room":"r","limit":"all"}"#, "limit"),
        (r#"{"type":"history","room":"r","limit":1,"before":-2}"#, "before"),
        (r#"{"type":"presence","room":"r","limit":"all"}"#, "limit"),
        (r#"{"type":"presence","room":"r","after":7}"#, "after"),
    ] {
        assert!(
            matches!(error(text), ParseError::InvalidField(wrong, _) if wrong == field),
            "{text}"
        );
    }
}

#[test]
fn an_id_says_the_same_however_it_is_written() {
    let said = |id: &str| {
        let text = format!(r#"{{"type":"room_message","room":"r","payload":1,"msgId":{id}}}"#);
        let Ok(ClientMessage::RoomMessage { msg_id: Some(id), .. }) = parse(&text) else {
            panic!("{text}")
        };
        id.said().into_owned()
    };
    assert_eq!(said(r#""A\u0042""#), "AB");
    assert_eq!(said("17"), "17");
    assert_eq!(said(r#""17""#), "17");
}

#[test]
fn what_a_client_that_comes_back_is_told() {
    let (payload, id) = (raw(r#"{"text":"hi"}"#), raw("7"));
    let (user_id, server_id, epoch) = ("u", "s", "e");
    let table: &[(ServerMessage<'_>, &str)] = &[
        (
            ServerMessage::Joined {
                room: "r",
                epoch,
                offset: 3,
                recovered: Some(false),
                reason: Some(Lost::TooOld),
            },
            r#"{"type":"joined","room":"r","epoch":"e","offset":3,"recovered":false,"reason":"too_old"}"#,
        ),
        (
            ServerMessage::Resumed {
                epoch,
                offset: 3,
                recovered: true,
                reason: None,
            },
            r#"{"type":"resumed","epoch":"e","offset":3,"recovered":true}"#,
        ),
        (
            ServerMessage::History {
                room: "r",
                epoch,
                offset: 9,
                messages: &[Entry {
                    user_id,
                    payload: &payload,
                    timestamp: 1,
                    server_id,
                    offset: 8,
                }],
                next: Some(8),
                id: Some(&id),
            },
            r#"{"type":"history","room":"r","epoch":"e","offset":9,"next":8,"id":7,"messages":[
                {"userId":"u","payload":{"text":"hi"},"timestamp":1,"serverId":"s","offset":8}]}"#,
        ),
    ];
    for (message, expected) in table {
        let expected = serde_json::from_str::<Value>(expected).unwrap();
        assert_eq!(encoded(message), expected, "{message:?}");
    }
}

#[test]
fn the_welcome_tells_what_to_keep_to_and_where_the_personal_stream_stands() {
    let limits = WelcomeLimits::from(&Limits::default());
    let welcome = ServerMessage::Welcome {
        connection_id: "c",
        user_id: "u",
        server_id: "s",
        ping_interval: 30_000,
        limits,
        resume_window: 300_000,
        position: Standing {
            epoch: "p",
            offset: 4,
        },
        features: &["ack"],
    };
    let expected = r#"{"type":"welcome","connectionId":"c","userId":"u","serverId":"s","pingInterval":30000,
                "limits":{"messageBytes":65536,"roomNameBytes":255,"roomsPerConnection":128,
                "messagesPerSecond":50,"bytesPerSecond":1048576},"resumeWindow":300000,
                "position":{"epoch":"p","offset":4},"features":["ack"]}"#;
    assert_eq!(
        encoded(&welcome),
        serde_json::from_str::<Value>(expected).unwrap()
    );
}
