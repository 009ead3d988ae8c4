//! Reads replies to `INFO`: lines of `field:value`.

/// The text of an `INFO` reply.
#[derive(Debug, Clone, Copy)]
pub struct Info<'a>(pub &'a str);

impl<'a> Info<'a> {
    /// Returns a field's value, whichever section it is in.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Returns the values of numbered fields: `name0`, `name1` and so on.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| {
            let (number, value) = line.strip_prefix(name)?.split_once(':')?;
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| value.trim())
        })
    }

    /// Returns the section that contains a field; `None` if there is no such field, or if it is in no section.
    pub fn section_of(&self, name: &str) -> Option<&'a str> {
        let is_field = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let before = self.0.lines().take(self.0.lines().position(is_field)?);
        let section = before.filter_map(|line| line.strip_prefix("# ")).last()?.trim();
        section.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then_some(section)
    }

    /// Returns a field's value if it is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// Returns engine and version. Valkey reports its own version beside the Redis version that it is compatible with.
    pub fn engine(&self) -> Option<(&'static str, &'a str)> {
        let valkey = self.field("valkey_version").map(|version| ("Valkey", version));
        valkey.or_else(|| self.field("redis_version").map(|version| ("Redis", version)))
    }

    /// Returns `standalone`, `cluster` or `sentinel`.
    pub fn mode(&self) -> Option<&'a str> {
        self.field("redis_mode").or_else(|| self.field("server_mode"))
    }

    /// Describes engine, version and mode in one line.
    pub fn describe(&self) -> String {
        let engine = self
            .engine()
            .map_or_else(|| "unknown engine".to_owned(), |(name, version)| format!("{name} {version}"));
        match self.mode() {
            Some(mode) => format!("{engine}, {mode}"),
            None => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_of_a_field_is_found() {
        let info =
            Info("# Server\r\nrun_id:a\r\n\r\n# SSL\r\nssl_enabled:1\r\nclients:2\r\n# Odd one\r\nodd:1\r\n");
        assert_eq!(info.section_of("clients"), Some("SSL"));
        assert_eq!(info.section_of("run_id"), Some("Server"));
        assert_eq!(info.section_of("odd"), None);
        assert_eq!(info.section_of("client"), None);
        assert_eq!(Info("clients:2\r\n").section_of("clients"), None);
    }

    #[test]
    fn the_engine_is_recognised_by_its_own_version_field() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nredis_mode:cluster\r\n";
        assert_eq!(Info(valkey).describe(), "Valkey 8.0.1, cluster");
        assert_eq!(
            Info("redis_version:7.0.15\r\nredis_mode:standalone\r\n").describe(),
            "Redis 7.0.15, standalone"
        );
        assert_eq!(Info("").describe(), "unknown engine");
    }
}
