use super::*;

const fn size_of_future<A, F>(_: fn(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_connection_stays_small() {
    // glibc's blocks are multiples of 16 bytes, tokio's tasks of 128: what is checked is what is paid for
    let future = size_of_future(serve);
    let conn = size_of::<Conn>();
    assert!(future <= 208, "the task's future has {future} bytes");
    assert!(conn <= 160, "a connection has {conn} bytes");
}
