//! Valkey takes a connection's user from its certificate, and RESET replaces that user by the default one.

use super::view::{differences, view};
use super::{DEDICATED, ONE_THREAD, SHARED, reused, settle};
use crate::harness::{Authority, Identity, Pontoon, Redis, Wire, valkey};

/// A server that takes users from certificates, and a certificate for its user `ann`.
struct Certified {
    authority: Authority,
    redis: Redis,
    certificate: Identity,
}

impl Certified {
    fn start() -> Self {
        let authority = Authority::new();
        let certificate = authority.issue_user("ann");
        let options = ["--tls-auth-clients", "optional", "--tls-auth-clients-user", "CN"];
        let redis = Redis::of(&valkey(), authority.issue(&["localhost"]), &authority, &options);
        let ann = ["ACL", "SETUSER", "ann", "on", "nopass", "~*", "&*", "+@all"];
        redis.direct().expect(&ann, "+OK\r\n");
        Self { authority, redis, certificate }
    }

    /// A connection with the same certificate that bypasses the bridge.
    fn direct(&self) -> Wire {
        let config = self.authority.client_config_with(&self.certificate);
        Wire::tls(("127.0.0.1", self.redis.tls_port), "localhost", &config).unwrap()
    }

    fn bridge(&self, sharing: &[&str]) -> Pontoon {
        let (chain, key) = (self.certificate.cert_file(), self.certificate.key_file());
        let identity = ["--tls-cert-file", chain.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()];
        let args = [&ONE_THREAD[..], sharing, &identity].concat();
        Pontoon::with(&self.redis.endpoint(), &self.authority, &args).ready()
    }
}

/// What clients do before they leave.
const FIRST: &[&[&str]] =
    &[&["PING"], &["SELECT", "3"], &["HELLO", "3"], &["CLIENT", "SETNAME", "first"], &["RESET"], &["MULTI"]];

#[test]
fn each_client_is_the_user_of_the_routes_certificate() {
    let mut leaks = Vec::new();
    for sharing in [DEDICATED, SHARED] {
        let server = Certified::start();
        let mut direct = server.direct();
        direct.expect(&["ACL", "WHOAMI"], "$3\r\nann\r\n");
        let pontoon = server.bridge(&sharing);
        let new = view(&mut server.direct());
        for words in FIRST {
            let mut first = pontoon.client();
            first.ask(words);
            drop(first);
            settle(&pontoon, &mut direct, 1);
            let found = differences(&view(&mut pontoon.client()), &new);
            leaks.extend(found.into_iter().map(|found| format!("{}: after {words:?}: {found}", sharing[1])));
            settle(&pontoon, &mut direct, 1);
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn each_client_is_served_even_if_the_default_user_is_off() {
    let mut leaks = Vec::new();
    for sharing in [DEDICATED, SHARED] {
        let server = Certified::start();
        let mut direct = server.direct();
        direct.expect(&["ACL", "SETUSER", "default", "off"], "+OK\r\n");
        let pontoon = server.bridge(&sharing);
        for words in FIRST {
            let mut first = pontoon.client();
            first.ask(words);
            drop(first);
            settle(&pontoon, &mut direct, 1);
            let reply = String::from_utf8(pontoon.client().ask(&["ACL", "WHOAMI"])).unwrap();
            if reply != "$3\r\nann\r\n" {
                leaks.push(format!("{}: after {words:?}: {reply:?}", sharing[1]));
            }
            settle(&pontoon, &mut direct, 1);
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_user_other_than_the_certificates_reaches_no_other_client() {
    let server = Certified::start();
    let mut direct = server.direct();
    direct.expect(&["ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all"], "+OK\r\n");
    let pontoon = server.bridge(&DEDICATED);
    let mut first = pontoon.client();
    first.expect(&["AUTH", "bob", "secret"], "+OK\r\n");
    first.expect(&["ACL", "WHOAMI"], "$3\r\nbob\r\n");
    drop(first);
    settle(&pontoon, &mut direct, 1);
    pontoon.client().expect(&["ACL", "WHOAMI"], "$3\r\nann\r\n");
}

#[test]
fn connections_to_that_server_are_reused_without_a_certificate() {
    let server = Certified::start();
    let mut direct = server.direct();
    let args = [&ONE_THREAD[..], &DEDICATED].concat();
    let pontoon = Pontoon::with(&server.redis.endpoint(), &server.authority, &args).ready();
    for n in 0..2 {
        let mut client = pontoon.client();
        client.expect(&["ACL", "WHOAMI"], "$7\r\ndefault\r\n");
        client.expect(&["SELECT", "3"], "+OK\r\n");
        drop(client);
        settle(&pontoon, &mut direct, 1);
        assert_eq!(reused(&pontoon), n);
    }
}
