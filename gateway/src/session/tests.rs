use super::*;

const fn size_of_future<A, F>(_: fn(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_connection_stays_small() {
    // tokio adds about 100 bytes to the future and rounds up to a multiple of 128: one byte more would cost 128
    let future = size_of_future(serve);
    let conn = size_of::<Conn>();
    let room = size_of::<Room>();
    assert!(future <= 152, "the task's future has {future} bytes");
    // behind the 16 bytes of the Arc's counters: a block of 160 bytes with its header holds 152
    assert!(conn <= 136, "a connection has {conn} bytes");
    // each user has a personal stream, which is a room; in docs/benchmarks.md all of this is added up
    assert!(room <= 136, "a room has {room} bytes");
}
