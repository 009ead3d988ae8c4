//! The admin port: what it takes, from whom, and what it survives.

use crate::harness::{Authority, Pontoon, Redis};

#[test]
fn a_post_to_quit_ends_pontoon_as_a_signal_does() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    assert_eq!(pontoon.get("/quit").0, 405, "a GET changes nothing");
    assert_eq!(pontoon.post("/quit").0, 202);
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
}
