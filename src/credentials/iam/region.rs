//! Derives the service and the region from the name of an endpoint of ElastiCache or MemoryDB.

use super::settings::Service;
use crate::endpoint::Host;

/// `master.sessions.abc123.apne1.cache.amazonaws.com`, `sessions-abc123.serverless.use1.cache.amazonaws.com`, and China's
/// `….cnn1.cache.amazonaws.com.cn`.
const DOMAINS: [&str; 2] = [".cache.amazonaws.com", ".cache.amazonaws.com.cn"];

/// Codes that do not follow the rule.
const IRREGULAR: &[(&str, &str)] =
    &[("cnw1", "cn-northwest-1"), ("usgw1", "us-gov-west-1"), ("usge1", "us-gov-east-1")];

/// The region of an endpoint; `None` if its name does not show it.
pub fn region_of(host: &Host) -> Option<String> {
    if let Some(region) = memorydb_region(host) {
        return Some(region);
    }
    let code = labels(host)?.pop()?;
    if let Some((_, region)) = IRREGULAR.iter().find(|(known, _)| *known == code) {
        return Some((*region).to_owned());
    }
    // For example, apne1 is ap, ne and 1.
    let (area, rest) = code.split_at_checked(2)?;
    let digits = rest.find(|c: char| c.is_ascii_digit())?;
    let (direction, number) = rest.split_at(digits);
    let direction = match direction {
        "n" => "north",
        "e" => "east",
        "s" => "south",
        "w" => "west",
        "c" => "central",
        "ne" => "northeast",
        "nw" => "northwest",
        "se" => "southeast",
        "sw" => "southwest",
        _ => return None,
    };
    let number: u8 = number.parse().ok()?;
    area.bytes().all(|byte| byte.is_ascii_lowercase()).then(|| format!("{area}-{direction}-{number}"))
}

/// Whether the endpoint is that of a serverless cache.
pub fn is_serverless(host: &Host) -> bool {
    labels(host).is_some_and(|labels| labels.iter().any(|label| label == "serverless"))
}

/// The service that an endpoint belongs to; `None` if its name does not show it.
pub fn service_of(host: &Host) -> Option<Service> {
    if memorydb_region(host).is_some() {
        return Some(Service::MemoryDb);
    }
    labels(host).map(|_| Service::ElastiCache)
}

/// MemoryDB's names spell the region out: `clustercfg.orders.abc123.memorydb.us-east-1.amazonaws.com`.
fn memorydb_region(host: &Host) -> Option<String> {
    let Host::Name(name) = host else { return None };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let before = name.strip_suffix(".cn").unwrap_or(&name).strip_suffix(".amazonaws.com")?;
    let (service, region) = before.rsplit_once('.')?;
    service.ends_with(".memorydb").then(|| region.to_owned())
}

/// The labels before ElastiCache's own domain, in lower case.
fn labels(host: &Host) -> Option<Vec<String>> {
    let Host::Name(name) = host else { return None };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let before = DOMAINS.iter().find_map(|domain| name.strip_suffix(domain))?;
    Some(before.split('.').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<String> {
        region_of(&name.parse().unwrap())
    }

    #[test]
    fn the_region_is_derived_from_an_endpoints_name() {
        for (code, region) in [
            ("use1", "us-east-1"),
            ("usw2", "us-west-2"),
            ("cac1", "ca-central-1"),
            ("sae1", "sa-east-1"),
            ("euw3", "eu-west-3"),
            ("euc1", "eu-central-1"),
            ("eun1", "eu-north-1"),
            ("apne1", "ap-northeast-1"),
            ("apse2", "ap-southeast-2"),
            ("aps1", "ap-south-1"),
            ("mec1", "me-central-1"),
            ("ilc1", "il-central-1"),
            ("usgw1", "us-gov-west-1"),
        ] {
            let name = format!("master.sessions.abc123.{code}.cache.amazonaws.com");
            assert_eq!(of(&name).as_deref(), Some(region), "{name}");
        }
        assert_eq!(of("x.abc123.cnn1.cache.amazonaws.com.cn").as_deref(), Some("cn-north-1"));
        assert_eq!(of("x.serverless.cnw1.cache.amazonaws.com.cn.").as_deref(), Some("cn-northwest-1"));
    }

    #[test]
    fn a_name_outside_elasticache_has_no_region() {
        for name in [
            "cache.example",
            "10.0.0.1",
            "use1.cache.example",
            "x.yz.cache.amazonaws.com",
            "x.usx1.cache.amazonaws.com",
            "x.use.cache.amazonaws.com",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn the_service_is_derived_from_an_endpoints_name() {
        let service = |name: &str| service_of(&name.parse().unwrap());
        let memorydb = "clustercfg.orders.abc123.memorydb.ap-northeast-1.amazonaws.com";
        assert_eq!(service(memorydb), Some(Service::MemoryDb));
        assert_eq!(of(memorydb).as_deref(), Some("ap-northeast-1"));
        let china = "clustercfg.orders.abc123.memorydb.cn-north-1.amazonaws.com.cn";
        assert_eq!((service(china), of(china).as_deref()), (Some(Service::MemoryDb), Some("cn-north-1")));
        let elasticache = "master.sessions.abc123.use1.cache.amazonaws.com";
        assert_eq!(service(elasticache), Some(Service::ElastiCache));
        assert_eq!((service("memorydb.us-east-1.amazonaws.com"), service("cache.example")), (None, None));
    }

    #[test]
    fn a_serverless_cache_is_recognised_by_its_name() {
        let serverless = |name: &str| is_serverless(&name.parse().unwrap());
        assert!(serverless("sessions-abc123.serverless.use1.cache.amazonaws.com"));
        assert!(!serverless("master.sessions.abc123.use1.cache.amazonaws.com"));
        assert!(!serverless("serverless.example"));
    }
}
