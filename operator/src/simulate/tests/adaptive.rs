//! `drain.adaptive` at scale: gateways that take few handshakes are not run over by those who come back.

use serde_json::json;

use super::{assert_kept, cluster};
use crate::simulate::scenario::{Run, Scenario, run};
use crate::simulate::settings::Settings;
use crate::simulate::time::SECOND;

/// Ten gateways become six; those that stay take 180 handshakes a second together, the budget would close 500.
fn scale_in(adaptive: bool) -> Run {
    let spec = json!({
        "replicas": 10,
        "gateway": {"capacity": {"maxConnections": 20_000, "maxHandshakesPerSecond": 30}},
        "drain": {"adaptive": adaptive, "passiveSeconds": {"scaleDown": 0}, "timeoutSeconds": 3_600, "maxConcurrent": "100%"},
    });
    let settings = Settings {
        clients: 50_000,
        nodes: 5,
        ..Settings::default()
    };
    let run = run(cluster(&spec), Scenario::ScaleIn, Some(6), settings).unwrap();
    assert_kept(&run.world);
    run
}

#[test]
fn a_drain_closes_no_faster_than_clients_get_in_again() {
    let [full, adaptive] = [false, true].map(scale_in);
    for (name, run) in [("full rate", &full), ("adaptive", &adaptive)] {
        let took = run.took.unwrap() / SECOND;
        let record = &run.world.record;
        println!(
            "{name}: {took} s, {} refused handshakes, at most {} clients without a gateway",
            record.refused, record.most_homeless
        );
    }
    assert!(adaptive.world.record.refused * 2 < full.world.record.refused);
    assert!(adaptive.world.record.most_homeless * 2 < full.world.record.most_homeless);
}
