//! Decides which requests are allowed, by where they come from. There are no passwords.
//!
//! Any web site can make a browser on this machine send requests to loopback. It cannot make the browser name this machine in `Host`: a
//! site whose own name resolves to this machine ("DNS rebinding") sends its own name. Nor can it leave `Origin` out of a POST. So requests
//! about clients, and commands, must name this machine. Commands are also refused from browsers and from other machines. Probes and
//! scrapers may use any name.

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
    /// Possibly another machine.
    Elsewhere,
}

impl RequestSource {
    /// Returns the source of a connection.
    pub(super) fn of(peer: &Peer) -> Self {
        match peer {
            // Check both ends, because proxies for other machines often connect from loopback themselves (127.0.0.6 in Istio's mesh).
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

/// Headers for browsers: do not guess the content type, do not let other sites use the response, do not store it.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Answers allowed requests, and refuses others with the reason.
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
        return Some((StatusCode::BAD_REQUEST, "requests must not have a body\n"));
    }
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return Some((StatusCode::BAD_REQUEST, "more than one Host header\n"));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let open = reads && PUBLIC_PATHS.contains(&request.uri().path());
    if !open && !names_this_machine(request) {
        let words = "use an IP address, localhost or this machine's name as Host: with another Host, the request may come \
                     from a web site\n";
        return Some((StatusCode::FORBIDDEN, words));
    }
    if reads { None } else { commands(request.headers(), from) }
}

fn commands(headers: &HeaderMap, from: RequestSource) -> Option<Refusal> {
    if from == RequestSource::Elsewhere {
        return Some((
            StatusCode::FORBIDDEN,
            "commands are accepted only from the same machine, over loopback or a Unix socket\n",
        ));
    }
    if ["origin", "sec-fetch-site", "sec-fetch-mode"].iter().any(|name| headers.contains_key(*name)) {
        return Some((StatusCode::FORBIDDEN, "commands are not accepted from browsers: use curl -X POST\n"));
    }
    // A form on any web site always sends a Content-Type.
    if headers.contains_key(header::CONTENT_TYPE) {
        return Some((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send no body and no Content-Type: use curl -X POST\n",
        ));
    }
    None
}

/// Whether `Host`, and the host of an absolute target, are an IP address or this machine's own name.
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
    fn requests_about_clients_must_name_this_machine() {
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
    fn probes_and_scrapers_may_use_any_name_from_anywhere() {
        for path in PUBLIC_PATHS {
            for headers in [&[][..], &[("host", "pontoon.example:9900")]] {
                assert_eq!(refused("GET", path, headers, RequestSource::Elsewhere), None);
                assert_eq!(refused("HEAD", path, headers, RequestSource::Elsewhere), None);
            }
            assert_eq!(refused("POST", path, &[("host", "pontoon.example")], RequestSource::Here), Some(403));
        }
    }

    #[test]
    fn only_local_processes_other_than_browsers_may_send_commands() {
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
    fn a_peer_is_local_if_it_is_on_loopback_in_any_notation() {
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
        assert_eq!(over("127.0.0.1:1", ""), RequestSource::Elsewhere, "unknown local address");
        assert_eq!(RequestSource::of(&Peer::Unix { pid: None, uid: None }), RequestSource::Here);
    }
}
