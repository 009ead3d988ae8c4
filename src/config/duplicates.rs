//! Refuses duplicates: routes' names, and addresses to listen on.

use std::collections::HashSet;

use super::load::{Config, Route};
use super::validate::Check;
use crate::cluster::node_addresses;
use crate::endpoint::ListenAddr;

impl Check {
    /// Refuses routes with the same name and listeners that overlap.
    pub(super) fn no_duplicates(&mut self, config: &Config) {
        let mut names = HashSet::new();
        let mut before: Vec<(&ListenAddr, &str)> = Vec::new();
        for Route { name, listener, .. } in &config.routes {
            if !names.insert(name) {
                let problem = "two routes have this name: give each another name";
                self.problems.add(format!("route \"{name}\""), problem);
            }
            for address in &listener.listen {
                if let Some((same, other)) = before.iter().find(|(before, _)| before.overlaps(address)) {
                    let problem = if *same == address && other == name {
                        format!("{address} is listed twice: remove one of them")
                    } else if *same == address {
                        format!("{address} is listed in route \"{other}\", too: remove one of them")
                    } else {
                        format!("{address} and {same} (in route \"{other}\") overlap: remove one of them")
                    };
                    self.problems.add(format!("route \"{name}\": listen"), problem);
                }
                before.push((address, name));
            }
        }
        if let Some(admin) = &config.admin {
            for (address, name) in before.iter().filter(|(address, _)| address.overlaps(admin)) {
                let problem = format!(
                    "{address} is the admin server's address (admin.listen is {admin}): change one of them"
                );
                self.problems.add(format!("route \"{name}\": listen"), problem);
            }
        }
        if let Some(metrics) = &config.metrics {
            let admin =
                config.admin.iter().map(|admin| (admin, "the admin server (admin.listen)".to_owned()));
            let routes = before.iter().map(|(address, name)| (*address, format!("route \"{name}\"")));
            for (address, whose) in admin.chain(routes).filter(|(address, _)| address.overlaps(metrics)) {
                let problem = format!("{metrics} overlaps {address} of {whose}: change one of them");
                self.problems.add("admin.metrics_listen", problem);
            }
        }
        let metrics = config.metrics.iter().map(|metrics| (metrics, "of the metrics".to_owned()));
        let admin = config.admin.iter().map(|admin| (admin, "of the admin server".to_owned())).chain(metrics);
        let listeners = before.into_iter().map(|(address, name)| (address, format!("in route \"{name}\"")));
        let all: Vec<(&ListenAddr, String)> = listeners.chain(admin).collect();
        for route in &config.routes {
            self.no_listener_among_nodes(route, &all);
        }
    }

    /// Refuses a listener within the range of the nodes' ports: the port is taken, or a reload may need it.
    fn no_listener_among_nodes(&mut self, route: &Route, all: &[(&ListenAddr, String)]) {
        let Some(cluster) = &route.cluster else { return };
        let Some(ports) = &cluster.ports else { return };
        let own = node_addresses(&route.listener.listen);
        for (address, whose) in all {
            if let ListenAddr::Tcp(tcp) = address
                && ports.contains(tcp.port())
                && own.iter().any(|ip| address.overlaps(&ListenAddr::Tcp((*ip, tcp.port()).into())))
            {
                let problem = format!(
                    "\"{ports}\" includes the port of {address} ({whose}): choose other ports for nodes"
                );
                self.problems.add(format!("route \"{}\": {}", route.name, cluster.ports_key()), problem);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        Config::from_toml("f", text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn the_metrics_address_must_not_be_a_routes_or_the_admin_servers() {
        let with = |metrics: &str, more: &str| {
            problems(&format!(
                "[[route]]\nlisten = \"127.0.0.1:7000\"\nupstream = \"u\"\n{more}[admin]\nmetrics_listen = \"{metrics}\"\n"
            ))
        };
        assert_eq!(with("127.0.0.1:9901", ""), "");
        assert_eq!(with("unix:/x", ""), "");
        assert!(
            with("127.0.0.1:9900", "").contains("overlaps 127.0.0.1:9900 of the admin server (admin.listen)")
        );
        assert!(with("0.0.0.0:7000", "").contains("overlaps 127.0.0.1:7000 of route"));
        let cluster = "topology = \"cluster\"\ncluster.ports = \"9901-9999\"\n";
        assert!(
            with("127.0.0.1:9901", cluster).contains("includes the port of 127.0.0.1:9901 (of the metrics)")
        );
        assert!(with("off", "").contains("admin.metrics_listen"), "leave it out");
    }

    #[test]
    fn the_admin_servers_address_must_not_be_a_routes() {
        let route = |listen: &str| format!("[[route]]\nupstream = \"x\"\nlisten = [\"{listen}\"]\n");
        let taken = problems(&route("127.0.0.1:9900"));
        assert!(
            taken.contains("127.0.0.1:9900 is the admin server's address (admin.listen is 127.0.0.1:9900)"),
            "{taken}"
        );
        let remote = "allow_remote_clients = true\n";
        assert!(problems(&(route("0.0.0.0:9900") + remote)).contains("the admin server's address"));
        for (listen, admin) in [
            ("127.0.0.1:9900", "off"),
            ("127.0.0.1:9900", "127.0.0.1:9901"),
            ("[::1]:9900", "127.0.0.1:9900"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert_eq!(
                problems(&format!("{}[admin]\nlisten = \"{admin}\"\n", route(listen))),
                "",
                "{listen}"
            );
        }
        let unix = problems(&format!("{}[admin]\nlisten = \"unix:/x?mode=0666\"\n", route("unix:/x")));
        assert!(unix.contains("unix:/x is the admin server's address"), "{unix}");
    }

    #[test]
    fn an_overlapping_address_is_refused() {
        let both = "[[route]]\nupstream = \"x\"\nallow_remote_clients = true\n\
                    listen = [\"127.0.0.1:7\", \"0.0.0.0:7\", \"[::]:7\", \"10.0.0.1:8\"]\n";
        let told = problems(both);
        assert_eq!(
            told.trim_end(),
            "route \"x\": listen: 0.0.0.0:7 and 127.0.0.1:7 (in route \"x\") overlap: remove one of them"
        );
    }

    #[test]
    fn the_nodes_ports_must_not_include_a_listeners() {
        let cluster = |ports: &str, listen: &str| {
            problems(&format!(
                "[[route]]\nupstream = \"x\"\ntopology = \"cluster\"\nlisten = [\"{listen}\"]\ncluster.ports = \"{ports}\"\n"
            ))
        };
        let own = cluster("6000-7000", "127.0.0.1:6379");
        assert!(
            own.contains("cluster.ports: \"6000-7000\" includes the port of 127.0.0.1:6379 (in route"),
            "{own}"
        );
        let admin = cluster("9000-9999", "unix:/x");
        assert!(admin.contains("includes the port of 127.0.0.1:9900 (of the admin server)"), "{admin}");
        for (ports, listen) in [("7000-7099", "127.0.0.1:6379"), ("9000-9999", "[::1]:6379")] {
            assert_eq!(cluster(ports, listen), "");
        }
    }
}
