//! Validates a route's credentials: one source of the secret, and the settings that belong to it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::validate::{Check, path, place, positive};
use super::values::{Given, Values};
use crate::credentials::iam::{self, Service, is_serverless, region_of, service_of};
use crate::credentials::{self, Secret, SecretSource};
use crate::endpoint::{Endpoint, UpstreamAddress};
use crate::session::{ClientAuth, LocalPassword};

#[derive(Clone, Copy)]
enum How {
    Forward,
    Accept,
    Verify,
    Reject,
}

/// Keys that each name a source of the secret.
const SOURCES: [&str; 5] = [
    "auth.password_file",
    "auth.password_env",
    "auth.password_command",
    "auth.password",
    "auth.iam.cache_name",
];

/// Keys that have no effect without `auth.iam.cache_name`.
const IAM_DETAILS: [&str; 3] = ["auth.iam.service", "auth.iam.serverless", "auth.iam.region"];

/// Environment variables in which AWS' own tools look for the region.
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

impl Check {
    /// `None` if no credentials are configured, or if there were problems.
    pub(super) fn auth(&mut self, values: &Values, endpoints: &[Endpoint]) -> Option<credentials::Settings> {
        let urls = self.logins_of_urls(values);
        let given: Vec<&str> = SOURCES
            .into_iter()
            .filter(|path| values.get(*path).is_some_and(|given| !given.is_empty()))
            .collect();
        let allow_plaintext = self.switch(values, "auth.allow_plaintext").unwrap_or(false);
        let username = self.text(values, "auth.username");
        let (source, username) = match (&given[..], urls) {
            ([], None) => {
                self.lonely(values);
                return None;
            }
            ([], Some((user, source))) => (Some(source), username.or(user)),
            ([path], None) => (self.source(values, path, endpoints), username),
            (several, urls) => {
                let mut names = several.to_vec();
                if urls.is_some() {
                    names.push("upstream (the password in its URL)");
                }
                let problem =
                    format!("only one source of the password is allowed, found {}", names.join(", "));
                self.problems.add(place(values, several[0]), problem);
                return None;
            }
        };
        if matches!(source, Some(SecretSource::Iam(_))) && username.is_none() {
            let problem = "IAM needs the user's id: set auth.username";
            self.problems.add(place(values, "auth.iam.cache_name"), problem);
        }
        let is_iam = matches!(source, Some(SecretSource::Iam(_)));
        let renewal = self
            .parse(values, "auth.reauthenticate", positive)
            .or(is_iam.then_some(credentials::Settings::IAM_RENEWAL));
        source.map(|source| credentials::Settings { username, source, allow_plaintext, renewal })
    }

    /// The credentials for a group's sentinels. `None` if none are configured, or if there were problems.
    pub(super) fn sentinel_auth(&mut self, values: &Values) -> Option<credentials::Settings> {
        if values.get("upstream").into_iter().flatten().any(|given| has_login(&given.text)) {
            let problem = "upstream names the sentinels: set their password with sentinel.password_file, and that of the servers with \
                           auth.password_file";
            self.problems.add(place(values, "upstream"), problem);
        }
        let username = self.text(values, "sentinel.username");
        let file = self.text(values, "sentinel.password_file").map(|file| SecretSource::File(file.into()));
        let variable = self.text(values, "sentinel.password_env").map(SecretSource::Variable);
        if file.is_some() && variable.is_some() {
            let problem = "only one source of the password is allowed, found sentinel.password_file, sentinel.password_env";
            self.problems.add(place(values, "sentinel.password_env"), problem);
        }
        let Some(source) = file.or(variable) else {
            let needed = "sentinel.password_file or sentinel.password_env";
            self.without(values, &["sentinel.username"], needed);
            return None;
        };
        let allow_plaintext = self.switch(values, "auth.allow_plaintext").unwrap_or(false);
        Some(credentials::Settings { username, source, allow_plaintext, renewal: None })
    }

    /// How a client's own AUTH is handled.
    pub(super) fn client_auth(&mut self, values: &Values, presents: bool) -> ClientAuth {
        let how = self.choice(
            values,
            "auth.client",
            &[
                ("forward", How::Forward),
                ("accept", How::Accept),
                ("verify", How::Verify),
                ("reject", How::Reject),
            ],
        );
        let file = self.parse(values, "auth.local_password_file", path);
        match (how, file) {
            (Some(How::Verify), Some(file)) => return ClientAuth::Verify(LocalPassword(file)),
            (Some(How::Verify), None) => {
                let problem = "\"verify\" needs a password: set auth.local_password_file";
                self.problems.add(place(values, "auth.client"), problem);
            }
            (_, Some(_)) => {
                let problem = "has no effect unless auth.client is \"verify\": set that, or remove this";
                self.problems.add(place(values, "auth.local_password_file"), problem);
            }
            (_, None) => {}
        }
        match how {
            Some(How::Accept) => ClientAuth::Accept,
            Some(How::Reject) => ClientAuth::Reject,
            // Clients that need no change may still send a password from before.
            None if presents => ClientAuth::Accept,
            _ => ClientAuth::Forward,
        }
    }

    fn source(
        &mut self,
        values: &Values,
        path: &'static str,
        endpoints: &[Endpoint],
    ) -> Option<SecretSource> {
        if path != "auth.iam.cache_name" {
            self.without(values, &IAM_DETAILS, "auth.iam.cache_name");
        }
        let given = values.get(path)?;
        if path == "auth.password_command" {
            return Some(SecretSource::Command(given.iter().map(|given| given.text.clone()).collect()));
        }
        if path == "auth.password" && given.iter().any(|given| given.place.starts_with("--")) {
            let problem = "every process on this machine could read it: use --auth-password-file, or the variable \
                           PONTOON_AUTH_PASSWORD";
            self.problems.add("--auth-password", problem);
            return None;
        }
        let text = self.text(values, path)?;
        match path {
            "auth.password_file" => Some(SecretSource::File(text.into())),
            "auth.password_env" => Some(SecretSource::Variable(text)),
            "auth.password" => Some(SecretSource::Inline(Secret::new(text.into_bytes()))),
            _ => self.iam(values, text, endpoints).map(SecretSource::Iam),
        }
    }

    fn iam(&mut self, values: &Values, cache_name: String, endpoints: &[Endpoint]) -> Option<iam::Settings> {
        let path = "auth.iam.cache_name";
        if cfg!(not(feature = "iam")) {
            self.problems.add(place(values, path), "this build of pontoon lacks the feature \"iam\"");
            return None;
        }
        // An endpoint's name in place of the cache's is a mistake that AWS answers with WRONGPASS.
        if !cache_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let problem = format!(
                "\"{cache_name}\" is neither the id of a replication group nor the name of a serverless cache or of a MemoryDB cluster"
            );
            self.problems.add_about(place(values, path), &cache_name, problem);
            return None;
        }
        let services = [Service::ElastiCache, Service::MemoryDb].map(|service| (service.name(), service));
        let service = self
            .choice(values, "auth.iam.service", &services)
            .or_else(|| endpoints.iter().find_map(|endpoint| service_of(&endpoint.host)))
            .unwrap_or(Service::ElastiCache);
        let serverless = self.switch(values, "auth.iam.serverless");
        if service == Service::MemoryDb && serverless == Some(true) {
            let problem = "MemoryDB has no serverless caches: remove this";
            self.problems.add(place(values, "auth.iam.serverless"), problem);
            return None;
        }
        let region = self.text(values, "auth.iam.region");
        let variable = |name: &&str| std::env::var(name).ok().filter(|region| !region.is_empty());
        let region = region
            .or_else(|| REGION_VARIABLES.iter().find_map(variable))
            .or_else(|| endpoints.iter().find_map(|endpoint| region_of(&endpoint.host)));
        let Some(region) = region else {
            let problem =
                "the region does not follow from the upstream's name: set auth.iam.region, or AWS_REGION";
            self.problems.add(place(values, path), problem);
            return None;
        };
        let serverless =
            serverless.unwrap_or_else(|| endpoints.iter().any(|endpoint| is_serverless(&endpoint.host)));
        Some(iam::Settings { service, cache_name, serverless, region })
    }

    /// The login in the upstream URLs, if all of them hold the same.
    fn logins_of_urls(&mut self, values: &Values) -> Option<(Option<String>, SecretSource)> {
        let mut found: Option<(Option<String>, SecretSource)> = None;
        for Given { place, text } in values.get("upstream").into_iter().flatten() {
            let Some((user, password)) =
                text.parse::<UpstreamAddress>().ok().and_then(|upstream| upstream.login)
            else {
                continue;
            };
            if place.starts_with("--") {
                let problem = "every process on this machine could read the password in the URL: use \
                               --auth-username and --auth-password-file, or the variable PONTOON_UPSTREAM";
                self.problems.add(place, problem);
                continue;
            }
            let login = (user, SecretSource::Inline(Secret::new(password.to_vec())));
            if found.as_ref().is_some_and(|other| *other != login) {
                self.problems.add(place, "its URL has other credentials than another upstream of this route");
            }
            found = Some(login);
        }
        found
    }

    /// Reports settings that have no effect without a source.
    fn lonely(&mut self, values: &Values) {
        self.without(values, &IAM_DETAILS, "auth.iam.cache_name");
        self.without(values, &["auth.username"], "a source of the password, such as auth.password_file");
    }

    fn without(&mut self, values: &Values, paths: &[&str], needed: &str) {
        for given in paths.iter().filter_map(|path| values.get(*path)?.last()) {
            self.problems.add(&given.place, format!("has no effect without {needed}"));
        }
    }

    fn text(&mut self, values: &Values, path: &str) -> Option<String> {
        self.parse(values, path, |text| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) })
    }
}

fn has_login(upstream: &str) -> bool {
    upstream.parse::<UpstreamAddress>().is_ok_and(|upstream| upstream.login.is_some())
}

/// A warning if a file with a password in it can be read by other users.
pub(super) fn exposed(file: &Path, routes: &[(String, Values)]) -> Option<String> {
    let login = |given: &Given| has_login(&given.text);
    let inline = |(_, values): &(String, Values)| {
        values.contains_key("auth.password")
            || values.get("upstream").is_some_and(|all| all.iter().any(login))
    };
    let mode = std::fs::metadata(file).ok()?.mode() & 0o777;
    (routes.iter().any(inline) && mode & 0o077 != 0).then(|| {
        format!(
            "{} holds a password and can be read by other users (mode {mode:04o}): set its mode to 600, or use auth.password_file",
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    #[cfg(feature = "iam")]
    use crate::credentials::iam::Service;
    use crate::credentials::{self, SecretSource};

    fn load(auth: &str) -> Result<Option<credentials::Settings>, String> {
        let text = format!("[[route]]\nupstream = \"master.s.abc123.apne1.cache.amazonaws.com\"\n{auth}");
        let config = Config::from_toml("f", &text).map_err(|problems| problems.to_string())?;
        Ok(config.routes[0].upstream.auth.clone())
    }

    #[test]
    fn each_source_has_one_key() {
        let source = |auth: &str| load(&format!("[route.auth]\n{auth}")).unwrap().unwrap().source;
        assert_eq!(source("password_file = \"/run/p\""), SecretSource::File("/run/p".into()));
        assert_eq!(
            source("password_env = \"REDIS_PASSWORD\""),
            SecretSource::Variable("REDIS_PASSWORD".into())
        );
        let command = SecretSource::Command(["get", "my secret"].map(str::to_owned).to_vec());
        assert_eq!(source("password_command = [\"get\", \"my secret\"]"), command);
        assert!(matches!(source("password = \"hunter2\""), SecretSource::Inline(_)));
        assert_eq!(load("").unwrap(), None);
    }

    #[test]
    fn two_sources_are_refused_and_no_secret_is_shown() {
        let error = |auth: &str| load(auth).unwrap_err();
        let two = error("auth.password = \"hunter2\"\nauth.password_file = \"/run/p\"");
        assert!(
            two.contains(
                "only one source of the password is allowed, found auth.password_file, auth.password"
            ),
            "{two}"
        );
        assert!(!two.contains("hunter2"), "{two}");
        assert!(error("auth.username = \"app\"").contains("has no effect without a source of the password"));
        assert!(error("auth.password = 5").contains("expected a string"), "the value is not repeated");
    }

    #[test]
    fn urls_in_a_file_may_hold_credentials_if_all_hold_the_same() {
        let load = |upstream: &str| Config::from_toml("f", &format!("[[route]]\nupstream = {upstream}\n"));
        let auth = load("\"rediss://app:hunter2@x\"").unwrap().routes[0].upstream.auth.clone().unwrap();
        assert_eq!(auth.username.as_deref(), Some("app"));
        let problems = load("[\"redis://a:hunter2@x\", \"redis://b:hunter2@y\"]").unwrap_err().to_string();
        assert!(problems.contains("other credentials") && !problems.contains("hunter2"), "{problems}");
    }

    #[cfg(feature = "iam")]
    #[test]
    fn iam_needs_a_user_and_a_cache_name_and_derives_the_rest() {
        let iam =
            load("auth.username = \"app\"\nauth.iam.cache_name = \"s\"\nauth.iam.region = \"eu-west-1\"");
        let Some(credentials::Settings { source: SecretSource::Iam(iam), .. }) = iam.unwrap() else {
            panic!("it is IAM")
        };
        assert_eq!((iam.region.as_str(), iam.serverless), ("eu-west-1", false));
        let error = load("auth.iam.cache_name = \"s\"\nauth.iam.region = \"eu-west-1\"").unwrap_err();
        assert!(error.contains("IAM needs the user's id"), "{error}");
        let name = "master.s.abc123.apne1.cache.amazonaws.com";
        let error = load(&format!("auth.username = \"app\"\nauth.iam.cache_name = \"{name}\"")).unwrap_err();
        assert!(error.contains("is neither the id of a replication group"), "{error}");
        for lonely in ["region = \"eu-west-1\"", "service = \"memorydb\""] {
            let error = load(&format!("auth.password = \"x\"\nauth.iam.{lonely}")).unwrap_err();
            assert!(error.contains("has no effect without auth.iam.cache_name"), "{error}");
        }
    }

    #[cfg(feature = "iam")]
    #[test]
    fn the_service_of_iam_follows_from_the_upstreams_name_or_from_its_key() {
        let load = |upstream: &str, more: &str| {
            let text = format!(
                "[[route]]\nupstream = \"{upstream}\"\nauth.username = \"app\"\nauth.iam.cache_name = \"s\"\n{more}"
            );
            let config = Config::from_toml("f", &text).map_err(|problems| problems.to_string())?;
            match &config.routes[0].upstream.auth.as_ref().unwrap().source {
                SecretSource::Iam(iam) => Ok((iam.service, iam.region.clone())),
                other => Err(other.to_string()),
            }
        };
        let memorydb = "clustercfg.s.abc123.memorydb.eu-west-1.amazonaws.com";
        let region = "auth.iam.region = \"eu-west-1\"";
        let chosen = "auth.iam.service = \"memorydb\"\nauth.iam.region = \"eu-west-1\"";
        assert_eq!(load(memorydb, "").unwrap(), (Service::MemoryDb, "eu-west-1".to_owned()));
        assert_eq!(load("db.example", region).unwrap().0, Service::ElastiCache);
        assert_eq!(load("db.example", chosen).unwrap().0, Service::MemoryDb);
        let error = load(memorydb, "auth.iam.service = \"memcached\"").unwrap_err();
        assert!(error.contains("elasticache") && error.contains("memorydb"), "{error}");
        let error = load(memorydb, "auth.iam.serverless = true").unwrap_err();
        assert!(error.contains("auth.iam.serverless: MemoryDB has no serverless caches"), "{error}");
    }
}
