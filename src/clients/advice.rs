//! What each library needs for TLS of its own, so that its client can leave the bridge.
//!
//! All facts come from the library's own documentation, changelog or repository. What is not found there is left out.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::guess::NODE_LIBRARIES;

/// What one library needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The library's name.
    pub library: Cow<'static, str>,
    /// The first version with TLS.
    pub tls_since: Option<Cow<'static, str>>,
    /// The first version that sends the server's name in the handshake.
    pub sni_since: Option<Cow<'static, str>>,
    /// The first version that verifies the certificate's name, or how to make it do so.
    pub host_name_check: Option<Cow<'static, str>>,
    /// The setting to change.
    pub setting: Cow<'static, str>,
}

struct LibrarySupport {
    library: &'static str,
    /// Names from CLIENT SETINFO or guesses, in lower case, up to the first bracket.
    names: &'static [&'static str],
    tls_since: Option<&'static str>,
    sni_since: Option<&'static str>,
    host_name_check: Option<&'static str>,
    setting: &'static str,
}

const TABLE: &[LibrarySupport] = &[
    LibrarySupport {
        library: "redis-py",
        names: &["redis-py"],
        tls_since: Some("2.10"),
        sni_since: Some("3.1"),
        host_name_check: Some("by default since 6.0; from 3.4 on with ssl_check_hostname=True"),
        setting: "rediss:// in the URL, or ssl=True",
    },
    LibrarySupport {
        library: "ioredis",
        names: &["ioredis"],
        tls_since: Some("1.9.0"),
        sni_since: None,
        host_name_check: Some("by default, as Node.js does"),
        setting: "rediss:// in the URL (since 4.14.0), or tls: {}",
    },
    LibrarySupport {
        library: "node-redis",
        names: &["node-redis"],
        tls_since: Some("2.4"),
        sni_since: None,
        host_name_check: Some("by default, as Node.js does"),
        setting: "rediss:// in the URL, or socket: { tls: true } (before 4: tls: {})",
    },
    LibrarySupport {
        library: "ioredis or node_redis",
        names: &[NODE_LIBRARIES],
        tls_since: Some("ioredis 1.9.0, node_redis 2.4"),
        sni_since: None,
        host_name_check: Some("by default, as Node.js does"),
        setting: "tls: {} in the options; with ioredis since 4.14.0 also rediss:// in the URL",
    },
    LibrarySupport {
        library: "Jedis",
        names: &["jedis"],
        tls_since: Some("2.9"),
        sni_since: None,
        host_name_check: Some("by default since 7.4.2; before, set a HostnameVerifier or SSLParameters"),
        setting: "rediss:// in the URI, or ssl(true) in the client's config (since 7.4.2: SslOptions)",
    },
    LibrarySupport {
        library: "Lettuce",
        names: &["lettuce"],
        tls_since: Some("3.1; for clusters 4.2"),
        sni_since: None,
        host_name_check: Some("as SslVerifyMode says (since 6.1); before, as verifyPeer does"),
        setting: "rediss:// in the URI, or RedisURI withSsl(true)",
    },
    LibrarySupport {
        library: "Redisson",
        names: &["redisson"],
        tls_since: Some("3.4.3"),
        sni_since: None,
        host_name_check: Some("by default; sslEnableEndpointIdentification turns it off"),
        setting: "rediss:// in the address",
    },
    LibrarySupport {
        library: "go-redis",
        names: &["go-redis"],
        tls_since: None,
        sni_since: None,
        host_name_check: Some("rediss:// sets the name to check"),
        setting: "rediss:// in ParseURL, or TLSConfig with ServerName",
    },
    LibrarySupport {
        library: "StackExchange.Redis",
        names: &["se.redis", "stackexchange.redis", "nredisstack"],
        tls_since: None,
        sni_since: None,
        host_name_check: Some("sslHost sets the name to check"),
        setting: "ssl=true in the configuration string",
    },
    LibrarySupport {
        library: "PhpRedis",
        names: &["phpredis"],
        tls_since: Some("5.0"),
        sni_since: None,
        host_name_check: Some("the stream option of connect() (since 5.3.0) sets it"),
        setting: "tls:// before the host; where TLS 1.3 hangs, allow 1.2 only",
    },
    LibrarySupport {
        library: "Predis",
        names: &["predis"],
        tls_since: None,
        sni_since: None,
        host_name_check: Some("the ssl parameter sets it"),
        setting: "scheme tls, with the parameter ssl for its options",
    },
    LibrarySupport {
        library: "redis-rb",
        names: &["redis-rb", "redis-client"],
        tls_since: Some("3.3.0"),
        sni_since: None,
        host_name_check: Some("by default since 4.2.0"),
        setting: "rediss:// in the URL, or ssl: true; not with the hiredis driver before 5.0",
    },
    LibrarySupport {
        library: "redis-rs",
        names: &["redis-rs"],
        tls_since: Some("0.17"),
        sni_since: None,
        host_name_check: None,
        setting: "rediss:// in the URL, and a TLS feature of the crate",
    },
    LibrarySupport {
        library: "hiredis",
        names: &["hiredis"],
        tls_since: Some("1.0.0"),
        sni_since: None,
        host_name_check: None,
        setting: "redisInitiateSSLWithContext after connecting, from libhiredis_ssl",
    },
    LibrarySupport {
        library: "redis-cli",
        names: &["redis-cli"],
        tls_since: Some("6.0, built with BUILD_TLS=yes"),
        sni_since: None,
        host_name_check: None,
        setting: "--tls, with --sni HOST and --cacert FILE",
    },
    LibrarySupport {
        library: "redis-benchmark",
        names: &["redis-benchmark"],
        tls_since: Some("6.2, built with BUILD_TLS=yes"),
        sni_since: None,
        host_name_check: None,
        setting: "--tls, with --sni HOST and --cacert FILE",
    },
];

/// Returns what the library with this name needs; `None` if it is not in the table.
pub fn advice(name: &str) -> Option<Advice> {
    let name = name.to_ascii_lowercase();
    // Names may have a suffix: redis-py(celery_v5), go-redis(,go1.22).
    let base = name.split('(').next().unwrap_or(&name).trim_end();
    let entry = TABLE.iter().find(|entry| entry.names.contains(&base))?;
    Some(Advice {
        library: entry.library.into(),
        tls_since: entry.tls_since.map(Into::into),
        sni_since: entry.sni_since.map(Into::into),
        host_name_check: entry.host_name_check.map(Into::into),
        setting: entry.setting.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_the_name_that_it_sends() {
        for (name, library) in [
            ("redis-py", "redis-py"),
            ("redis-py(celery_v5.4)", "redis-py"),
            ("go-redis(,go1.22.1)", "go-redis"),
            ("ioredis", "ioredis"),
            ("Lettuce", "Lettuce"),
            ("SE.Redis", "StackExchange.Redis"),
            ("NRedisStack(SE.Redis-v2.6.122;.NET-6.2.18)", "StackExchange.Redis"),
            (NODE_LIBRARIES, "ioredis or node_redis"),
        ] {
            assert_eq!(advice(name).map(|advice| advice.library), Some(library.into()), "{name}");
        }
        assert_eq!(advice("my-own-client"), None);
        assert_eq!(advice(""), None);
    }

    #[test]
    fn every_name_is_in_lower_case_and_in_one_entry() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|entry| entry.names).copied().collect();
        assert!(names.iter().all(|name| *name == name.to_ascii_lowercase() && !name.contains('(')));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
