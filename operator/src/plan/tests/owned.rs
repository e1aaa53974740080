//! The objects beside the pods: mended when somebody edits them, and left alone otherwise.

use std::sync::Arc;

use serde_json::{Value, json};

use super::world::World;
use crate::observe::model::{OwnedKind, OwnedView};
use crate::plan::drift::digest;

fn service() -> (OwnedKind, String) {
    (OwnedKind::Service, "chat".to_owned())
}

fn selector(world: &World) -> Value {
    world.observed.owned[&service()].object["spec"]["selector"].clone()
}

/// Somebody edits the Service, and leaves the hash on it as it is.
fn edit(world: &mut World) {
    let view = world.observed.owned.get_mut(&service()).unwrap();
    let mut object = (*view.object).clone();
    object["spec"]["selector"] = json!({"app": "somebody-elses"});
    *view = OwnedView {
        object: Arc::new(object),
        ..view.clone()
    };
}

#[test]
fn an_object_that_somebody_edits_is_applied_again_once_and_not_more_often_than_every_five_seconds() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    let (right, writes) = (selector(&world), world.writes);
    edit(&mut world);
    world.run(1);
    assert_eq!((selector(&world), world.writes), (right.clone(), writes + 1));
    world.run(60);
    assert_eq!(world.writes, writes + 1);

    for _ in 0..30 {
        edit(&mut world);
        world.run(1);
    }
    assert!(
        world.writes <= writes + 1 + 7,
        "{} writes in 30 s of edits",
        world.writes - writes - 1
    );
    world.run(11);
    assert_eq!(selector(&world), right);
}

#[test]
fn an_object_that_an_admission_policy_changes_is_not_fought_over() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    edit(&mut world);
    let left = digest(&world.observed.owned[&service()].object);
    world.observed.applied.get_mut(&service()).unwrap().left = Some(left);
    let writes = world.writes;
    world.run(300);
    assert_eq!(world.writes, writes);
    // another edit is none of the policy's
    let view = world.observed.owned.get_mut(&service()).unwrap();
    let mut object = (*view.object).clone();
    object["metadata"]["labels"] = json!({});
    view.object = Arc::new(object);
    world.run(1);
    assert_eq!(world.writes, writes + 1);
}
