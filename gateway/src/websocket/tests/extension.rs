//! Offers of permessage-deflate, and what is answered.

use crate::websocket::{Deflate, InvalidExtensions};

/// The response's header; `None` when every offer is declined.
fn answer(header: &str) -> Option<String> {
    Deflate::negotiate([header])
        .expect("well formed")
        .map(|agreed| agreed.to_string())
}

const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn what_is_agreed_to_is_one_byte_a_connection() {
    assert_eq!(size_of::<Option<Deflate>>(), 1);
}

#[test]
fn every_way_in_which_clients_offer_is_agreed_to_without_context_on_either_side() {
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=10 ; client_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; client_max_window_bits=\"15\"",
        "x-webkit-deflate-frame, permessage-deflate",
        " , permessage-deflate,",
    ] {
        assert_eq!(answer(offer).as_deref(), Some(PLAIN), "{offer}");
    }
}

#[test]
fn the_window_that_a_client_asks_for_is_kept_to_and_repeated() {
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let agreed = Deflate::negotiate([offer.as_str()]).unwrap().unwrap();
        assert_eq!(agreed.deflate.window_bits(), bits);
        assert_eq!(
            agreed.to_string(),
            format!("{PLAIN}; server_max_window_bits={bits}")
        );
    }
}

#[test]
fn offers_that_rfc_7692_section_7_1_says_to_decline_are_declined() {
    for offer in [
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=+10",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=99999999999999999999",
        "permessage-bzip2",
        "",
    ] {
        assert_eq!(answer(offer), None, "{offer}");
    }
}

#[test]
fn the_first_offer_that_can_be_agreed_to_wins_wherever_it_stands() {
    let fallback = "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12, \
                    permessage-deflate";
    let twelve = format!("{PLAIN}; server_max_window_bits=12");
    assert_eq!(answer(fallback), Some(twelve.clone()));
    let lines = [
        "permessage-deflate; nonsense",
        "other; a=\"b\"",
        "permessage-deflate; server_max_window_bits=12",
    ];
    assert_eq!(Deflate::negotiate(lines).unwrap().unwrap().to_string(), twelve);
}

#[test]
fn a_header_that_is_not_a_list_of_extensions_is_an_error() {
    for header in [
        "permessage-deflate; =10",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; a=\"b c\"",
        "permessage-deflate; a=\"b",
        "; a",
        "two words",
        "permessage-deflate, \u{e9}",
    ] {
        assert_eq!(Deflate::negotiate([header]), Err(InvalidExtensions), "{header}");
    }
}
