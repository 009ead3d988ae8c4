//! Who may ask what. Nothing here knows a password: what keeps strangers out is where a request comes from.
//!
//! A browser on this machine can be made by any web site to send requests to loopback. It cannot be made to name this
//! machine in `Host` (a site whose own name leads here, "DNS rebinding", names itself), nor to leave out `Origin` in a
//! POST. So that what tells of clients, and what commands, is for those who name this machine; what commands is not for
//! browsers at all, and not for other machines. Probes and scrapers ask by whatever name they like.

use std::net::{IpAddr, SocketAddr};

use axum::Extension;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::server::RequestConnection;
use crate::clients::Peer;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// Another process of this machine, or of its network namespace.
    Here,
    /// Maybe another machine.
    Elsewhere,
}

impl RequestSource {
    /// The other end of a connection.
    pub(super) fn of(peer: &Peer) -> Self {
        match peer {
            // Both ends: what forwards from other machines often comes from loopback itself (127.0.0.6 in Istio's mesh).
            Peer::Tcp { client, local: Some(local) } if is_loopback(*client) && is_loopback(*local) => {
                Self::Here
            }
            Peer::Tcp { .. } => Self::Elsewhere,
            Peer::Unix { .. } => Self::Here,
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Paths that any client may read, under any host name.
const PUBLIC_PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// What browsers must know of every answer: it is what its type says, no other site's, and old at once.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Answers what may be asked, and tells the rest why not.
pub(super) async fn guard(
    Extension(RequestConnection { source, .. }): Extension<RequestConnection>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match problem(&request, source) {
        None => next.run(request).await,
        Some((status, words)) => (status, [(header::CONNECTION, "close")], words).into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}

type Refusal = (StatusCode, &'static str);

fn problem(request: &Request, from: RequestSource) -> Option<Refusal> {
    if !request.body().is_end_stream() {
        return Some((StatusCode::BAD_REQUEST, "no request here has a body\n"));
    }
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return Some((StatusCode::BAD_REQUEST, "more than one Host\n"));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let open = reads && PUBLIC_PATHS.contains(&request.uri().path());
    if !open && !names_this_machine(request) {
        let words = "ask by an IP address, by localhost or by this machine's name: another Host may be a web site that has \
                     a browser ask\n";
        return Some((StatusCode::FORBIDDEN, words));
    }
    if reads { None } else { commands(request.headers(), from) }
}

fn commands(headers: &HeaderMap, from: RequestSource) -> Option<Refusal> {
    if from == RequestSource::Elsewhere {
        return Some((
            StatusCode::FORBIDDEN,
            "only a process beside pontoon may command it: over loopback, or a Unix socket\n",
        ));
    }
    if ["origin", "sec-fetch-site", "sec-fetch-mode"].iter().any(|name| headers.contains_key(*name)) {
        return Some((StatusCode::FORBIDDEN, "no browser may command pontoon: use curl -X POST\n"));
    }
    // What a form of any site can send always has one.
    if headers.contains_key(header::CONTENT_TYPE) {
        return Some((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send neither a body nor its Content-Type: curl -X POST\n",
        ));
    }
    None
}

/// Its `Host`, and what an absolute target names, are an IP address or this machine's own name.
fn names_this_machine(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    host.as_ref().is_some_and(is_ours) && request.uri().authority().is_none_or(is_ours)
}

fn is_ours(authority: &Authority) -> bool {
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    literal.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || rustix::system::uname().nodename().to_str().is_ok_and(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn refused(method: &str, path: &str, headers: &[(&str, &str)], from: RequestSource) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        problem(&request.body(Body::empty()).unwrap(), from).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn what_tells_of_clients_is_for_those_who_name_this_machine() {
        for host in ["127.0.0.1:9900", "[::1]:9900", "10.0.0.7", "localhost:1", "LOCALHOST"] {
            assert_eq!(
                refused("GET", "/clients", &[("host", host)], RequestSource::Elsewhere),
                None,
                "{host}"
            );
        }
        let own = rustix::system::uname().nodename().to_str().unwrap().to_owned();
        assert_eq!(refused("GET", "/", &[("host", &own)], RequestSource::Here), None);
        for host in [
            "attacker.example",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "",
            "a b",
            "user@attacker.example",
        ] {
            for path in ["/", "/clients", "/routes", "/metrics/"] {
                assert_eq!(
                    refused("GET", path, &[("host", host)], RequestSource::Here),
                    Some(403),
                    "{host:?} {path}"
                );
            }
        }
        assert_eq!(refused("GET", "/", &[], RequestSource::Here), Some(403));
        assert_eq!(
            refused("GET", "http://attacker.example/", &[("host", "localhost")], RequestSource::Here),
            Some(403)
        );
        assert_eq!(
            refused("GET", "/", &[("host", "localhost"), ("host", "localhost")], RequestSource::Here),
            Some(400)
        );
    }

    #[test]
    fn probes_and_scrapers_ask_by_any_name_and_from_anywhere() {
        for path in PUBLIC_PATHS {
            for headers in [&[][..], &[("host", "pontoon.example:9900")]] {
                assert_eq!(refused("GET", path, headers, RequestSource::Elsewhere), None);
                assert_eq!(refused("HEAD", path, headers, RequestSource::Elsewhere), None);
            }
            assert_eq!(refused("POST", path, &[("host", "pontoon.example")], RequestSource::Here), Some(403));
        }
    }

    #[test]
    fn only_a_neighbour_that_is_no_browser_commands() {
        let local = ("host", "127.0.0.1:9900");
        assert_eq!(refused("POST", "/drain", &[local], RequestSource::Here), None);
        assert_eq!(refused("POST", "/drain", &[local], RequestSource::Elsewhere), Some(403));
        assert_eq!(
            refused("POST", "/drain", &[("host", "attacker.example")], RequestSource::Here),
            Some(403)
        );
        for browser in [
            ("origin", "http://127.0.0.1:9900"),
            ("origin", "null"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "no-cors"),
        ] {
            assert_eq!(
                refused("POST", "/drain", &[local, browser], RequestSource::Here),
                Some(403),
                "{browser:?}"
            );
        }
        for form in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"] {
            let headers = [local, ("content-type", form)];
            assert_eq!(refused("POST", "/drain", &headers, RequestSource::Here), Some(415), "{form}");
        }
    }

    #[test]
    fn a_peer_is_here_if_it_is_on_loopback_in_whatever_notation() {
        let over = |client: &str, local: &str| {
            RequestSource::of(&Peer::Tcp { client: client.parse().unwrap(), local: local.parse().ok() })
        };
        let source = |client: &str| over(client, "127.0.0.1:9900");
        for here in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(source(here), RequestSource::Here, "{here}");
        }
        for elsewhere in ["10.0.0.1:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1"] {
            assert_eq!(source(elsewhere), RequestSource::Elsewhere, "{elsewhere}");
        }
        assert_eq!(over("127.0.0.6:1", "10.0.0.1:9900"), RequestSource::Elsewhere, "forwarded");
        assert_eq!(over("127.0.0.1:1", ""), RequestSource::Elsewhere, "not known");
        assert_eq!(RequestSource::of(&Peer::Unix { pid: None, uid: None }), RequestSource::Here);
    }
}
