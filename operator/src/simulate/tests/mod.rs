//! Tests of the simulator, and by it.

mod adaptive;
mod explore;
mod faults;
mod model;
mod properties;
mod rebalance;
mod rows;
mod trial;

use serde_json::{Value, json};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::settings::Settings;
use super::world::World;

/// A resource with `spec` laid over the least that is valid.
fn cluster(spec: &Value) -> WebSocketCluster {
    let mut base = json!({
        "broker": {"redis": {"url": "redis://redis:6379"}},
        "auth": {"anonymous": {}},
        "gateway": {"image": "wsfleet-gateway:1"},
    });
    crate::plan::resources::overlay::merge(base.as_object_mut().unwrap(), spec.as_object().unwrap());
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(base).unwrap());
    cluster.validate_cel().unwrap();
    cluster
}

/// A fleet at rest with `clients` on it.
fn at_rest(spec: &Value, clients: u64) -> World {
    let settings = Settings {
        clients,
        ..Settings::default()
    };
    World::at_rest(cluster(spec), settings).unwrap()
}

/// Fails with whatever promise was broken.
fn assert_kept(world: &World) {
    assert!(world.checks.breaches.is_empty(), "{:#?}", world.checks.breaches);
}
